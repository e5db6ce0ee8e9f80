"""The stack, the store, the audit log and rankings → tables; times ↔ text.

At 80 columns every figure and every address stays whole: columns of figures do not wrap,
words do.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Column, Table

from srp4ctr.embedded.stack import StackStatus
from srp4ctr.errors import MistakeError
from srp4ctr.features.consistency.report import FeatureCheck
from srp4ctr.features.tensors.schema import ItemStatus
from srp4ctr.ops.audit import BEGUN, DONE, AuditEntry
from srp4ctr.ops.doctor.check_result import Finding
from srp4ctr.streams.broker.dead_letters import ReplayReport
from srp4ctr.streams.events.file_import import FileReport
from srp4ctr.streams.events.schema import REJECTED_TOPIC, item_key

if TYPE_CHECKING:  # a stream worker has neither torch nor tritonclient
    from srp4ctr.client.messages import Ranking
    from srp4ctr.training.skew.check import ServedCheck

_STATUS_WORDS = {
    ItemStatus.UNKNOWN_ITEM: "unknown to the model",
    ItemStatus.NO_ATTRIBUTES: "no attributes",
    ItemStatus.NO_ACTIVITY: "no counters yet",
    ItemStatus.UNAVAILABLE: "not available",
}
_MAX_BAD_LINES = 20
_AUDIT_STYLES = {DONE: None, BEGUN: "yellow"}
_COLOURS = {"ok": "green", "open": "bold red", "wrong": "bold yellow", "not checked": "dim"}


def a_table(
    title: str, *columns: str | Column, rows: Iterable[Iterable[str]] = ()
) -> Table:
    """Return a table in our look; a column that is only a name wraps its words."""
    headers = (
        Column(header=column, overflow="fold") if isinstance(column, str) else column
        for column in columns
    )
    table = Table(*headers, title=title, title_justify="left", title_style="bold")
    for row in rows:
        table.add_row(*row)
    return table


def figures(header: str) -> Column:
    """Return a column of figures, which stay on one line each."""
    return Column(header=header, no_wrap=True, justify="right")


def whole(header: str) -> Column:
    """Return a column of short texts that stay on one line each: times, addresses."""
    return Column(header=header, no_wrap=True)


STATUS_ADVICE = {
    "cold_user": "The store has nothing of this user: the scores use item and context "
    "features only. A click starts the history.",
    "empty_sequence": "This user has impressions but no actions yet: a click starts the "
    "history.",
    "stale_sequence": "This user's history is older than features.sequence_ttl_days and is "
    "not used. For a log of the past pass the time of the request (--at, in a call "
    "request_time_ms), or raise the setting and train a bundle that has it: `srp4ctr model "
    "refresh`.",
    "store_unavailable": "Triton could not read the feature store in time: the scores use "
    "cached features only. Does the store run? `srp4ctr stack status`",
}


UNCALIBRATED = (
    "The model learned from clicks and sampled negatives: a score orders items, and is no "
    "probability of a click."
)


def ranking_table(ranking: "Ranking", names: Mapping[int, str], top: int = 100) -> Table:
    """Return the first ``top`` items of a ranking, and what to do about its status."""
    order = sorted(range(len(ranking.scores)), key=ranking.positions.__getitem__)[:top]
    sources = ranking.sources
    score_format = ".3f" if ranking.calibrated else ".3g"
    rows = (
        (
            str(place),
            escape(names[item_key(ranking.item_ids[index])]),
            escape(ranking.item_ids[index]),
            f"{ranking.scores[index]:{score_format}}",
            *sources[index : index + 1],
            item_status_words(ranking.item_statuses[index]),
        )
        for place, index in enumerate(order, start=1)
    )
    # Probabilities need not fall from line to line: they are no order.
    title = f"model {ranking.model_version}, status {ranking.status}, by ranking score"
    title += f", features {ranking.feature_version}"
    columns: list[str | Column] = [
        figures("#"),
        "item",
        "id",
        figures("click" if ranking.calibrated else "score"),
        "source",
        "note",
    ]
    if not sources:
        columns.remove("source")
    table = a_table(title, *columns, rows=rows)
    notes = [STATUS_ADVICE.get(ranking.status, "")]
    notes += [] if ranking.calibrated else [UNCALIBRATED]
    table.caption = " ".join(filter(None, notes)) or None
    return table


def file_tables(report: FileReport) -> Iterator[Table]:
    """Yield the number of events in a file, and its first bad lines."""
    rows = [(name, f"{count:,}") for name, count in sorted(report.counts.items())]
    rows += [
        (f"[red]rejected: {reason}[/red]", f"{count:,}")
        for reason, count in sorted(report.rejected.items())
    ]
    yield a_table(escape(str(report.path)), "type", figures("events"), rows=rows)
    if not report.bad_lines:
        return
    shown = report.bad_lines[:_MAX_BAD_LINES]
    bad = [(f"{line.number}", line.reason, escape(line.detail)) for line in shown]
    if (more := report.num_rejected - len(shown)) > 0:
        bad.append(("", f"{more:,} more", ""))
    yield a_table("bad lines", figures("line"), "reason", "what is wrong", rows=bad)


def replay_table(report: ReplayReport, dry_run: bool) -> Table:
    """Return how many dead letters are replayed and how many stay, by reason."""
    done = "to replay" if dry_run else "replayed"
    replayed, kept = report.replayed, report.kept
    rows = (
        (escape(reason), f"{replayed[reason]:,}", f"{kept[reason]:,}")
        for reason in sorted(replayed.keys() | kept.keys())
    )
    columns = ("reason", figures(done), figures("stay"))
    table = a_table("dead letters", *columns, rows=rows)
    table.add_row("all", f"{replayed.total():,}", f"{kept.total():,}", style="bold")
    if report.dropped:
        table.caption = (
            f"Kafka has deleted {report.dropped:,} more before they were replayed: give "
            f"{REJECTED_TOPIC} a longer retention.ms, or replay more often."
        )
    return table


def check_table(check: FeatureCheck) -> Table:
    """Return the result of a check of the store, and the first wrong rows."""
    found = {
        "rows compared": f"{check.rows:,}",
        "wrong sequences": f"{check.wrong_sequences:,}",
        "edits to fix them": f"{check.edits:,}",
        "wrong counters": f"{check.wrong_counters:,}",
        "largest difference, events": f"{check.largest_difference:.3g}",
        "rows ahead of the log, not compared": f"{check.waiting:,}",
        "partitions whose log is incomplete": f"{check.partitions_left_out:,}",
        "records that Kafka dropped before they were logged": f"{check.skipped_offsets:,}",
        "store behind the log, seconds": f"{check.behind_s:.1f}",
    }
    wrong = [("[red]wrong[/red]", escape(sentence)) for sentence in check.details]
    title = "feature store compared with the raw log"
    return a_table(title, "what", "found", rows=[*found.items(), *wrong])


def served_tables(check: "ServedCheck") -> Iterator[Table]:
    """Yield what was compared, and how each tensor and feature differs."""
    torch = check.torch_difference
    found = {
        "requests scored again": f"{check.rescored:,}",
        "largest difference from the ONNX files": f"{check.onnx_difference:.2g}",
        "largest difference from torch": "–" if torch is None else f"{torch:.2g}",
        "requests whose bundle was removed": f"{check.no_bundle:,}",
        "requests not shown, or without a matured label": f"{check.not_in_log:,}",
        "requests compared with training": f"{check.requests:,}",
        "impressions in them": f"{check.impressions:,}",
        "mean difference of a probability": f"{check.mean_shift:.2g}",
        "largest difference of a probability": f"{check.largest_shift:.2g}",
    }
    title = "served requests compared with training and their bundles"
    yield a_table(title, "what", figures("found"), rows=found.items())
    if not check.requests:
        return
    features = {name: each for name, each in check.features.items() if each.requests}
    columns = ("name", figures("requests that differ"), figures("largest difference"))
    for title, differing in (
        ("tensors", check.tensors),
        ("features that differ", features),
    ):
        rows = (
            (
                name,
                f"{each.requests:,} ({each.requests / check.requests:.1%})",
                f"{each.largest:.3g}",
            )
            for name, each in differing.items()
        )
        yield a_table(title, *columns, rows=rows)


def stack_table(status: StackStatus) -> Table:
    """Return the processes of a stack, and the addresses at which they listen."""
    at = status.addresses
    rows = [
        (each.name, str(each.pid), "\n".join(at.of(each.name) if at else ()))
        for each in status.running
    ]
    rows += [(f"[red]{name}[/red]", "ended", "") for name in status.ended]
    columns = (whole("process"), figures("pid"), whole("addresses"))
    return a_table("the stack", *columns, rows=rows)


def audit_table(entries: Iterable[AuditEntry]) -> Table:
    """Return the audit log's entries, three lines or more each, oldest first."""
    table = a_table("audit log", "when (UTC)\nby", "command\nfrom → to\nresult")
    for entry in entries:
        when = datetime.fromisoformat(entry.at).astimezone(UTC)
        result = entry.result if not entry.detail else f"{entry.result}: {entry.detail}"
        change = f"{entry.before} → {entry.after}" if entry.before or entry.after else "–"
        style = _AUDIT_STYLES.get(entry.result, "red")
        what = f"{entry.command} {entry.subject}".rstrip()
        table.add_row(
            f"{when:%Y-%m-%d %H:%M:%S}\n{escape(entry.actor)}",
            escape(f"{what}\n{change}\n{result}"),
            style=style,
        )
    return table


def finding_line(finding: Finding) -> str:
    """Return a finding of ``srp4ctr doctor`` as a line with rich's markup."""
    colour = _COLOURS[finding.state]
    state = f"[{colour}]{finding.state:<11}[/{colour}]"
    do = f"  [dim]→ {escape(finding.do)}[/dim]" if finding.do else ""
    return f"{state} {finding.check:<16} {escape(finding.found)}{do}"


def item_status_words(bits: int) -> str:
    """Return the names of the bits of ``ItemStatus``, "" for none."""
    return ", ".join(word for bit, word in _STATUS_WORDS.items() if bits & bit)


def clock(at_ms: int) -> str:
    """Return ``at_ms`` as UTC for people."""
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def instant(text: str, option: str = "--since") -> datetime:
    """Return the instant in ``text``, ISO 8601; UTC unless it names another zone.

    Raises ``MistakeError`` that names the format of ``option``.
    """
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise MistakeError(
            f"{option} {text!r} is not a date: write 2026-11-01 or 2026-11-01T12:00"
        ) from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
