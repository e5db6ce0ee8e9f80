"""A partition's recent records → the label state that a worker needs to go on with it.

In: the partition up to the committed offset. Out: the impressions that may still be
clicked, and the labels that may not have been published before it was committed.
"""

import time
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.brokers import client_arguments
from streams.config import KafkaConfig, StreamConfig
from streams.partition import PartitionState, replay_labels

_WAIT_MS = 500


async def rebuild_labels(
    kafka: KafkaConfig, config: StreamConfig, source: TopicPartition, state: PartitionState
) -> None:
    """Replay into ``state`` both windows' records before ``state.next_offset``.

    Costs a read of that span: a day of events at the default settings.
    """
    if state.next_offset == 0:
        return
    reader = AIOKafkaConsumer(
        **client_arguments(kafka),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await reader.start()
    try:
        reader.assign([source])
        kept_s = config.label_window_s + config.correction_window_s
        start = await _start_offset(reader, source, state.next_offset, kept_s)
        await _replay(reader, source, start, state)
    finally:
        await reader.stop()


async def _start_offset(
    reader: Any, source: TopicPartition, end: int, kept_s: float
) -> int:
    """Return the first offset whose impression may still be kept at offset ``end``."""
    first: int = (await reader.beginning_offsets([source]))[source]
    if first >= end:
        return end
    reader.seek(source, end - 1)
    last = await reader.getmany(source, timeout_ms=_WAIT_MS * 10, max_records=1)
    if not last.get(source):
        return first
    oldest_ms = last[source][0].timestamp - round(kept_s * 1000)
    found = (await reader.offsets_for_times({source: max(0, oldest_ms)}))[source]
    return first if found is None else min(max(first, found.offset), end)


async def _replay(
    reader: Any, source: TopicPartition, start: int, state: PartitionState
) -> None:
    end = min(state.next_offset, (await reader.end_offsets([source]))[source])
    if start >= end:
        return
    reader.seek(source, start)
    while await reader.position(source) < end:
        batch = await reader.getmany(source, timeout_ms=_WAIT_MS)
        records = [record for record in batch.get(source, ()) if record.offset < end]
        replay_labels(state, records, time.time_ns() // 1_000_000)
