"""``srp4ctr doctor`` runs all checks of a deployment."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srp4ctr import settings
from srp4ctr.cli.main import app
from srp4ctr.embedded.ports import HOST, reserved_ports
from srp4ctr.ops.doctor import run
from srp4ctr.ops.doctor.check_result import (
    Finding,
    is_open,
    is_wrong,
    ok,
    own_addresses,
    reached_at,
)


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> settings.Settings:
    """Return settings of servers that are not there."""
    monkeypatch.chdir(tmp_path)
    with reserved_ports(4) as (kafka, redis, grpc, prometheus):
        monkeypatch.setenv("SRP4CTR_KAFKA__BOOTSTRAP", f"{HOST}:{kafka}")
        monkeypatch.setenv("SRP4CTR_FEATURES__REDIS", f"{HOST}:{redis}")
        monkeypatch.setenv("SRP4CTR_TRITON__GRPC", f"{HOST}:{grpc}")
        url = f"http://{HOST}:{prometheus}"
        monkeypatch.setenv("SRP4CTR_MONITORING__PROMETHEUS_URL", url)
    return settings.load()


def test_a_server_that_does_not_answer_is_not_checked(
    nothing_runs: settings.Settings,
) -> None:
    found = {each.check: each for each in run.examine(nothing_runs)}
    for check in ("kafka access", "store access", "triton access"):
        assert found[check].state == "not checked", check
        assert found[check].found.startswith("nothing answers at")
    for check in ("topics", "triton"):
        assert found[check].state == "wrong"
        assert found[check].do
    assert found["grafana"].state == "not checked"


def test_outside_the_real_stack_what_needs_its_passwords_is_not_checked(
    nothing_runs: settings.Settings,
) -> None:
    Path("secrets").mkdir()
    Path("secrets", "ca.key").touch(mode=0o600)
    found = {each.check: each for each in run.examine(nothing_runs)}
    for check in run.NEED_CREDENTIALS:
        assert (found[check].state, found[check].do) == ("not checked", "make doctor")
        assert "only its containers have the credentials" in found[check].found
    assert not [each for each in found.values() if each.state in ("open", "wrong")]


def test_one_check_that_breaks_does_not_end_the_others(
    nothing_runs: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_: settings.Settings) -> Iterator[Finding]:
        raise OSError("the disk is gone")

    def goes_on(_: settings.Settings) -> Iterator[Finding]:
        yield ok("b", "well")

    monkeypatch.setattr(run, "checks", lambda: iter([("a", breaks), ("b", goes_on)]))
    a, b, _ = run.examine(nothing_runs)
    assert (a.check, a.state, a.found) == ("a", "wrong", "the disk is gone")
    assert b == ok("b", "well")


@pytest.mark.parametrize(
    ("finding", "ends"),
    [
        (ok("a", "well"), False),
        (is_open("a", "to all", "close it"), True),
        (is_wrong("a", "away", "start it"), True),
    ],
)
def test_what_is_open_or_wrong_is_an_error_after_all_lines(
    nothing_runs: settings.Settings,
    monkeypatch: pytest.MonkeyPatch,
    finding: Finding,
    ends: bool,
) -> None:
    monkeypatch.setattr(run, "examine", lambda *_: iter([finding, ok("last", "[x]")]))
    done = CliRunner().invoke(app, ["doctor"])
    expected = "1 of 2 checks found something to fix" if ends else "None"
    assert str(done.exception) == expected
    first, last = done.stdout.splitlines()
    assert first.startswith(finding.state)
    assert first.rstrip().endswith(f"→ {finding.do}" if finding.do else finding.found)
    assert last.endswith("[x]")


def test_a_port_on_127_0_0_1_is_not_reached_from_outside() -> None:
    import socket

    with socket.socket() as inner, socket.socket() as outer:
        inner.bind((HOST, 0))
        inner.listen()
        assert reached_at(HOST, inner.getsockname()[1]) == []
        addresses = own_addresses()
        if not addresses:
            pytest.skip("this machine is in no network")
        outer.bind((addresses[0], 0))
        outer.listen()
        port = outer.getsockname()[1]
        assert reached_at(HOST, port) == [f"{addresses[0]}:{port}"]
