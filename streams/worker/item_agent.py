"""Item updates → item profiles, as a Faust agent: a low-rate topic.

In: topic ``items``. Out: profiles in the sink, several at a time; what is no update goes
to the dead-letter topic. A batch is acknowledged only when it is stored.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import faust
from prometheus_client import Counter

from srp4ctr.streams.broker.output_topics import OutputProducer
from srp4ctr.streams.events.codec import RejectedEvent, RejectedRecord, decode_item_update
from srp4ctr.streams.events.schema import ITEMS_TOPIC, ItemUpdate, item_key
from srp4ctr.streams.state.state_store import FeatureSink, ItemProfile

UPDATES = Counter("srp4ctr_item_updates_total", "Item updates stored")

_MAX_BATCH = 500
_WITHIN_S = 0.1
_RETRY_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ItemRecord:
    """A record as Faust delivers it, with the names of ``codec.Record``."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def add_items_agent(app: faust.App, sink: FeatureSink, outputs: OutputProducer) -> None:
    """Let ``app`` store the item profiles of the topic ``items``."""
    topic = app.topic(ITEMS_TOPIC, key_serializer="raw", value_serializer="raw")

    @app.agent(topic, name="keep_profiles")  # type: ignore[untyped-decorator]
    async def keep_profiles(stream: Any) -> None:
        async for events in stream.take_events(_MAX_BATCH, within=_WITHIN_S):
            try:
                await _store(events, sink, outputs)
            except BaseException:
                # take_events acknowledges the batch even then, unless it has one more
                # reference: so it comes again after a restart.
                for event in events:
                    event.message.incref()
                raise


def profile_of(update: ItemUpdate) -> ItemProfile:
    """Return the profile that ``update`` makes."""
    attributes = {
        name: value if isinstance(value, str) else tuple(value)
        for name, value in update.attributes.items()
    }
    return ItemProfile(
        item_key=item_key(update.item_id),
        item_id=update.item_id,
        attributes=attributes,
        updated_at_ms=update.occurred_at,
    )


async def _store(events: Sequence[Any], sink: FeatureSink, outputs: OutputProducer) -> None:
    """Store the profiles in ``events`` and dead-letter the rest; retries for ever."""
    records = [_record(event.message) for event in events]
    profiles, rejected = _sort(record for record in records if record.value is not None)
    while True:
        try:
            if profiles:
                await asyncio.to_thread(sink.write_profiles, profiles)
            await outputs.publish_rejected(rejected)
            break
        except Exception as error:
            _log.warning("storing profiles failed, retrying in %s s: %r", _RETRY_S, error)
            await asyncio.sleep(_RETRY_S)
    UPDATES.inc(len(profiles))


def _sort(records: Any) -> tuple[list[ItemProfile], list[RejectedRecord]]:
    """Return the latest profile of each item, and what is no item update."""
    latest: dict[int, ItemProfile] = {}
    rejected = []
    for record in records:
        update = decode_item_update(record.value, record.key, record.timestamp)
        if isinstance(update, RejectedEvent):
            rejected.append(RejectedRecord(record=record, rejected=update))
            continue
        profile = profile_of(update)
        before = latest.get(profile.item_key)
        if before is None or before.updated_at_ms <= profile.updated_at_ms:
            latest[profile.item_key] = profile
    return list(latest.values()), rejected


def _record(message: Any) -> _ItemRecord:
    return _ItemRecord(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp=round(message.timestamp * 1000),
        key=message.key,
        value=message.value,
    )
