"""Bearer tokens: read from a file, compared in constant time, never shown."""

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from srp4ctr.errors import MistakeError
from srp4ctr.streams.config import password_in

MIN_LENGTH = 16
_SETTING = "intake.token_file"


class Tokens:
    """Knows the digests of the tokens, and no token."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._digests = [_digest(token) for token in tokens]

    def admit(self, authorization: str) -> bool:
        """Return whether the header ``Authorization`` has one of the tokens.

        The time says nothing of a token: digests of one length are compared, all of them.
        """
        scheme, _, token = authorization.partition(" ")
        given = _digest(token.strip())
        found = [hmac.compare_digest(given, digest) for digest in self._digests]
        return any(found) and scheme.lower() == "bearer"


def read_tokens(path: Path) -> Tokens:
    """Return the tokens in ``path``, a line each; ``MistakeError`` if none is good."""
    lines = password_in(str(path), "", _SETTING).splitlines()
    tokens = [line.strip() for line in lines if line.strip()]
    bad = [n for n, t in enumerate(tokens, 1) if len(t) < MIN_LENGTH or not t.isascii()]
    if bad or not tokens:
        which = f"token {bad[0]}" if bad else "there is no token in it; each"
        raise MistakeError(
            f"{_SETTING} {path}: {which} must be at least {MIN_LENGTH} ASCII characters "
            "long: openssl rand -hex 32"
        )
    return Tokens(tokens)


def make_token_file(path: Path) -> bool:
    """Write a random token to ``path``, for its owner only; False if there is a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(target, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    return True


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
