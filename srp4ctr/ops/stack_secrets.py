"""Makes ``secrets/``: the real stack's certificates and passwords, each in a file.

``compose.yaml`` mounts each file only into the containers that need it. Docker keeps a
file's owner and mode, and the containers run as other users: so only the owner can enter
the *folder*, and the mounted files are readable by all. Files that no container needs are
readable only by their owner.
"""

import argparse
import hashlib
import json
import secrets
import sys
from collections.abc import Container, Sequence
from pathlib import Path

from srp4ctr.errors import Srp4ctrError
from srp4ctr.ops import certificates
from srp4ctr.streams.events.schema import GOLDEN_USERS

FOLDER = "secrets"
# Server → the names by which clients inside the stack know it.
SERVERS = {
    "kafka": ("kafka", "localhost", "127.0.0.1"),
    "redis": ("redis", "localhost", "127.0.0.1"),
    "postgres": ("postgres", "localhost"),
    "triton": ("triton", "localhost", "127.0.0.1"),
    "grafana": ("grafana", "localhost", "127.0.0.1"),
    "intake": ("intake", "localhost", "127.0.0.1"),
    "objects": ("objects", "localhost", "127.0.0.1"),
}
# Servers that are published under the names in the arguments.
PUBLISHED = ("kafka", "triton", "grafana", "intake")
# Clients with a certificate for Triton.
CLIENTS = ("promoter", "ops", "monitor", "watch", "caller")
KAFKA_USERS = ("admin", "stream", "promoter", "ops", "monitor", "producer", "intake")
# Permissions in the store: the commands of our own reads and writes and of Feast's.
_READ, _SAFE = "+@connection +@read", "-@dangerous"
_CHANGES = f"~* {_READ} +@write +@scripting {_SAFE}"
REDIS_USERS = {
    "stream": _CHANGES,
    # What erases users has the append-only file rewritten.
    "ops": f"{_CHANGES} +info +bgrewriteaof",
    # Its golden requests have users of their own, whose rows it stores and removes.
    "promoter": f"~* {_READ} {_SAFE} (~*{GOLDEN_USERS}* +hset +expire +unlink)",
    "triton": f"~* {_READ} {_SAFE}",
}
# No client can log in as this user, but it needs its rights: Redis reads its append-only
# file as the default user, and without rights loses almost all of it at MULTI (issue 14541;
# fixed in pull request 14545, November 2025).
_REPLAYING = "user default off resetpass ~* &* +@all"
# Without a password; may only ping.
_HEALTH = "user health on nopass resetkeys resetchannels -@all +ping"
OBJECT_USERS = ("admin", "stream", "trainer", "promoter", "ops", "monitor")
PASSWORDS = (
    *(f"kafka_{user}" for user in KAFKA_USERS),
    *(f"redis_{user}" for user in REDIS_USERS),
    *(f"objects_{user}" for user in OBJECT_USERS),
    "postgres",
    "grafana_admin",
    "triton_control",
    "intake_token",
)
REDIS_ACL = "redis.acl"
OBJECT_ACCOUNTS = "objects_users.json"
# Renewed certificate → what reads it at its start; all others reload it by themselves.
# `ops` is started for each command, and `caller` is yours.
RESTARTED = {
    **{name: name for name in ("kafka", "redis", "postgres", "objects", "triton")},
    "promoter": "promoter",
    "monitor": "monitor",
    "watch": "triton",
}
# In no container: the second one is for the services that rank.
KEPT = (certificates.AUTHORITY_KEY, "caller.key")


