"""The stack, the store, the audit log and rankings → tables.

At 80 columns every figure and every address stays whole: columns of figures do not wrap,
words do.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Column, Table

from srp4ctr.embedded.stack import StackStatus
from srp4ctr.features.consistency.report import FeatureCheck
from srp4ctr.features.tensors.schema import ItemStatus
from srp4ctr.ops.audit import BEGUN, DONE, AuditEntry
from srp4ctr.ops.doctor.check_result import Finding
from srp4ctr.streams.broker.dead_letters import ReplayReport
from srp4ctr.streams.events.file_import import FileReport
from srp4ctr.streams.events.schema import item_key

if TYPE_CHECKING:  # a stream worker has neither torch nor tritonclient
    from srp4ctr.client.messages import Ranking

_STATUS_WORDS = {
    ItemStatus.UNKNOWN_ITEM: "unknown to the model",
    ItemStatus.NO_ATTRIBUTES: "no attributes",
    ItemStatus.NO_ACTIVITY: "no counters yet",
}
_MAX_BAD_LINES = 20
_AUDIT_STYLES = {DONE: None, BEGUN: "yellow"}
_COLOURS = {"ok": "green", "open": "bold red", "wrong": "bold yellow", "not checked": "dim"}


def a_table(title: str, *columns: str | Column) -> Table:
    """Return an empty table in our look; a column that is only a name wraps its words."""
    headers = [
        Column(header=each, overflow="fold") if isinstance(each, str) else each
        for each in columns
    ]
    return Table(*headers, title=title, title_justify="left", title_style="bold")


def figures(header: str) -> Column:
    """Return a column of figures, which stay on one line each."""
    return Column(header=header, no_wrap=True, justify="right")


def whole(header: str) -> Column:
    """Return a column of short texts that stay on one line each: times, addresses."""
    return Column(header=header, no_wrap=True)


def ranking_table(ranking: "Ranking", names: Mapping[int, str], top: int = 100) -> Table:
    """Return the best ``top`` items of a ranking."""
    title = f"model {ranking.model_version}, status {ranking.status}"
    table = a_table(
        f"{title}, features {ranking.feature_version}",
        *(figures("#"), "item", "id", figures("click"), "note"),
    )
    order = sorted(range(len(ranking.scores)), key=lambda i: -ranking.scores[i])[:top]
    for place, index in enumerate(order, start=1):
        item_id = ranking.item_ids[index]
        words = item_status_words(ranking.item_statuses[index])
        score = f"{ranking.scores[index]:.3f}"
        name = escape(names[item_key(item_id)])
        table.add_row(str(place), name, escape(item_id), score, words)
    return table


def file_tables(report: FileReport) -> Iterator[Table]:
    """Yield the number of events in a file, and its first bad lines."""
    table = a_table(escape(str(report.path)), "type", figures("events"))
    for name, count in sorted(report.counts.items()):
        table.add_row(name, f"{count:,}")
    for reason, count in sorted(report.rejected.items()):
        table.add_row(f"[red]rejected: {reason}[/red]", f"{count:,}")
    yield table
    if report.bad_lines:
        yield _bad_lines_table(report)


def replay_table(report: ReplayReport, dry_run: bool) -> Table:
    """Return how many dead letters are replayed and how many stay, by reason."""
    done = "to replay" if dry_run else "replayed"
    table = a_table("dead letters", "reason", figures(done), figures("stay"))
    replayed, kept = report.replayed, report.kept
    for reason in sorted(replayed.keys() | kept.keys()):
        table.add_row(escape(reason), f"{replayed[reason]:,}", f"{kept[reason]:,}")
    table.add_row("all", f"{replayed.total():,}", f"{kept.total():,}", style="bold")
    return table


def check_table(check: FeatureCheck) -> Table:
    """Return the result of a check of the store, and the first wrong rows."""
    table = a_table("feature store compared with the raw log", "what", "found")
    found = {
        "rows compared": f"{check.rows:,}",
        "wrong sequences": f"{check.wrong_sequences:,}",
        "edits to fix them": f"{check.edits:,}",
        "wrong counters": f"{check.wrong_counters:,}",
        "largest difference, events": f"{check.largest_difference:.3g}",
        "rows ahead of the log, not compared": f"{check.waiting:,}",
        "partitions whose log is incomplete": f"{check.partitions_left_out:,}",
        "store behind the log, seconds": f"{check.behind_s:.1f}",
    }
    for name, figure in found.items():
        table.add_row(name, figure)
    for sentence in check.details:
        table.add_row("[red]wrong[/red]", escape(sentence))
    return table


def stack_table(status: StackStatus) -> Table:
    """Return the processes of a stack, and the addresses at which they listen."""
    table = a_table("the stack", whole("process"), figures("pid"), whole("addresses"))
    for running in status.running:
        addresses = status.addresses.of(running.name) if status.addresses else ()
        table.add_row(running.name, str(running.pid), "\n".join(addresses))
    for name in status.ended:
        table.add_row(f"[red]{name}[/red]", "ended", "")
    return table


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


def _bad_lines_table(report: FileReport) -> Table:
    shown = report.bad_lines[:_MAX_BAD_LINES]
    table = a_table("bad lines", figures("line"), "reason", "what is wrong")
    for line in shown:
        table.add_row(f"{line.number}", line.reason, escape(line.detail))
    if (more := report.num_rejected - len(shown)) > 0:
        table.add_row("", f"{more:,} more", "")
    return table


def item_status_words(bits: int) -> str:
    """Return the names of the bits of ``ItemStatus``, "" for none."""
    found: Iterable[str] = (word for bit, word in _STATUS_WORDS.items() if bits & bit)
    return ", ".join(found)


def clock(at_ms: int) -> str:
    """Return ``at_ms`` as UTC for people."""
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
