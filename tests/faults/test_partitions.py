"""The documented way to another number of partitions, walked on Apache Kafka."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from kafka.admin import KafkaAdminClient, NewPartitions
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from srp4ctr.embedded import apache_kafka
from srp4ctr.streams.broker.clients import connected
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    LABELS_TOPIC,
    REJECTED_TOPIC,
    now_ms,
)
from srp4ctr.streams.raw_log.delta_tables import dataset
from srp4ctr.testing.fault_injection.cluster import Cluster, cluster
from srp4ctr.testing.fault_injection.progress import behind
from srp4ctr.testing.fault_injection.topic_reading import read_topic
from tests.streams.workers import a_visit, publish

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(900)]
STREAMS = StreamConfig(label_window_s=2.0, correction_window_s=60.0, sequence_length=10)
TOPICS = (BEHAVIOR_EVENTS_TOPIC, REJECTED_TOPIC, ITEMS_TOPIC, LABELS_TOPIC)
USERS = [f"u{number}" for number in range(12)]
IMPRESSIONS = 4  # of each user: two visits, two items each


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    if missing := apache_kafka.missing_tools():
        pytest.skip(f"Apache Kafka needs {', '.join(missing)}")
    monkeypatch.setenv("SRP4CTR_SETTINGS", str(tmp_path / "settings.toml"))
    with cluster(tmp_path, STREAMS, 2) as whole:
        yield whole


def wait_for(whole: Cluster, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180.0
    while not condition():
        whole.check_alive()
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)


def visit_all(kafka: KafkaConfig, at_ms: int) -> None:
    for user in USERS:
        publish(kafka, a_visit(user, at_ms), backfill=True)


def run_worker(whole: Cluster, kafka: KafkaConfig, logged: int) -> None:
    """Run a worker until all is committed, and the raw log has ``logged`` events."""
    settings = whole.folder / "settings.toml"
    lines = settings.read_text().splitlines()
    lines = [line for line in lines if not line.startswith("partitions")]
    lines.insert(lines.index("[kafka]") + 1, f"partitions = {kafka.partitions}")
    settings.write_text("\n".join(lines) + "\n")
    whole.start_worker(0)
    whole.wait_ready(0)
    log = whole.features.raw_log
    wait_for(whole, lambda: dataset(log, BEHAVIOR_EVENTS_TOPIC).count_rows() == logged)
    group = {whole.streams.group_id: [BEHAVIOR_EVENTS_TOPIC]}
    wait_for(whole, lambda: behind(kafka, group) == 0)
    whole.stop("worker0")


def impressions(whole: Cluster, kafka: KafkaConfig) -> list[int]:
    """Return how many impressions each of ``USERS`` was shown."""
    from srp4ctr.features.online.store import OnlineViews

    views = OnlineViews(replace(whole.features, partitions=kafka.partitions))
    rows = views.read_users(USERS)
    return [len(rows[user].exposures) for user in USERS]


def test_new_topics_filled_from_the_raw_log_have_every_event(stack: Cluster) -> None:
    start_ms, two = now_ms() - 3_600_000, stack.kafka
    visit_all(two, start_ms)
    run_worker(stack, two, 4 * len(USERS))
    # The mistake: partitions are added, and users move.
    three, four = replace(two, partitions=3), replace(two, partitions=4)
    with connected(KafkaAdminClient, two) as admin:
        admin.create_partitions({BEHAVIOR_EVENTS_TOPIC: NewPartitions(3)})
    visit_all(three, start_ms + 60_000)
    run_worker(stack, three, 8 * len(USERS))
    reasons = {dict(each.headers)["reason"] for each in read_topic(two, REJECTED_TOPIC)}
    assert reasons == {b"wrong_partition"}
    assert min(impressions(stack, three)) < IMPRESSIONS
    # The documented way, to a third number.
    before = stack.folder / "events.before"
    shutil.move(stack.features.log_dir, before)
    host, _, port = stack.features.redis.rpartition(":")
    with redis.Redis(host, int(port)) as client:
        client.flushdb()
    with connected(KafkaAdminClient, two) as admin:
        admin.delete_topics(list(TOPICS))
        wait_for(stack, lambda: not set(TOPICS) & set(admin.list_topics()))
    settings = stack.folder / "settings.toml"
    settings.write_text(settings.read_text().replace("partitions = 3", "partitions = 4"))
    done = CliRunner().invoke(app, ["events", "restore", str(before)])
    assert f"{8 * len(USERS)} behavior-events" in done.output, done.exception
    run_worker(stack, four, 8 * len(USERS))
    assert impressions(stack, four) == [IMPRESSIONS] * len(USERS)
    assert read_topic(four, REJECTED_TOPIC) == []
    done = CliRunner().invoke(app, ["features", "check", "--sample", "1000"])
    assert done.exit_code == 0, done.output
