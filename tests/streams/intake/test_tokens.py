"""Which clients a token admits, and what a token file must be."""

import stat
from pathlib import Path

import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.streams.intake.tokens import make_token_file, read_tokens

OLD, NEW = "0123456789abcdef", "fedcba9876543210-and-longer"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"{OLD}\n\n  {NEW}\r\n")
    return path


def test_each_token_of_the_file_lets_in(file: Path) -> None:
    tokens = read_tokens(file)
    for header in (f"Bearer {OLD}", f"bearer {NEW}", f"Bearer  {OLD} "):
        assert tokens.admit(header), header


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        OLD,
        f"Basic {OLD}",
        f"Bearer {OLD[:-1]}",
        f"Bearer {OLD}x",
        "Bearer \xff\xfe",
        f"Bearer {OLD}\n{NEW}",
        "Bearer \udcff",
    ],
)
def test_nothing_else_does(file: Path, header: str) -> None:
    assert not read_tokens(file).admit(header)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no token in it"),
        (f"{OLD}\nshort-secret\n", "token 2 must be at least 16"),
        ("0123456789abcdé€€", "token 1 must be at least 16 ASCII"),
    ],
)
def test_a_file_without_good_tokens_is_a_mistake_that_shows_none(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(MistakeError, match=reason) as found:
        read_tokens(path)
    assert "short-secret" not in str(found.value)
    with pytest.raises(MistakeError, match=r"intake.token_file .*missing: No such file"):
        read_tokens(tmp_path / "missing")


def test_a_token_is_made_once_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "data" / "token"
    assert make_token_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = path.read_text()
    assert not make_token_file(path)
    assert path.read_text() == token
    assert read_tokens(path).admit(f"Bearer {token.strip()}")
    assert token.strip() not in repr(vars(read_tokens(path)))