def make(
    folder: Path,
    hosts: Sequence[str] = (),
    lifetime: certificates.Lifetime = certificates.Lifetime(),  # noqa: B008 (frozen)
) -> list[str]:
    """Make the missing files in ``folder``, renew certificates, and return their names.

    ``hosts`` are names or addresses of the published servers. ``lifetime`` says which
    certificates are renewed: by new ones of the same authority. All other files stay.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    certificates.make_authority(folder)
    for name, known in SERVERS.items():
        more = hosts if name in PUBLISHED else ()
        certificates.issue(
            folder, name, list(dict.fromkeys([*known, *more])), "serverAuth", lifetime
        )
    for name in CLIENTS:
        certificates.issue(folder, name, (), "clientAuth", lifetime)
    for name in PASSWORDS:
        if name not in before:
            _write(folder / name, secrets.token_urlsafe(24))
    for name, users in {
        REDIS_ACL: redis_acl(folder),
        OBJECT_ACCOUNTS: object_accounts(folder),
    }.items():
        if name not in before or (folder / name).read_text() != users:
            _write(folder / name, users)
    for path in folder.iterdir():
        path.chmod(0o600 if path.name in KEPT else 0o444)
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    return sorted(name for name in after if after[name] != before.get(name))


def redis_acl(folder: Path) -> str:
    """Return Redis' ACL file: users, their rights, and hashes of their passwords."""
    users = (
        f"user {user} on #{_sha256(folder / f'redis_{user}')} resetchannels {rights}"
        for user, rights in REDIS_USERS.items()
    )
    return "\n".join((_REPLAYING, _HEALTH, *users)) + "\n"


def object_accounts(folder: Path) -> str:
    """Return versitygw's file of users; their rights are in its buckets' policies.

    A server that verifies signatures must know the keys themselves.
    """
    keys = {user: (folder / f"objects_{user}").read_text() for user in OBJECT_USERS[1:]}
    accounts = {
        user: {"access": user, "secret": key, "role": "user"} for user, key in keys.items()
    }
    return json.dumps({"accessAccounts": accounts}, indent=1) + "\n"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path: Path, text: str) -> None:
    """Write ``text`` without a final line break, which Kafka would read as part of it."""
    partial = path.with_name(f".{path.name}.part")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def next_steps(made: Sequence[str], before: Container[str]) -> str:
    """Return what an operator must do after certificates among ``made`` were renewed.

    ``before`` has the names of the files that existed; "" if nothing is to be done.
    """
    renewed = [n.removesuffix(".pem") for n in made if n.endswith(".pem") and n in before]
    services = dict.fromkeys(RESTARTED[name] for name in renewed if name in RESTARTED)
    steps = [f"docker compose restart {service}" for service in services]
    if "caller" in renewed:
        steps.append("hand out caller.pem and caller.key to the services that rank")
    if not steps:
        return ""
    return "\n".join(
        (
            "Running servers use the former certificates, which are valid until their end.",
            "Before then, one after the other (not after a first start):",
            *(f"  {step}" for step in steps),
        )
    )


def main() -> None:
    """Make and renew the files in ``secrets/``, for the hosts in the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("hosts", nargs="*", help="names under which servers are published")
    parser.add_argument(
        "--days",
        "-d",
        type=int,
        default=certificates.DAYS,
        help="days that new certificates are valid (default: %(default)s)",
    )
    parser.add_argument(
        "--renew-days",
        "-r",
        type=int,
        help=f"renew certificates that end within these days (default: "
        f"{certificates.RENEW_DAYS}, at most a third of --days)",
    )
    given, folder = parser.parse_args(), Path(FOLDER)
    before = {path.name for path in folder.glob("*")}
    default = min(certificates.RENEW_DAYS, given.days // 3)
    renew_days = default if given.renew_days is None else given.renew_days
    try:
        lifetime = certificates.Lifetime(days=given.days, renew_days=renew_days)
        made = make(folder, given.hosts, lifetime)
    except Srp4ctrError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_status)
    sys.stdout.write(f"{FOLDER}/: {', '.join(made) or 'nothing is missing'}\n")
    if steps := next_steps(made, before):
        sys.stdout.write(f"{steps}\n")
    if certificates.expires_within(folder / certificates.AUTHORITY, given.days):
        sys.stderr.write(
            f"warning: the authority {folder / certificates.AUTHORITY} ends before new "
            "certificates do: plan its replacement (docs/security.md)\n"
        )


if __name__ == "__main__":
    main()
