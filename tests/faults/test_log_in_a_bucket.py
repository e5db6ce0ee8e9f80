"""A stack whose raw log is in a bucket: readers find what a folder would hold."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srp4ctr import processes
from srp4ctr.cli.main import app
from srp4ctr.embedded.broker import pause_after_empty_fetch
from srp4ctr.errors import MistakeError
from srp4ctr.ops import feature_store
from srp4ctr.settings import load
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    FORGOTTEN_USER,
    ITEMS_TOPIC,
    LABELS_TOPIC,
    now_ms,
)
from srp4ctr.streams.raw_log.compaction import compact
from srp4ctr.streams.raw_log.delta_tables import Log, dataset, vacuum
from srp4ctr.testing.fault_injection.cluster import Cluster, cluster
from srp4ctr.testing.object_store import BUCKET, ObjectStore
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.build import write_training_set
from tests.builders import an_item
from tests.streams.logs import log, logged
from tests.streams.workers import a_visit, publish

pytestmark = [pytest.mark.kafka, pytest.mark.redis]
STREAMS = StreamConfig(label_window_s=2.0, correction_window_s=60.0, sequence_length=10)
ADDRESS = f"s3://{BUCKET}/events"
VISITS = 48
EVENTS = 4 * VISITS


@pytest.fixture(scope="module")
def stack(
    object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Yield a broker, a store, and a worker that has written all visits to the bucket."""
    folder, start_ms = tmp_path_factory.mktemp("stack"), now_ms() - 3_600_000
    pause_after_empty_fetch()
    with pytest.MonkeyPatch.context() as patch:
        for name in object_store.environment():  # the stack's own server sets them
            patch.setenv(name, "")
        patch.setenv("SRP4CTR_SETTINGS", str(folder / "settings.toml"))
        with cluster(folder, STREAMS, 2, "noida", in_bucket=True) as whole:
            with EventPublisher(whole.kafka) as publisher:
                for item in ("i1", "i2"):
                    update = an_item(item, at_ms=start_ms, colour="red")
                    publisher.publish(update, backfill=True)
            for visit in range(VISITS):
                at_ms = start_ms + visit * 10_000
                publish(whole.kafka, a_visit(f"u{visit % 8}", at_ms), backfill=True)
            whole.start_worker(0)
            whole.wait_ready(0)
            wait_for(whole, lambda: is_whole(EVENTS))
            yield whole


def wait_for(whole: Cluster, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120.0
    while not condition():
        whole.check_alive()
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)


def rows_of(address: Log) -> list[int]:
    """Return how many events, labels and item updates the log has."""
    topics = (BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC, ITEMS_TOPIC)
    return [dataset(address, topic).count_rows() for topic in topics]


def is_whole(events: int) -> bool:
    """Return whether the bucket has all; labels come again after a restart."""
    [found, labels, items] = rows_of(ADDRESS)
    return found == events and labels >= events // 2 and items == 2


def srp4ctr(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_training_examples_are_those_of_a_folder(stack: Cluster, tmp_path: Path) -> None:
    config = replace(STREAMS, log_group_id="in-a-folder", log_flush_interval_s=0.2)
    folder = tmp_path / "events"
    log(stack.kafka, config, folder, EVENTS, lambda: rows_of(folder) == rows_of(ADDRESS))
    assert logged(folder) == logged(ADDRESS)
    found = {}
    for name, uri in (("bucket", ADDRESS), ("folder", str(folder))):
        features = replace(stack.features, log_uri=uri)
        (made := tmp_path / name).mkdir()
        numbers = write_training_set(RefreshConfig(), features, STREAMS, made)
        files = {path.name: path.read_bytes() for path in made.iterdir()}
        found[name] = (numbers, files)
    assert found["bucket"] == found["folder"]
    numbers, files = found["bucket"]
    assert numbers["counts"]["requests"] == VISITS
    assert len(files) > 10


def test_the_store_is_what_the_bucket_says_also_after_a_rebuild(stack: Cluster) -> None:
    srp4ctr("features", "check")  # ends with an error where a row is wrong
    assert "2 partitions" in srp4ctr("stream", "rebuild")
    found = feature_store.compare_store(load())
    assert found.rows > 8
    assert (found.wrong_rows, found.waiting) == (0, 0)


def test_after_a_kill_every_event_is_in_the_bucket_once(stack: Cluster) -> None:
    stack.kill("worker0")
    later = [event for n in range(20) for event in a_visit(f"u{n % 8}", now_ms() + n)]
    publish(stack.kafka, later)
    for topic in (BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC):
        compact(ADDRESS, topic, 0)
        vacuum(ADDRESS, topic, at_once=True)
    stack.start_worker(0)
    wait_for(stack, lambda: is_whole(EVENTS + len(later)))
    assert max(Counter(logged(ADDRESS)).values()) == 1


def test_who_is_forgotten_is_erased_from_the_bucket(stack: Cluster) -> None:
    srp4ctr("features", "forget", "u1", "--wait-s", "60")
    wait_for(stack, lambda: "forget" in users_of("u1"))
    srp4ctr("features", "erase-forgotten")
    assert users_of("u1") == ["forget"]
    assert users_of(FORGOTTEN_USER).count("impression") > 0
    assert stack.objects
    paths = [p for p in stack.objects.folder_of(ADDRESS).rglob("*.*") if p.is_file()]
    assert [path for path in paths if b"r-u1-" in path.read_bytes()] == []


def users_of(user_id: str) -> list[str]:
    """Return the types of the user's rows."""
    rows = dataset(ADDRESS, BEHAVIOR_EVENTS_TOPIC).to_table(["type", "user_id"]).to_pylist()
    return [row["type"] for row in rows if row["user_id"] == user_id]


def test_the_bucket_that_workers_write_is_not_restored(stack: Cluster) -> None:
    done = CliRunner().invoke(app, ["events", "restore", f"{ADDRESS}/"])
    assert isinstance(done.exception, MistakeError)
    assert f"{ADDRESS}/ is features.log_uri" in str(done.exception)


def test_a_worker_whose_keys_are_refused_ends_and_says_why(
    stack: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stack.objects
    stack.stop("worker0")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    worker = stack.start_worker(1)
    with pytest.raises(processes.ProcessError, match="has ended"):
        wait_for(stack, lambda: False)
    del stack.running["worker1"]
    status = processes._children[worker.pid].wait(timeout=60)
    assert status == MistakeError.exit_status
    assert "these keys are refused" in Path(worker.log).read_text()
    for path in (stack.folder / "logs").iterdir():
        text = path.read_text(errors="replace")
        assert "not-the-secret" not in text
        assert stack.objects.secret_key not in text
