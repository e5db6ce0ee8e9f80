"""An error → one of the four kinds, what the command line prints of it, and its status."""

import errno
import re
import signal
import traceback
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from srp4ctr.cli.missing_extras import sentence
from srp4ctr.errors import ArtifactError, MistakeError, OutageError, Srp4ctrError

# Errors of files, by what a person does about them.
_MISTAKES = {
    errno.ENOENT: "there is no {}: check the path",
    errno.EEXIST: "{} exists already: name another file",
    errno.EISDIR: "{} is a folder: name a file",
    errno.ENOTDIR: "a part of the path {} is a file: check the path",
    errno.EACCES: "this user may not open {}: check its owner and its mode",
    errno.EPERM: "this user may not change {}: check its owner and its mode",
}
_OUTAGES = {
    errno.ENOSPC: "no space is left for {}: make room, then repeat the command",
    errno.EDQUOT: "the quota of {} is used up: make room, then repeat the command",
    errno.EROFS: "{} is on a file system that is mounted read-only",
    errno.EIO: "the disk of {} does not work: see the kernel's log (dmesg)",
}
_ADVICE = {
    "found": "fix the findings, then run `srp4ctr {}` again",
    "mistake": "correct the command or the settings: `srp4ctr {} --help`",
    "outage": "`srp4ctr doctor` shows which servers answer; then run `srp4ctr {}` again",
    "artifact": "restore the file or bundle, or name another, then run `srp4ctr {}` again",
    "bug": "report this bug of srp4ctr with the trace on standard error",
    "interrupted": "run `srp4ctr {}` again",
}
_WHICH_ANSWER = " (`srp4ctr doctor` says which servers answer)"
_A_BUG = "this is a bug of srp4ctr: please report it with the lines above"


INTERRUPTED = 128 + signal.SIGINT
"""The exit status of a command that Ctrl-C ended."""
_INCOMPLETE = (
    r"No magic bytes found at end of file '([^']+)'",
    r"'([^']+)' too small to be a Parquet file",
)


class StepError(Srp4ctrError):
    """A step failed: its title, its cause, its log and what to try; of its cause's kind."""

    def __init__(self, title: str, cause: Exception, logs: str, hint: str) -> None:
        super().__init__(f"{title}: {cause}")
        self.title, self.cause, self.logs, self.hint = title, cause, logs, hint
        kind = foreseen(cause)
        self.exit_status = kind.exit_status if kind else 1


def foreseen(error: BaseException, typed: Sequence[str] = ()) -> Srp4ctrError | None:
    """Return ``error`` as a kind of ``srp4ctr.errors``; None for a bug.

    ``typed`` is the command, for which a missing package is an extra to install.
    """
    if isinstance(error, Srp4ctrError):
        return error
    if isinstance(error, ModuleNotFoundError):
        missing = sentence(error.name, typed)
        return MistakeError(missing) if missing else None
    if not isinstance(error, OSError):
        return _incomplete(str(error))
    code, name = error.errno or 0, error.filename or "this file"
    if code in _OUTAGES:
        return OutageError(_OUTAGES[code].format(name))
    if code in _MISTAKES and error.filename:
        return MistakeError(_MISTAKES[code].format(name))
    return OutageError(str(error) or type(error).__name__)


def advice(kind: str, command: str) -> str:
    """Return what to do about an error of ``kind`` of ``srp4ctr COMMAND``."""
    return _ADVICE[kind].format(command)


def _incomplete(message: str) -> ArtifactError | None:
    """Return which Parquet file is incomplete, by what DuckDB says of the raw log."""
    for pattern in _INCOMPLETE:
        if match := re.search(pattern, message):
            return ArtifactError(
                f"{match[1]} is an incomplete Parquet file: copy it again, or put it back "
                "from a backup"
            )
    return None


def report_interruption(console: Console, typed: Sequence[str]) -> int:
    """Print that Ctrl-C ended the command; return the exit status of an interruption."""
    resumes = ": the same command goes on where this one was" if "refresh" in typed else ""
    console.print(f"interrupted{resumes}", highlight=False, soft_wrap=True)
    return INTERRUPTED


def report(
    console: Console, error: Exception, typed: Sequence[str], *, debug: bool = False
) -> int:
    """Print what failed, why, and what to try; return the exit status.

    A bug has its trace; with ``debug`` every error has.
    """
    cause = error.cause if isinstance(error, StepError) else error
    kind = foreseen(cause, typed)
    if debug or kind is None:
        trace = "".join(traceback.format_exception(error))
        console.print(trace, markup=False, highlight=False, soft_wrap=True)
    text = escape(str(kind) if kind else repr(cause))
    if isinstance(cause, ConnectionError | TimeoutError) and "srp4ctr " not in text:
        text += _WHICH_ANSWER
    if isinstance(error, StepError):
        console.print(f"[bold red]✗ {escape(error.title)}[/bold red]")
        console.print(text, highlight=False)
        console.print(f"[dim]logs: {escape(error.logs)}[/dim]", highlight=False)
        if error.hint:
            console.print(f"try: {escape(error.hint)}", highlight=False)
    else:  # one line in any log
        line = f"[bold red]error:[/bold red] {text}"
        console.print(line, highlight=False, soft_wrap=True)
    if kind is None:
        console.print(_A_BUG, highlight=False)
    return kind.exit_status if kind else 1
