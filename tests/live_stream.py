"""``srp4ctr stream run`` on the embedded broker and a Valkey of its own, for tests."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition

from srp4ctr import processes
from srp4ctr.embedded import broker, ports
from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.broker.clients import client_arguments
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.broker.topics import committed_offsets, ensure_topics
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, Event

_START_S = 240.0  # Feast's import takes some seconds
_TIMEOUT_S = 60.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStream:
    """Where a running worker reads and writes."""

    kafka: KafkaConfig
    streams: StreamConfig
    features: FeatureConfig
    env: Mapping[str, str]
    """These settings, for commands."""

    def publish(self, events: Iterable[Event]) -> None:
        """Publish ``events``, known now."""
        with EventPublisher(self.kafka) as publisher:
            for event in events:
                publisher.publish(event)

    def committed(self) -> dict[int, int]:
        """Return the worker's next offset of each partition."""
        place = (self.streams.group_id, BEHAVIOR_EVENTS_TOPIC)
        nowhere = dict.fromkeys(range(self.kafka.partitions), 0)
        return nowhere | committed_offsets(self.kafka, *place)

    def wait_until_stored(self) -> dict[int, int]:
        """Return what is committed, once that is all that the topic holds."""
        consumer = KafkaConsumer(**client_arguments(self.kafka))
        sources = [
            TopicPartition(BEHAVIOR_EVENTS_TOPIC, number)
            for number in range(self.kafka.partitions)
        ]
        ends = {each.partition: end for each, end in consumer.end_offsets(sources).items()}
        consumer.close()
        deadline = time.monotonic() + _TIMEOUT_S
        while (committed := self.committed()) != ends:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{committed} of {ends} are committed")
            time.sleep(_POLL_S)
        return committed


@contextmanager
def live_stream(folder: Path, length: int) -> Iterator[LiveStream]:
    """Yield a stream whose worker is ready; ``length`` is L."""
    from srp4ctr.features.online.feast_store import apply  # Feast: 3 s

    with ports.reserved_ports(3) as (kafka_port, redis_port, metrics_port):
        live = _settings(folder, length, kafka_port, redis_port, metrics_port)
        started: list[processes.Running] = []
        try:
            started.append(broker.start_store(folder, redis_port, tied=True))
            started.append(broker.start_broker(folder, kafka_port, tied=True))
            ensure_topics(live.kafka)
            apply(live.features)
            program = processes.python(
                "stream", "-m", "srp4ctr.cli", "stream", "run", env=live.env
            )
            started.append(processes.start(program, folder, tied=True))
            is_ready = partial(ports.is_open, metrics_port)
            processes.wait_ready(started[-1], is_ready, timeout_s=_START_S)
            yield live
        finally:
            for running in reversed(started):
                processes.stop(running, folder)


def _settings(
    folder: Path, length: int, kafka_port: int, redis_port: int, metrics_port: int
) -> LiveStream:
    kafka = KafkaConfig(bootstrap=f"{ports.HOST}:{kafka_port}")
    streams = StreamConfig(
        sequence_length=length, log_flush_interval_s=0.3, metrics_port=metrics_port
    )
    features = FeatureConfig(
        redis=f"{ports.HOST}:{redis_port}",
        registry=str(folder / "registry.db"),
        log_dir=str(folder / "events"),
        item_refresh_s=0.1,
    )
    settings = folder / "no-settings.toml"
    settings.touch()
    env = {
        "SETTINGS": str(settings),
        "EMBEDDED__DATA_DIR": str(folder),
        "KAFKA__BOOTSTRAP": kafka.bootstrap,
        "STREAMS__SEQUENCE_LENGTH": str(streams.sequence_length),
        "STREAMS__LOG_FLUSH_INTERVAL_S": str(streams.log_flush_interval_s),
        "STREAMS__METRICS_PORT": str(streams.metrics_port),
        "FEATURES__REDIS": features.redis,
        "FEATURES__REGISTRY": features.registry,
        "FEATURES__LOG_DIR": features.log_dir,
    }
    named = {f"SRP4CTR_{name}": value for name, value in env.items()}
    return LiveStream(kafka=kafka, streams=streams, features=features, env=named)
