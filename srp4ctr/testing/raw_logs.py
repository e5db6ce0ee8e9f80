"""Writes raw logs by the stream's own code, and joins labels as it does."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from srp4ctr.streams.events.codec import Record
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    LABELS_TOPIC,
    Click,
    Impression,
    ItemUpdate,
    UserEvent,
)
from srp4ctr.streams.raw_log.delta_tables import Log, append, created, next_offset
from srp4ctr.streams.raw_log.log_tables import Row, row_of, table_of
from srp4ctr.streams.state.label_join import UNCLICKED, ImpressionLabel, LabelJoin

END_MS = 4_000_000_000_000  # after everything
_BATCH = 500  # events between two looks at the watermark
Known = tuple[UserEvent, int]  # an event, and since when it is known
AnyLog = TypeVar("AnyLog", bound=Log)
Published = tuple[UserEvent | ItemUpdate | ImpressionLabel, int]  # and when it was known


def write_log(
    log: AnyLog, published: Sequence[Published], partition: int = 0, start: int = 0
) -> AnyLog:
    """Write ``published`` in this order in one commit per topic; returns ``log``."""
    by_topic: dict[str, list[Record]] = {}
    for offset, (event, known_at) in enumerate(published, start):
        by_topic.setdefault(_topic(event), []).append(
            Record(
                topic=_topic(event),
                value=msgspec.json.encode(event),
                key=_key(event),
                timestamp=known_at,
                partition=partition,
                offset=offset,
            )
        )
    for topic, records in by_topic.items():
        rows = [row_of(record) for record in records]
        assert all(rows)
        taken = range(start, start + len(published))
        write_rows(log, topic, [row for row in rows if row], partition, taken)
    return log


def write_rows(
    log: Log, topic: str, rows: Sequence[Row], partition: int, taken: range
) -> None:
    """Write ``rows`` as a worker commits them that has read the offsets ``taken``."""
    table = created(log, topic)
    logged = next_offset(table, partition)
    assert logged is None or logged <= taken.start, "a log is written in order"
    begun = range(taken.start if logged is None else logged, taken.stop)
    assert append(table, table_of(topic, rows), {partition: begun})


def punctual(events: Iterable[UserEvent]) -> Iterator[Known]:
    """Yield ``events``, each known as soon as it happens."""
    return ((event, event.occurred_at) for event in events)


def labels_of(
    events: Iterable[Known], window_ms: int, correction_ms: int, max_kept: int = 250_000
) -> Iterator[ImpressionLabel]:
    """Yield the labels of ``events`` (by time) as the stream would publish them."""
    join = LabelJoin(window_ms, correction_ms, max_kept)
    for number, (event, known_ms) in enumerate(events):
        yield from join.add(event, known_ms)
        if number % _BATCH == 0:
            yield from join.advance()
    yield from join.advance(END_MS)
    assert join.dropped_early == 0


def click_on(shown: Impression, at_ms: int, event_id: str) -> Click:
    """Return a click on ``shown``."""
    return Click(
        event_id=event_id,
        request_id=shown.request_id,
        user_id=shown.user_id,
        item_id=shown.item_id,
        occurred_at=at_ms,
    )


def label_of(shown: Impression, **fields: object) -> ImpressionLabel:
    """Return the matured label of ``shown``, not clicked unless ``fields`` say so."""
    label = ImpressionLabel(
        request_id=shown.request_id,
        user_id=shown.user_id,
        item_id=shown.item_id,
        position=shown.position,
        score=shown.score,
        propensity=shown.propensity,
        model_version=shown.model_version,
        impression_at=shown.occurred_at,
        clicked=False,
        within_window=True,
        matured_at=shown.occurred_at + 1,
        revision=UNCLICKED,
    )
    return msgspec.structs.replace(label, **fields)


def _topic(event: UserEvent | ItemUpdate | ImpressionLabel) -> str:
    if isinstance(event, ItemUpdate):
        return ITEMS_TOPIC
    return LABELS_TOPIC if isinstance(event, ImpressionLabel) else BEHAVIOR_EVENTS_TOPIC


def _key(event: UserEvent | ItemUpdate | ImpressionLabel) -> bytes:
    owner = event.item_id if isinstance(event, ItemUpdate) else event.user_id
    return owner.encode()
