"""``srp4ctr stream rewind``: a store restored from a dump, and workers that read again."""

import time
from pathlib import Path
from typing import Any

import pytest
import redis
from kafka import KafkaAdminClient, TopicPartition
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from srp4ctr.embedded.broker import pause_after_empty_fetch
from srp4ctr.features.online.store import FeatureStoreSink
from srp4ctr.streams.broker.clients import connected
from srp4ctr.streams.broker.topics import committed_offsets, end_offsets
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, now_ms
from srp4ctr.testing.fault_injection.cluster import Cluster, cluster
from tests.streams.workers import a_visit, publish

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(600)]
STREAMS = StreamConfig(label_window_s=2.0, correction_window_s=60.0, sequence_length=10)
USERS = [f"u{number}" for number in range(8)]


def srp4ctr(*words: str) -> str:
    done = CliRunner().invoke(app, [*words])
    return done.output + str(done.exception or "")


def fold(whole: Cluster, at_ms: int) -> dict[int, int]:
    """Publish a visit of each user, fold it, and return what is committed."""
    for user in USERS:
        publish(whole.kafka, a_visit(user, at_ms), backfill=True)
    return run_worker(whole)


def run_worker(whole: Cluster) -> dict[int, int]:
    """Run a worker until all is committed; return the offsets."""
    place = (whole.kafka, whole.streams.group_id, BEHAVIOR_EVENTS_TOPIC)
    whole.start_worker(0)
    whole.wait_ready(0)
    deadline = time.monotonic() + 120.0
    while sum(committed_offsets(*place).values()) < published(whole):
        whole.check_alive()
        assert time.monotonic() < deadline, "not all is committed"
        time.sleep(0.2)
    assert "workers of group srp4ctr-sequences are running" in srp4ctr(
        "stream", "rewind", "--to", "0=0"
    )
    whole.stop("worker0")
    return committed_offsets(*place)


def published(whole: Cluster) -> int:
    return sum(end_offsets(whole.kafka, BEHAVIOR_EVENTS_TOPIC).values())


def test_workers_read_again_what_a_restored_dump_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRP4CTR_SETTINGS", str(tmp_path / "settings.toml"))
    pause_after_empty_fetch()
    with cluster(tmp_path, STREAMS, 2, "noida") as whole:
        start_ms = now_ms() - 3_600_000
        dumped = fold(whole, start_ms)
        client: Any = redis.Redis.from_url(f"redis://{whole.features.redis}")
        rows = {key: client.dump(key) for key in client.scan_iter()}
        committed = fold(whole, start_ms + 60_000)
        right = FeatureStoreSink(whole.features).read(USERS, [])
        assert "nothing to read again" in srp4ctr("stream", "rewind")
        client.flushdb()
        assert "has no offset of partition" in srp4ctr("stream", "rewind")
        for key, row in rows.items():  # the dump is restored
            client.restore(key, 0, row)
        client.close()
        lines = [
            f"partition {p}: {committed[p] - at} records from offset {at}"
            for p, at in sorted(dumped.items())
        ]
        for option in ("--dry-run", "--to=0=999999", "--to=0=x", "--to=7=1"):
            said = srp4ctr("stream", "rewind", option)
            assert all(line in said for line in lines) == (option == "--dry-run"), said
        place = (whole.kafka, whole.streams.group_id, BEHAVIOR_EVENTS_TOPIC)
        assert committed_offsets(*place) == committed
        said = srp4ctr("stream", "rewind")
        assert all(line in said for line in lines), said
        assert committed_offsets(*place) == dumped
        assert run_worker(whole) == committed
        assert FeatureStoreSink(whole.features).read(USERS, []) == right
        with connected(KafkaAdminClient, whole.kafka) as admin:
            gone = {TopicPartition(BEHAVIOR_EVENTS_TOPIC, 0): committed[0]}
            admin.delete_records(gone)
        said = srp4ctr("stream", "rewind", "--to", "0=0")
        assert "no longer holds offset 0 of partition 0" in said
        assert "srp4ctr stream rebuild" in said
