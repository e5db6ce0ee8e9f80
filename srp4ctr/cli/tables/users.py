"""A user's rows → tables: what is there, how old, and from which events of the log."""

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from srp4ctr.cli.tables.results import a_table, clock, titles
from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.activity import HALF_LIVES_H, Activity, decayed
from srp4ctr.streams.events import (
    FIRST_HASHED_ACTION,
    NAMED_ACTIONS,
    Behavior,
    Click,
    Forget,
    Impression,
    UserEvent,
)
from srp4ctr.streams.exposures import Exposures
from srp4ctr.streams.folding import LoggedEvent
from srp4ctr.streams.sequences import BehaviorSequence, SequenceElement, element_of

_LoggedAt = tuple[int, LoggedEvent]
"""A partition, and an event in it."""

_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"))  # seconds


def user_tables(features: FeatureConfig, user_id: str) -> Iterator[Table]:
    """Yield what the store holds of a user now; ``ValueError`` for one it does not know."""
    from srp4ctr.features.store import FeatureStoreSink  # Feast: 3 s

    rows = FeatureStoreSink(features).read([user_id], [])
    if not rows:
        raise ValueError(f"the store has nothing of user {user_id!r}")
    logged = _logged(Path(features.log_dir), user_id)
    sequence = rows.sequences.get(user_id, BehaviorSequence())
    exposures = rows.exposures.get(user_id, Exposures())
    known = {e.item_key for e in sequence.elements} | {k for _, k in exposures.elements}
    names = titles(features, sorted(known))
    title = f"user {escape(user_id)}"
    yield sequence_table(title, sequence, names, origins=_origins(logged))
    yield _exposures_table(exposures, names)
    yield _activity_table(rows.activities.get(user_id, Activity()), logged)


def sequence_table(
    title: str,
    sequence: BehaviorSequence,
    names: Mapping[int, str],
    last: int = 50,
    origins: Mapping[SequenceElement, str] | None = None,
) -> Table:
    """Return the ``last`` behaviours, newest first, with their events from ``origins``."""
    elements = sequence.elements
    title += f": {_row(sequence)}, {len(elements)} behaviours"
    if elements:
        title += f", newest {_ago(elements[-1].occurred_at)}"
    if sequence.forgotten_at_ms:
        title += f", what was until {clock(sequence.forgotten_at_ms)} is forgotten"
    origin_column = () if origins is None else ("from",)
    table = a_table(title, "when (UTC)", "", "action", "value", "item", *origin_column)
    for element in elements[: -last - 1 : -1]:
        origin = () if origins is None else (origins.get(element, "not in the log"),)
        table.add_row(
            clock(element.occurred_at),
            _ago(element.occurred_at),
            action_name(element.action),
            "" if element.value is None else f"{element.value:g}",
            escape(names[element.item_key]),
            *map(escape, origin),
        )
    return table


def _exposures_table(exposures: Exposures, names: Mapping[int, str]) -> Table:
    """Return how often each item was shown of late, the last shown first."""
    shown: dict[int, list[int]] = {}
    for at_ms, key in reversed(exposures.elements):
        shown.setdefault(key, []).append(at_ms)
    title = f"shown of late: {_row(exposures)}, {len(exposures.elements)} exposures"
    table = a_table(title, "last (UTC)", "", "times", "item")
    for key, times in shown.items():
        last = times[0]
        table.add_row(clock(last), _ago(last), str(len(times)), escape(names[key]))
    return table


def _logged(log_dir: Path, user_id: str) -> list[_LoggedAt]:
    """Return the user's events in the raw log, with their partitions."""
    from srp4ctr.features import recomputation

    places = [at for at in recomputation.places(log_dir, "user_id") if at[0] == user_id]
    found = recomputation.events_of(log_dir, "user_id", places)
    return [
        (partition, each) for (_, partition), events in found.items() for each in events
    ]


def _origins(logged: Iterable[_LoggedAt]) -> dict[SequenceElement, str]:
    """Return each behaviour's event and where the log has it; the first of equal ones."""
    found: dict[SequenceElement, str] = {}
    for partition, each in logged:
        if isinstance(each.event, Click | Behavior):
            origin = f"{each.event.event_id}, {partition}@{each.offset}"
            found.setdefault(element_of(each.event), origin)
    return found


def _activity_table(activity: Activity, logged: Iterable[_LoggedAt]) -> Table:
    """Return the counters as of now, and how many events of the log are in them."""
    since_ms = max(0, time.time_ns() // 1_000_000 - activity.counted_at_ms)
    title = f"decayed counts as of now: {_row(activity)}"
    if activity.counted_at_ms:
        title += f", newest {_ago(activity.counted_at_ms)}"
    halves = [f"{hours:g} h" for hours in HALF_LIVES_H]
    table = a_table(title, "half-life", *halves, "events in the log")
    events = _counted([each for _, each in logged], activity.last_offset)
    for name, kind in (("impressions", Impression), ("clicks", Click)):
        counts = decayed(getattr(activity, name), since_ms)
        number = sum(isinstance(event, kind) for event in events)
        table.add_row(name, *(f"{count:.2f}" for count in counts), f"{number:,}")
    return table


def _counted(logged: Iterable[LoggedEvent], offset: int) -> list[UserEvent]:
    """Return the events that the counters hold: those since the user was forgotten."""
    from srp4ctr.features.recomputation import counted

    events: list[UserEvent] = []
    for each in counted(logged, offset):
        if isinstance(each.event, Forget):
            events.clear()
        events.append(each.event)
    return events


def _row(row: BehaviorSequence | Activity | Exposures) -> str:
    return f"version {row.version_us}, last offset {row.last_offset}"


def action_name(code: int) -> str:
    """Return the action of ``code`` in words; a hashed one has lost its own."""
    if 0 < code <= len(NAMED_ACTIONS):
        return NAMED_ACTIONS[code - 1]
    return f"other ({code})" if code >= FIRST_HASHED_ACTION else f"code {code}"


def _ago(at_ms: int) -> str:
    """Return how long ago that was, or that a clock was ahead."""
    seconds = time.time() - at_ms / 1000
    size, unit = next((each for each in _SPANS if abs(seconds) >= each[0]), (1, "s"))
    span = f"{abs(seconds) / size:.0f} {unit}"
    return f"in {span}" if seconds < -1 else f"{span} ago"
