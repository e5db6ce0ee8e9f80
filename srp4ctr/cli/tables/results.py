"""What the store and a ranking hold → tables that a person reads."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from srp4ctr.embedded.stack import StackStatus
from srp4ctr.features.check_report import FeatureCheck
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.schema import ItemStatus
from srp4ctr.streams.event_files import FileReport
from srp4ctr.streams.events import item_key
from srp4ctr.streams.sink import ItemProfile

if TYPE_CHECKING:  # a stream worker has neither torch nor tritonclient
    from srp4ctr.triton_repo.answers import Ranking

_STATUS_WORDS = {
    ItemStatus.UNKNOWN_ITEM: "unknown to the model",
    ItemStatus.NO_ATTRIBUTES: "no attributes",
    ItemStatus.NO_ACTIVITY: "nothing counted yet",
}
_MAX_BAD_LINES = 20
_TITLES = ("title", "name")  # attributes that a person knows an item by


def titles(features: FeatureConfig, item_keys: Sequence[int]) -> dict[int, str]:
    """Return each item's title from its profile; its id where it has none, else its key."""
    from srp4ctr.features import rows, store  # Feast: 3 s

    views = store.OnlineViews(features)
    entities = [rows.item_entity(key) for key in item_keys]
    found = views.read(rows.PROFILE_VIEW, entities)
    return {
        key: title_of(rows.unpack_profile(key, row)) if row else f"key {key}"
        for key, row in zip(item_keys, found, strict=True)
    }


def ranking_table(ranking: "Ranking", names: Mapping[int, str], top: int = 100) -> Table:
    """Return the best ``top`` items of a ranking."""
    title = f"model {ranking.model_version}, status {ranking.status}"
    table = a_table(
        f"{title}, features {ranking.feature_version}", "#", "item", "id", "click", ""
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
    """Yield what is in a file of events, and its first bad lines."""
    table = a_table(f"{report.path}", "type", "events")
    for name, count in sorted(report.counts.items()):
        table.add_row(name, f"{count:,}")
    for reason, count in sorted(report.rejected.items()):
        table.add_row(f"[red]rejected: {reason}[/red]", f"{count:,}")
    yield table
    if report.bad_lines:
        yield _bad_lines_table(report)


def check_table(check: FeatureCheck) -> Table:
    """Return what a check of the store found, and the first wrong rows."""
    table = a_table("the feature store against the raw log", "what", "found")
    figures = {
        "rows compared": f"{check.rows:,}",
        "wrong sequences": f"{check.wrong_sequences:,}",
        "edits in them": f"{check.edits:,}",
        "wrong counters": f"{check.wrong_counters:,}",
        "largest difference, events": f"{check.largest_difference:.3g}",
        "rows that wait for the log": f"{check.waiting:,}",
        "partitions without their beginning": f"{check.partitions_left_out:,}",
        "store behind the log, seconds": f"{check.behind_s:.1f}",
    }
    for name, figure in figures.items():
        table.add_row(name, figure)
    for sentence in check.details:
        table.add_row("[red]wrong[/red]", escape(sentence))
    return table


def stack_table(status: StackStatus) -> Table:
    """Return the processes of a stack and where their logs are."""
    table = a_table("the stack", "process", "pid", "log")
    for running in status.running:
        table.add_row(running.name, str(running.pid), running.log)
    for name in status.ended:
        table.add_row(f"[red]{name}[/red]", "ended", "")
    return table


def _bad_lines_table(report: FileReport) -> Table:
    shown = report.bad_lines[:_MAX_BAD_LINES]
    table = a_table("bad lines", "line", "reason", "what is wrong")
    for line in shown:
        table.add_row(str(line.number), line.reason, escape(line.detail))
    more = sum(report.rejected.values()) - len(shown)
    if more > 0:
        table.add_row("…", f"{more:,} more", "")
    return table


def a_table(title: str, *columns: str) -> Table:
    """Return an empty table in our look."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column)
    return table


def title_of(profile: ItemProfile) -> str:
    """Return the name that a person knows the item by; its id where it has none."""
    for name in _TITLES:
        if isinstance(title := profile.attributes.get(name), str):
            return title
    return str(profile.item_id)


def item_status_words(bits: int) -> str:
    """Return what the bits of ``ItemStatus`` say, "" for none."""
    found: Iterable[str] = (word for bit, word in _STATUS_WORDS.items() if bits & bit)
    return ", ".join(found)


def clock(at_ms: int) -> str:
    """Return ``at_ms`` as UTC for people."""
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
