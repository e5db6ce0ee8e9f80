"""Files on a refresh: who runs it, and how it ended, for people and the monitor. No torch.

One refresh runs at a time. The kernel releases the lock of a process that ends, so that no
file has to be removed by hand; its content is for people. ``report.json`` and ``report.md``
are in the bundle's folder but not in its manifest: each promotion adds its gates.
``refresh.json`` describes the last refresh, with or without a bundle;
``served-check.json`` the last check of served requests.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TextIO

import msgspec

from srp4ctr.atomic_files import replace_text
from srp4ctr.errors import OutageError
from srp4ctr.features.bundles.gates import Gate, failed
from srp4ctr.features.bundles.rule_results import RuleResult

REPORT_FILE = "report.json"
PAGE_FILE = "report.md"
STATUS_FILE = "refresh.json"
"""In the bundles' folder."""
SERVED_CHECK_FILE = "served-check.json"
"""In the log's folder: the newest check of served requests."""


class RefreshOutcome(StrEnum):
    """How a refresh ended."""

    READY = "ready"  # passed; its promotion has not ended, or was cut off
    PROMOTED = "promoted"
    REFUSED = "refused"
    KEPT = "kept"  # passed; without a promotion
    NOTHING_NEW = "nothing new"  # the newest bundle was trained on all there is


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshReport:
    """The result of a refresh: its bundle, metrics and promotion."""

    version: str
    folder: Path
    outcome: RefreshOutcome
    gates: tuple[Gate, ...]
    parent: str = ""
    """The bundle whose weights it started with; "": from scratch."""
    notes: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By step."""
    rules: tuple[RuleResult, ...] = ()
    """One-line rules and the model, the one first to which it loses most."""

    @property
    def promoted(self) -> bool:
        """Whether it serves."""
        return self.outcome is RefreshOutcome.PROMOTED

    @property
    def refusals(self) -> tuple[str, ...]:
        """The gates that failed: why it was not promoted."""
        return tuple(str(gate) for gate in failed(self.gates))


class RefreshStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The last refresh, and the last successful one."""

    ended_at_ms: int
    seconds: float
    error: str = ""
    """Why it failed; "" for success."""
    last_success_ms: int = 0
    """End of the last success, also with a refused bundle or nothing new; 0: never."""
    interval_s: float = 0.0
    """The interval of refreshes; 0: on demand."""
    version: str = ""
    outcome: str = ""
    gates: dict[str, bool] = {}
    """Of its bundle, less those that were skipped."""


class ServedReport(msgspec.Struct, frozen=True, kw_only=True):
    """The difference of served scores from scores with training's features."""

    checked_at_ms: int
    requests: int
    mean_shift: dict[str, float] = {}
    """By model version: mean |difference| of a probability."""


def with_promotion(report: RefreshReport, gates: tuple[Gate, ...]) -> RefreshReport:
    """Return ``report`` after a promotion that passed or failed ``gates``."""
    checked = {gate.gate for gate in gates}
    before = tuple(gate for gate in report.gates if gate.gate not in checked)
    outcome = RefreshOutcome.REFUSED if failed(gates) else RefreshOutcome.PROMOTED
    return replace(report, gates=before + gates, outcome=outcome)


def write(report: RefreshReport) -> None:
    """Write ``report`` into its bundle's folder, each file whole or not at all."""
    content = asdict(report)
    del content["folder"]  # a copied bundle lies elsewhere
    text = json.dumps(content, indent=2, allow_nan=False)
    replace_text(report.folder / REPORT_FILE, text + "\n")
    replace_text(report.folder / PAGE_FILE, "\n".join(_page(report)) + "\n")


def read(folder: Path) -> RefreshReport | None:
    """Return the report in ``folder``; None where there is none that can be read."""
    try:
        content = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
        content["gates"] = tuple(Gate(**gate) for gate in content["gates"])
        content["outcome"] = RefreshOutcome(content["outcome"])
        content["notes"] = tuple(content["notes"])
        content["rules"] = msgspec.convert(content["rules"], tuple[RuleResult, ...])
        return RefreshReport(folder=folder, **content)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def mark(gate: Gate) -> str:
    """Return the result of ``gate`` as one word."""
    if gate.passed and gate.warning:
        return "WARNING"
    return {True: "passed", False: "FAILED", None: "skipped"}[gate.passed]


def figure(number: float | None) -> str:
    """Return ``number`` for a table."""
    return "–" if number is None else f"{number:.4g}"


def _page(report: RefreshReport) -> Iterator[str]:
    yield f"# {report.version}: {report.outcome}\n"
    start = f"warm, from {report.parent}" if report.parent else "from scratch"
    yield from (f"- {note}" for note in (f"start: {start}", *report.notes))
    yield "\n| gate | | value | limit | |\n|---|---|---|---|---|"
    for gate in report.gates:
        figures = f"{figure(gate.value)} | {figure(gate.limit)}"
        yield f"| {gate.gate} | {mark(gate)} | {figures} | {gate.note} |"
    yield from _rules(report.rules)
    for title in ("metrics", "counts", "cost", "seconds"):
        yield f"\n| {title} | |\n|---|---|"
        for name, number in getattr(report, title).items():
            yield f"| {name} | {number:,.6g} |"


def _rules(results: Sequence[RuleResult]) -> Iterator[str]:
    if not results:
        return
    metric = results[0].metric
    yield f"\n| rule | {metric} | model less rule | CTR at 1 | model less rule | |"
    yield "|---|---|---|---|---|---|"
    for result in results:
        yield (
            f"| {result.rule} | {figure(result.gauc)} | {result.gauc_difference} | "
            f"{figure(result.ctr_at_1)} | {result.ctr_difference} | {result.meaning} |"
        )
    yield (
        "\nDifferences with their 95 % intervals over users, each on the requests that the"
        " rule was judged on."
    )


LOCK_FILE = "refresh.lock"


class RefreshIsRunningError(OutageError):
    """Another refresh holds the lock; the message names it."""


@contextmanager
def held(bundles_dir: Path) -> Iterator[str]:
    """Hold the lock of ``bundles_dir`` while the block runs.

    Yields a note where the last holder was killed, "" otherwise. Raises
    ``RefreshIsRunningError`` at once where another process holds it.
    """
    bundles_dir.mkdir(parents=True, exist_ok=True)
    with (bundles_dir / LOCK_FILE).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefreshIsRunningError(
                f"a refresh runs already in {bundles_dir}: {_holder(file)}. Wait for it, "
                "or end it: the next one resumes where it was"
            ) from None
        dead = _holder(file)
        _write(file, {"host": socket.gethostname(), "pid": os.getpid(), "since": _now()})
        try:
            yield f"took over from a refresh that died: {dead}" if dead else ""
        finally:  # only a kill leaves the holder's name
            _write(file, None)


def running(bundles_dir: Path) -> str:
    """Return which process refreshes in ``bundles_dir`` now, "" if none does."""
    try:
        with (bundles_dir / LOCK_FILE).open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _holder(file)
    except FileNotFoundError:
        pass
    return ""


def _holder(file: TextIO) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return ""


def _write(file: TextIO, holder: dict[str, object] | None) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(holder) if holder else "")
    file.flush()


def _now() -> str:
    return datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
