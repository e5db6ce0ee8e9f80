"""Five weeks of EB-NeRD → a newspaper's impressions and clicks, and their labels.

EB-NeRD is for research and is not ours to pass on: it is read from outside the project.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from srp4ctr.streams.events.schema import Click, Impression
from srp4ctr.streams.state.label_join import ImpressionLabel, LabelJoin

DATA = Path(os.environ.get("SRP4CTR_DATA", "../shared/data"))
STREAM = DATA / "ebnerd_demo" / "ebnerd_demo_event_stream.parquet"
END_MS = 4_000_000_000_000  # after everything
_DAY_MS = 86_400_000
_BATCH = 500  # events between two advances of the watermark
_MAX_KEPT = 250_000
_IDS = ("impression", "user", "item")

Known = tuple[Impression | Click, int]  # an event, and since when it is known


def a_stream() -> Iterator[Impression | Click]:
    """Yield the impressions and clicks in the order of their times."""
    table = pq.read_table(STREAM)
    table = table.filter(pc.not_equal(table["behavior"], "read"))
    ids = (table[f"{name}_id"].cast("string").to_pylist() for name in _IDS)
    plain = (table[name].to_pylist() for name in ("behavior", "ts_ms", "position"))
    for kind, at_ms, position, *named in zip(*plain, *ids, strict=True):
        request, user, item = named
        if kind == "click":
            yield Click(
                event_id="c",
                request_id=request,
                user_id=user,
                item_id=item,
                occurred_at=at_ms,
            )
        else:
            yield Impression(
                event_id="i",
                request_id=request,
                user_id=user,
                item_id=item,
                position=position,
                occurred_at=at_ms,
            )


def punctual(events: Iterable[Impression | Click]) -> Iterator[Known]:
    """Yield ``events``, each known when it happened."""
    return ((event, event.occurred_at) for event in events)


def published(events: Iterable[Known], window_s: int = 1800) -> Iterator[ImpressionLabel]:
    """Yield the labels as they come."""
    join = LabelJoin(window_s * 1000, _DAY_MS, _MAX_KEPT)
    for number, (event, known_ms) in enumerate(events):
        yield from join.add(event, known_ms)
        if number % _BATCH == 0:
            yield from join.advance()
    yield from join.advance(END_MS)
    assert join.dropped_early == 0
