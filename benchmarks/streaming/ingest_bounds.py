"""Measures what no pipeline can exceed: only reading and decoding, only writing rows."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.fault_injection.cluster import Cluster
from benchmarks.streaming.ingest_events import USERS, Load, history, user_ids
from benchmarks.streaming.ingest_stack import Rate
from srp4ctr.streams.broker.clients import client_arguments
from srp4ctr.streams.broker.worker_clients import FETCH_BYTES
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, Event
from srp4ctr.streams.state.reducers import Rows

_ROWS = 1000  # of one call
_PASSES = 2


def reading_rate(stack: Cluster, total: int) -> Rate:
    """Return the rate of aiokafka's batches and msgspec over the topic's events."""
    return asyncio.run(_read(stack, total))


def writing_rate(stack: Cluster, load: Load, start_ms: int) -> Rate:
    """Return the rows of sequences that the store takes, of one event each.

    The rows are made before the clock starts; each is newer than what is stored.
    """
    from srp4ctr.features.online.store import FeatureStoreSink

    sink, users = FeatureStoreSink(stack.features), user_ids()
    sequences = [history(number, load.length, start_ms) for number in range(USERS)]
    made = []
    for newer_us in range(1, _PASSES + 1):
        rows = {
            user: msgspec.structs.replace(row, version_us=row.version_us + newer_us)
            for user, row in zip(users, sequences, strict=True)
        }
        made += [
            Rows(sequences={user: rows[user] for user in users[first : first + _ROWS]})
            for first in range(0, USERS, _ROWS)
        ]
    with _timed(_PASSES * USERS) as rates:
        for each in made:
            sink.write(each)
    return rates[0]


async def _read(stack: Cluster, total: int) -> Rate:
    decoder = msgspec.json.Decoder(Event)
    consumer = AIOKafkaConsumer(
        **client_arguments(stack.kafka),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    await consumer.start()
    try:
        consumer.assign(
            [
                TopicPartition(BEHAVIOR_EVENTS_TOPIC, number)
                for number in range(stack.kafka.partitions)
            ]
        )
        left = total
        with _timed(total) as rates:
            while left > 0:
                batches = await consumer.getmany(
                    timeout_ms=100, max_records=StreamConfig().max_poll_records
                )
                for records in batches.values():
                    for record in records:
                        decoder.decode(record.value)
                    left -= len(records)
        return rates[0]
    finally:
        await consumer.stop()


@contextmanager
def _timed(number: int) -> Iterator[list[Rate]]:
    """Yield a list that holds the rate of ``number`` things once the block has ended."""
    rates: list[Rate] = []
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    yield rates
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    rates.append(Rate(per_s=number / wall_s, per_core_s=number / cpu_s))
