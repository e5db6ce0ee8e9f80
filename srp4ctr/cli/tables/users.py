"""A user's rows → tables: the rows, their age, and their events."""

import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from rich.markup import escape
from rich.table import Table

from srp4ctr.cli.tables.results import a_table, clock, figures, whole
from srp4ctr.features.tensors.vocabulary import parse_attributes
from srp4ctr.ops.feature_store import UserRows, attribute_texts
from srp4ctr.streams.events.schema import Click, Impression, action_name
from srp4ctr.streams.state.counters import HALF_LIVES_H, decayed
from srp4ctr.streams.state.sequences import BehaviorSequence, SequenceElement
from srp4ctr.streams.state.user_state import UserState

_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"))  # seconds


class Names(NamedTuple):
    """What keys and codes of a user's rows stand for."""

    items: Mapping[int, str]
    actions: Mapping[int, str]


def user_tables(rows: UserRows) -> Iterator[Table]:
    """Yield a user's behaviours, exposures, counters and attributes."""
    title = f"user {escape(rows.user_id)}"
    names = Names(items=rows.titles, actions=rows.actions)
    yield sequence_table(title, rows.user, names, origins=rows.origins)
    yield _exposures_table(rows.user.exposures, rows.titles)
    yield _activity_table(rows)
    if rows.user.attributes:
        yield _attributes_table(rows.user)


def sequence_table(
    title: str,
    user: UserState,
    names: Names,
    last: int = 50,
    origins: Mapping[SequenceElement, str] | None = None,
) -> Table:
    """Return the ``last`` behaviours, newest first; their events below, if given."""
    elements = user.sequence.elements
    title += f": version {user.version_us}, last offset {user.last_offset}"
    title += f", {len(elements)} behaviours"
    if elements:
        title += f", newest {_ago(elements[-1].occurred_at)}"
    if user.forgotten_at_ms:
        title += f", forgotten until {clock(user.forgotten_at_ms)}"
    event = "" if origins is None else "\nevent, partition@offset"
    table = a_table(title, whole("when (UTC)\nage"), whole("action"), f"item{event}")
    for element in elements[: -last - 1 : -1]:
        at = f"{clock(element.occurred_at)}\n{_ago(element.occurred_at)}"
        value = "" if element.value is None else f" {element.value:g}"
        item = names.items[element.item_key]
        if origins is not None:
            item += f"\n{origins.get(element, 'not in the log')}"
        table.add_row(
            at, f"{action_name(element.action, names.actions)}{value}", escape(item)
        )
    return table


def _exposures_table(exposures: BehaviorSequence, names: Mapping[int, str]) -> Table:
    """Return how often each item was shown recently, the last shown first."""
    shown: dict[int, list[int]] = {}
    for element in reversed(exposures.elements):
        shown.setdefault(element.item_key, []).append(element.occurred_at)
    title = f"recently shown: {len(exposures)} exposures"
    rows = (
        (clock(at[0]), _ago(at[0]), str(len(at)), escape(names[key]))
        for key, at in shown.items()
    )
    columns = (whole("last (UTC)"), whole("age"), figures("times"), "item")
    return a_table(title, *columns, rows=rows)


def _activity_table(rows: UserRows) -> Table:
    """Return the counters as of now, and how many events of the log are in them."""
    activity = rows.user
    since_ms = max(0, time.time_ns() // 1_000_000 - activity.counted_at_ms)
    title = "decayed counts as of now"
    if activity.counted_at_ms:
        title += f", newest {_ago(activity.counted_at_ms)}"
    halves = [figures(f"{hours:g} h") for hours in HALF_LIVES_H]
    table = a_table(title, "half-life", *halves, figures("events in log"))
    for name, kind in (("impressions", Impression), ("clicks", Click)):
        counts = decayed(getattr(activity, name), since_ms)
        number = sum(isinstance(event, kind) for event in rows.counted)
        table.add_row(name, *(f"{count:.2f}" for count in counts), f"{number:,}")
    return table


def _attributes_table(user: UserState) -> Table:
    found = attribute_texts(parse_attributes(user.attributes))
    shown = ((escape(name), escape(text)) for name, text in found.items())
    title = f"attributes, since {clock(user.profile_at_ms)}"
    return a_table(title, "attribute", "value", rows=shown)


def _ago(at_ms: int) -> str:
    """Return how long ago that was, or that a clock was ahead."""
    seconds = time.time() - at_ms / 1000
    size, unit = next((each for each in _SPANS if abs(seconds) >= each[0]), (1, "s"))
    span = f"{abs(seconds) / size:.0f} {unit}"
    return f"in {span}" if seconds < -1 else f"{span} ago"
