"""The real stack's secrets: made once, and unreadable to other users."""

import shutil
import ssl
import stat
from pathlib import Path

import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.ops import certificates, stack_secrets

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_its_owner_s_alone_and_so_is_what_no_container_needs(
    stack_files: Path,
) -> None:
    assert mode(stack_files) == 0o700
    for path in stack_files.iterdir():
        assert mode(path) == (0o600 if path.name in stack_secrets.KEPT else 0o444)


def test_making_them_again_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    made = stack_secrets.make(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(made) == set(before)
    assert stack_secrets.make(folder) == []
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_is_deleted_is_made_again_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    stack_secrets.make(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("triton.pem", "redis_stream"):
        (folder / name).unlink()
    anew = ["redis.acl", "redis_stream", "triton.key", "triton.pem"]
    assert stack_secrets.make(folder) == anew
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    changed = {name for name in after if after[name] != before[name]}
    assert changed == set(anew)


def test_an_authority_whose_key_is_kept_elsewhere_stays(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    stack_secrets.make(folder)
    authority = (folder / "ca.pem").read_bytes()
    (folder / "ca.key").rename(tmp_path / "ca.key")
    assert stack_secrets.make(folder) == []
    triton = (folder / "triton.pem").read_bytes()
    with pytest.raises(MistakeError, match=r"ca\.key is missing; restore"):
        stack_secrets.make(folder, ["later.example.com"])
    assert (folder / "ca.pem").read_bytes() == authority
    assert (folder / "triton.pem").read_bytes() == triton
    (tmp_path / "ca.key").rename(folder / "ca.key")
    assert stack_secrets.make(folder, ["later.example.com"])


def test_a_host_that_is_named_later_gets_into_the_published_certificates(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "secrets"
    stack_secrets.make(folder, ["a.example.com"])
    made = stack_secrets.make(folder, ["b.example.com", "10.1.2.3"])
    assert {name.partition(".")[0] for name in made} == set(stack_secrets.PUBLISHED)
    assert {"b.example.com", "10.1.2.3"} < _names(folder / "kafka.pem")
    assert stack_secrets.make(folder) == []


def test_passwords_are_long_each_another_and_end_without_a_line(stack_files: Path) -> None:
    texts = [(stack_files / name).read_text() for name in stack_secrets.PASSWORDS]
    assert len(set(texts)) == len(texts)
    assert all(len(text) == 32 and text.strip() == text for text in texts)


def test_the_store_gets_only_hashes(stack_files: Path) -> None:
    users = (stack_files / stack_secrets.REDIS_ACL).read_text()
    assert users.startswith("user default off resetpass ~* &* +@all\n")
    for user in stack_secrets.REDIS_USERS:
        assert (stack_files / f"redis_{user}").read_text() not in users


def test_a_certificate_is_good_for_the_names_of_its_server(stack_files: Path) -> None:
    names = _names(stack_files / "triton.pem")
    assert {"triton", "localhost", "127.0.0.1", "rank.example.com"} == names
    assert "rank.example.com" not in _names(stack_files / "redis.pem")
    assert not certificates.expires_within(stack_files / "triton.pem", 800)
    assert certificates.expires_within(stack_files / "triton.pem", 900)


def _names(certificate: Path) -> set[str]:
    decoded = ssl._ssl._test_decode_cert(str(certificate))  # type: ignore[attr-defined]
    return {value for _, value in decoded["subjectAltName"]}
