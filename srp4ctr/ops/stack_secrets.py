"""Nothing → ``secrets/``: the real stack's certificates and passwords, each in its file.

``compose.yaml`` mounts each file into the containers that need it, and no other. Docker
mounts them with the owner and mode that they have here, and the containers run as other
users: so the *folder* is its owner's alone, and what is mounted may be read by all who get
that far. What no container needs is its owner's alone as well.
"""

import argparse
import hashlib
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from srp4ctr.ops import certificates

FOLDER = "secrets"
# Server → the names by which clients inside the stack know it.
SERVERS = {
    "kafka": ("kafka", "localhost", "127.0.0.1"),
    "redis": ("redis", "localhost", "127.0.0.1"),
    "postgres": ("postgres", "localhost"),
    "triton": ("triton", "localhost", "127.0.0.1"),
    "grafana": ("grafana", "localhost", "127.0.0.1"),
}
# Reached from outside, by the names that ``--host`` adds.
PUBLISHED = ("kafka", "triton", "grafana")
# Whom Triton lets in.
CLIENTS = ("trainer", "ops", "monitor", "watch", "caller")
KAFKA_USERS = ("admin", "stream", "trainer", "ops", "monitor", "producer")
# What each may do in the store: the commands of our own reads and writes and of Feast's.
_READ, _SAFE = "+@connection +@read", "-@dangerous"
_CHANGES = f"~* {_READ} +@write +@scripting {_SAFE}"
REDIS_USERS = {
    "stream": _CHANGES,
    "ops": _CHANGES,
    "trainer": f"~* {_READ} {_SAFE}",
    "triton": f"~* {_READ} {_SAFE}",
}
# Nobody gets in as this user, but it needs its rights: Redis reads its append-only file as
# the default user, refuses MULTI where that may do nothing, and starts with almost nothing
# of what it held (issue 14541; fixed in pull request 14545, of November 2025).
_REPLAYING = "user default off resetpass ~* &* +@all"
# Knows no password, and may only ask whether the server lives.
_PULSE = "user health on nopass resetkeys resetchannels -@all +ping"
PASSWORDS = (
    *(f"kafka_{user}" for user in KAFKA_USERS),
    *(f"redis_{user}" for user in REDIS_USERS),
    *("postgres", "grafana_admin", "triton_control"),
)
REDIS_ACL = "redis.acl"
# Of no container: one stays here, the other is handed to the services that rank.
KEPT = (certificates.AUTHORITY_KEY, "caller.key")


def make(folder: Path, hosts: Sequence[str] = ()) -> list[str]:
    """Make what is missing in ``folder`` and return what is new there; the rest stays.

    ``hosts`` are names or addresses under which the published servers are reached.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    certificates.make_authority(folder)
    for name, known in SERVERS.items():
        more = hosts if name in PUBLISHED else ()
        certificates.issue(folder, name, list(dict.fromkeys([*known, *more])), "serverAuth")
    for name in CLIENTS:
        certificates.issue(folder, name, (), "clientAuth")
    for name in PASSWORDS:
        if name not in before:
            _write(folder / name, secrets.token_urlsafe(24))
    users = redis_acl(folder)
    if REDIS_ACL not in before or (folder / REDIS_ACL).read_text() != users:
        _write(folder / REDIS_ACL, users)
    for path in folder.iterdir():
        path.chmod(0o600 if path.name in KEPT else 0o444)
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    return sorted(name for name in after if after[name] != before.get(name))


def redis_acl(folder: Path) -> str:
    """Return Redis' users: their rights, and hashes of their passwords."""
    users = (
        f"user {user} on #{_sha256(folder / f'redis_{user}')} resetchannels {rights}"
        for user, rights in REDIS_USERS.items()
    )
    return "\n".join((_REPLAYING, _PULSE, *users)) + "\n"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path: Path, text: str) -> None:
    """Write ``text`` without a last line break: Kafka would take it for a part of it."""
    partial = path.with_name(f".{path.name}.part")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def main() -> None:
    """Make what is missing in ``secrets/``, for the names in the arguments: ``HOST …``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("hosts", nargs="*", help="names under which servers are published")
    made = make(Path(FOLDER), parser.parse_args().hosts)
    sys.stdout.write(f"{FOLDER}/: {', '.join(made) or 'nothing is missing'}\n")


if __name__ == "__main__":
    main()
