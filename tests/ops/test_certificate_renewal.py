"""Certificates close to their end are renewed: real TLS servers and clients."""

import shutil
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.ops import certificates, stack_secrets
from tests.ops.tls_servers import SHORT, connected, echoes, sign_expired, tls_server
from tests.structure.source_tree import ROOT

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


def test_a_certificate_close_to_its_end_is_renewed_without_an_outage(
    tmp_path: Path,
) -> None:
    stack_secrets.make(tmp_path, lifetime=SHORT)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        tls_server(tmp_path, "redis") as server,
        connected(tmp_path, server.port) as old,
    ):
        assert echoes(old)
        made = stack_secrets.make(tmp_path)
        pairs = {
            f"{name}.{end}"
            for name in (*stack_secrets.SERVERS, *stack_secrets.CLIENTS)
            for end in ("pem", "key")
        }
        assert set(made) == pairs
        with connected(tmp_path, server.port) as during:  # it has not reloaded
            assert echoes(during)
        server.load()
        with connected(tmp_path, server.port) as after:
            assert echoes(after)
            certificate = after.getpeercert() or {}
            ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
            assert ends - time.time() > 800 * 86_400
        assert echoes(old)  # the former connection stays
    changed = {p.name for p in tmp_path.iterdir() if p.read_bytes() != before[p.name]}
    assert changed == pairs
    assert stack_secrets.make(tmp_path) == []


def test_an_expired_certificate_is_refused_clearly_and_renewed(tmp_path: Path) -> None:
    stack_secrets.make(tmp_path)
    sign_expired(tmp_path, "redis")
    with tls_server(tmp_path, "redis") as server:
        expired = pytest.raises(ssl.SSLCertVerificationError, match="has expired")
        with expired, connected(tmp_path, server.port):
            pass
        assert stack_secrets.make(tmp_path) == ["redis.key", "redis.pem"]
        server.load()
        with connected(tmp_path, server.port) as renewed:
            assert echoes(renewed)


def test_a_container_that_mounts_the_file_sees_the_renewed_one(tmp_path: Path) -> None:
    stack_secrets.make(tmp_path, lifetime=SHORT)
    inode = (tmp_path / "kafka.pem").stat().st_ino  # which Docker mounts
    stack_secrets.make(tmp_path)
    assert (tmp_path / "kafka.pem").stat().st_ino == inode


def test_an_interrupted_renewal_is_repaired(tmp_path: Path) -> None:
    stack_secrets.make(tmp_path)
    for name, other in (("kafka.key", "redis.key"), ("triton.pem", "")):
        (tmp_path / name).chmod(0o600)
        (tmp_path / name).write_bytes((tmp_path / other).read_bytes() if other else b"")
    made = stack_secrets.make(tmp_path)
    assert made == ["kafka.key", "kafka.pem", "triton.key", "triton.pem"]


def test_a_renewal_that_cannot_be_signed_leaves_the_former_pair(tmp_path: Path) -> None:
    stack_secrets.make(tmp_path, lifetime=SHORT)
    before = (tmp_path / "kafka.pem").read_bytes()
    (tmp_path / "ca.key").unlink()
    with pytest.raises(MistakeError, match=r"ca\.key is missing; restore"):
        stack_secrets.make(tmp_path)
    assert (tmp_path / "kafka.pem").read_bytes() == before


def run_command(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "srp4ctr.ops.stack_secrets", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )


def test_the_command_takes_a_lifetime_and_names_what_to_restart(tmp_path: Path) -> None:
    first = run_command(tmp_path, "--days", "30")
    assert first.returncode == 0, first.stderr
    assert "restart" not in first.stdout
    pem = tmp_path / "secrets" / "kafka.pem"
    assert certificates.expires_within(pem, 30)
    assert not certificates.expires_within(pem, 29)
    assert "nothing is missing" in run_command(tmp_path, "--days", "30").stdout
    renewed = run_command(tmp_path)
    for service in ("kafka", "redis", "postgres", "objects", "triton", "promoter"):
        assert renewed.stdout.count(f"docker compose restart {service}\n") == 1
    assert "hand out caller.pem" in renewed.stdout
    assert not certificates.expires_within(pem, 800)


@pytest.mark.parametrize(("days", "renew"), [("30", "30"), ("0", "0"), ("30", "-1")])
def test_a_lifetime_that_renews_at_once_is_a_mistake(
    tmp_path: Path, days: str, renew: str
) -> None:
    command = run_command(tmp_path, f"--days={days}", f"--renew-days={renew}")
    assert command.returncode == 2
    assert command.stderr.startswith(
        f"error: certificates for {days} days cannot be renewed"
    )
