"""Who changed what, when: one line of JSON a deed, appended and never rewritten.

In: what an operator's command is about to do. Out: a line on the disk before it is done,
and one of how it ended; where a process was killed in between, the first stays alone. The
file is as safe as its folder: whoever may write there may write into it.
"""

import fcntl
import getpass
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from srp4ctr.settings import Settings

AUDIT_FILE = "audit.jsonl"
BEGUN, DONE, REFUSED, FAILED = "begun", "done", "refused", "failed"
_MAX_DETAIL = 2000  # letters: a line stays one that a person reads


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One line: what somebody is doing, or how it ended."""

    deed: str
    """The same in both lines of a deed."""
    at: str
    """UTC, ISO 8601."""
    actor: str
    """Who, by their own word: setting ``local.actor``, else the login and its machine."""
    command: str
    subject: str
    """A bundle, a place in the log, …; never a user's id."""
    result: str
    before: str = ""
    after: str = ""
    detail: str = ""


class Outcome:
    """What a command says of its own deed while it does it."""

    subject = ""
    after = ""
    refusal = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLog:
    """Where deeds are written down, and by whom."""

    path: Path
    actor: str

    @contextmanager
    def recorded(
        self, command: str, subject: str = "", state: Callable[[], str] = str
    ) -> Iterator[Outcome]:
        """Write that ``command`` begins, and after the block how it ended.

        ``state`` is asked before and after. Raises ``OSError`` where nothing can be
        written: then nothing is done either.
        """
        told, outcome = {"deed": uuid4().hex, "actor": self.actor}, Outcome()
        told |= {"command": command, "subject": subject, "before": state()}
        self._append(AuditEntry(at=_now(), result=BEGUN, **told))
        result, detail = FAILED, ""
        try:
            yield outcome
            result = REFUSED if outcome.refusal else DONE
            detail = outcome.refusal[:_MAX_DETAIL]
        except BaseException as error:
            result = REFUSED if isinstance(error, ValueError | RuntimeError) else FAILED
            detail = f"{type(error).__name__}: {error}"[:_MAX_DETAIL]
            raise
        finally:
            told["subject"] = outcome.subject or subject
            after = outcome.after or state()
            self._append(
                AuditEntry(at=_now(), result=result, after=after, detail=detail, **told)
            )

    def _append(self, deed: AuditEntry) -> None:
        line = json.dumps(asdict(deed)).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        with open(os.open(self.path, flags, 0o640), "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if (size := os.fstat(file.fileno()).st_size) and _last_byte(
                file, size
            ) != b"\n":
                line = b"\n" + line  # a writer was killed, or the disk was full
            file.write(line)
            os.fsync(file.fileno())
        if is_new:
            from srp4ctr.streams.raw_log.log_files import (
                sync_folder,  # pyarrow: not every image has it
            )

            sync_folder(self.path.parent)


def audit_log(settings: "Settings") -> AuditLog:
    """Return the audit log of ``settings``."""
    given = settings.local.audit_log
    path = Path(given) if given else Path(settings.features.log_dir).parent / AUDIT_FILE
    return AuditLog(path=path, actor=settings.local.actor or _login())


def read_deeds(path: Path, since: datetime | None = None) -> tuple[list[AuditEntry], int]:
    """Return the deeds in ``path``, oldest first, and how many lines are unreadable.

    Of each deed its last line, ``begun`` where the end is missing; with ``since`` only the
    deeds from that instant on.
    """
    deeds: dict[str, AuditEntry] = {}
    broken = 0
    lines = path.read_bytes().splitlines() if path.is_file() else []
    for line in filter(None, lines):
        try:
            deed = AuditEntry(**json.loads(line))
        except (ValueError, TypeError):
            broken += 1
            continue
        deeds[deed.deed] = deed
    found = sorted(deeds.values(), key=lambda each: each.at)
    if since is not None:
        found = [each for each in found if datetime.fromisoformat(each.at) >= since]
    return found, broken


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _login() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _last_byte(file: Any, size: int) -> bytes:
    return os.pread(file.fileno(), 1, size - 1)
