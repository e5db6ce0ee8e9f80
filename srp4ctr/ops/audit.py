"""An operator's command → lines of the audit log, appended and never rewritten.

An entry is written to the disk before the operation, and one with its result after it. An
operation whose process was killed has only the first. The file is as safe as its folder:
a user with write access there may change it.
"""

import fcntl
import getpass
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import msgspec

from srp4ctr.atomic_files import sync_folder
from srp4ctr.errors import OutageError, Srp4ctrError
from srp4ctr.settings import Settings

AUDIT_FILE = "audit.jsonl"
BEGUN, DONE, REFUSED, FAILED = "begun", "done", "refused", "failed"
_MAX_DETAIL = 2000  # letters: a line stays one that a person reads
_NAMES_IN_FILE = {"operation": "deed"}


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, rename=_NAMES_IN_FILE):
    """One line: an operation that begins, or its result."""

    operation: str
    """An id, the same in both lines of an operation."""
    at: str
    """UTC, ISO 8601."""
    actor: str
    """Unverified: setting ``audit.actor``, else the login and its machine."""
    command: str
    subject: str
    """A bundle, a place in the log, …; never a user's id."""
    result: str
    before: str = ""
    after: str = ""
    detail: str = ""


class AuditedOperation:
    """What a command adds to its own audit entry while it runs."""

    subject = ""
    after = ""
    refusal = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLog:
    """The file of the audit log, and the actor whose operations are added."""

    path: Path
    actor: str

    @contextmanager
    def audited(
        self, command: str, subject: str = "", state: Callable[[], str] = str
    ) -> Iterator[AuditedOperation]:
        """Write that ``command`` begins, and after the block its result.

        ``state`` is called before and after; where it fails the entry has why, and the
        operation's own error is raised. Raises ``OSError`` where nothing can be written:
        then the block does not run.
        """
        operation = AuditedOperation()
        entry = AuditEntry(
            operation=uuid4().hex,
            at=_now(),
            actor=self.actor,
            command=command,
            subject=subject,
            result=BEGUN,
            before=_or_error(state),
        )
        self._append(entry)

        def end(result: str, detail: str) -> None:
            changed = {"subject": operation.subject or subject, "result": result}
            changed |= {"at": _now(), "detail": detail[:_MAX_DETAIL]}
            changed["after"] = operation.after or _or_error(state)
            self._append(msgspec.structs.replace(entry, **changed))

        try:
            yield operation
        except BaseException as error:
            is_refusal = isinstance(error, Srp4ctrError | ValueError | RuntimeError)
            is_refusal = is_refusal and not isinstance(error, OutageError)
            with suppress(OSError):  # a full disk must not hide the operation's own error
                end(REFUSED if is_refusal else FAILED, f"{type(error).__name__}: {error}")
            raise
        end(REFUSED if operation.refusal else DONE, operation.refusal)

    def _append(self, entry: AuditEntry) -> None:
        line = msgspec.json.encode(entry) + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        with open(os.open(self.path, flags, 0o640), "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = os.fstat(file.fileno()).st_size
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                line = b"\n" + line  # a writer was killed, or the disk was full
            file.write(line)
            os.fsync(file.fileno())
        if is_new:
            sync_folder(self.path.parent)


def _or_error(state: Callable[[], str]) -> str:
    try:
        return state()
    except Exception as error:  # it must not hide what the operation does, or its error
        return f"unknown: {error!r}"


def audit_log(settings: Settings) -> AuditLog:
    """Return the audit log of ``settings``."""
    given = settings.audit.log
    path = Path(given) if given else Path(settings.features.log_dir).parent / AUDIT_FILE
    return AuditLog(path=path, actor=settings.audit.actor or _login())


def read_entries(path: Path, since: datetime | None = None) -> tuple[list[AuditEntry], int]:
    """Return the operations in ``path``, oldest first, and the number of unreadable lines.

    Of each operation its last line: ``begun`` for an unfinished one. With ``since`` only
    operations that began or ended from that instant on.
    """
    entries: dict[str, AuditEntry] = {}
    unreadable = 0
    lines = path.read_bytes().splitlines() if path.is_file() else []
    for line in filter(None, lines):
        try:
            entry = msgspec.json.decode(line, type=AuditEntry)
        except msgspec.DecodeError:
            unreadable += 1
        else:
            entries[entry.operation] = entry
    found = sorted(entries.values(), key=lambda each: each.at)
    if since is not None:
        found = [each for each in found if datetime.fromisoformat(each.at) >= since]
    return found, unreadable


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _login() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
