"""A correct store passes the check; each kind of error, or lag, is reported."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import redis
from typer.testing import CliRunner, Result

from srp4ctr.atomic_files import read_json
from srp4ctr.cli import main as cli
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.consistency import check
from srp4ctr.features.consistency.check import check_features
from srp4ctr.features.consistency.replay import places
from srp4ctr.features.consistency.report import REPORT_FILE, FeatureCheck
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import TOTAL_KEY, UserEvent, item_key
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.sequences import sequence_of
from srp4ctr.streams.state.state_store import FeatureSink
from srp4ctr.testing.raw_logs import write_log
from tests.builders import NOON_MS, a_behavior, a_click, a_forget, an_impression
from tests.features.stored import store_events
from tests.live_stream import LiveStream, live_stream

pytestmark = pytest.mark.redis
LENGTH = 3
STREAMS = StreamConfig(sequence_length=LENGTH)


@pytest.fixture
def config(store_config: FeatureConfig, tmp_path: Path) -> FeatureConfig:
    """A database of its own, which nothing is in."""
    log_dir = str(tmp_path / "events")
    own = replace(store_config, redis=f"{store_config.redis},db=3", log_dir=log_dir)
    flush(own)
    return own


@pytest.fixture
def sink(config: FeatureConfig) -> FeatureSink:
    from srp4ctr.features.online.store import FeatureStoreSink

    return FeatureStoreSink(config)


def flush(config: FeatureConfig) -> None:
    address, _, number = config.redis.partition(",db=")
    with redis.Redis.from_url(f"redis://{address}/{number}") as client:
        client.flushdb()


def a_morning() -> list[UserEvent]:
    """Return what three users do: 3 items shown to each, one clicked, then four views."""
    events: list[UserEvent] = []
    for user in ("ann", "bob", "eve"):
        at_ms, names = NOON_MS + len(events) * 1000, {"user_id": user}
        events += [an_impression(f"i{n}", at_ms=at_ms, **names) for n in range(3)]
        events.append(a_click("i1", at_ms=at_ms + 500, **names))
        events += [a_behavior(f"i{n}", at_ms=at_ms + n, **names) for n in range(4)]
    return events


def log_and_store(
    config: FeatureConfig, sink: FeatureSink, events: list[UserEvent], stored: int = 99
) -> None:
    """Log all of ``events`` as partition 1, and store the first ``stored``."""
    known = [(event, event.occurred_at) for event in events]
    write_log(Path(config.log_dir), known, partition=1)
    store_events(sink, events[:stored], length=LENGTH, partition=1)


def checked(config: FeatureConfig, sink: FeatureSink, committed: int) -> FeatureCheck:
    return check_features(config, sink, STREAMS, {1: committed})


def test_a_store_that_the_stream_wrote_is_right(
    config: FeatureConfig, sink: FeatureSink
) -> None:
    log_and_store(config, sink, a_morning())
    found = checked(config, sink, 24)
    # Of each user three rows, of each shown item one, and that of all items.
    assert found.rows == 3 * 3 + 3 + 1
    assert (found.wrong_rows, found.waiting, found.behind_s) == (0, 0, 0.0)
    assert found.details == ()


def test_the_sample_size_limits_the_rows_read(
    config: FeatureConfig, sink: FeatureSink
) -> None:
    log_and_store(config, sink, a_morning())
    assert check_features(config, sink, STREAMS, {1: 24}, sample=1).rows == 5


def test_an_edited_sequence_is_wrong_by_its_edits(
    config: FeatureConfig, sink: FeatureSink
) -> None:
    log_and_store(config, sink, a_morning())
    row = sink.read(["bob"], []).users["bob"]
    first, _, third = row.sequence.elements
    edited = sequence_of((first, third, msgspec.structs.replace(third, action=9)))
    newer = msgspec.structs.replace(row, sequence=edited, version_us=row.version_us + 1)
    sink.write(Rows(users={"bob": newer}))
    found = checked(config, sink, 24)
    assert (found.wrong_sequences, found.edits, found.wrong_counters) == (1, 2, 0)
    assert found.details == ("sequence of user bob (partition 1): 2 edits",)
    assert found.wrong_share == pytest.approx(1 / 13)


def test_a_wrong_counter_is_reported_with_its_difference(
    config: FeatureConfig, sink: FeatureSink
) -> None:
    log_and_store(config, sink, a_morning())
    key = (item_key("i2"), 1)
    row = sink.read([], [key]).shares[key]
    *others, week = row.impressions
    more = msgspec.structs.replace(
        row, impressions=(*others, week + 0.25), version_us=row.version_us + 1
    )
    sink.write(Rows(shares={key: more}))
    found = checked(config, sink, 24)
    assert (found.wrong_sequences, found.wrong_counters) == (0, 1)
    assert found.largest_difference == pytest.approx(0.25)
    assert found.details == ("counters of item i2 (partition 1): off by up to 0.25 events",)


def test_a_wrong_total_is_reported_with_its_difference(
    config: FeatureConfig, sink: FeatureSink
) -> None:
    log_and_store(config, sink, a_morning())
    key = (TOTAL_KEY, 1)
    row = sink.read([], [key]).shares[key]
    *others, week = row.clicks
    more = msgspec.structs.replace(
        row, clicks=(*others, week + 0.5), version_us=row.version_us + 1
    )
    sink.write(Rows(shares={key: more}))
    found = checked(config, sink, 24)
    assert found.wrong_counters == 1
    assert found.details == (
        "counters of all items (partition 1): off by up to 0.5 events",
    )


def test_a_store_that_lost_everything_is_wrong_throughout(
    config: FeatureConfig, sink: FeatureSink
) -> None:
    log_and_store(config, sink, a_morning())
    flush(config)
    found = checked(config, sink, 24)
    assert (found.wrong_sequences, found.edits, found.wrong_counters) == (6, 18, 7)
    assert found.largest_difference == pytest.approx(9, abs=0.05)
    assert (found.wrong_share, found.behind_s) == (1.0, 0.0)


def test_a_store_that_was_folded_again_is_right_again(
    config: FeatureConfig, sink: FeatureSink
) -> None:
    log_and_store(config, sink, a_morning())
    flush(config)
    store_events(sink, a_morning(), length=LENGTH, partition=1)
    assert checked(config, sink, 24).wrong_rows == 0


def test_a_store_that_is_behind_is_late_and_not_wrong(
    config: FeatureConfig, sink: FeatureSink
) -> None:
    log_and_store(config, sink, a_morning(), stored=10)
    found = checked(config, sink, 10)
    assert found.wrong_rows == 0
    oldest_s = (time.time_ns() // 1_000_000 - a_morning()[10].occurred_at) / 1000
    assert found.behind_s == pytest.approx(oldest_s, abs=60)


def test_rows_further_than_what_is_committed_are_compared_where_they_are(
    config: FeatureConfig, sink: FeatureSink
) -> None:
    log_and_store(config, sink, a_morning())
    assert checked(config, sink, committed=0).wrong_rows == 0


@pytest.mark.parametrize("written", [(0.0, 60.0, 3 + 2), (60.0, 0.5, 0)])
def test_rows_further_than_the_log_wait_for_it(
    config: FeatureConfig,
    sink: FeatureSink,
    monkeypatch: pytest.MonkeyPatch,
    written: tuple[float, float, int],
) -> None:
    every_s, after_s, waiting = written  # eve's, the clicked i1's, and the total
    monkeypatch.setattr(check, "_PATIENCE_S", 0.0)
    events, log_dir = a_morning(), Path(config.log_dir)
    known = [(event, event.occurred_at) for event in events]
    write_log(log_dir, known[:19], partition=1)
    store_events(sink, events, length=LENGTH, partition=1)
    rest = threading.Timer(after_s, write_log, (log_dir, known[19:], 1, 19))
    rest.start()
    streams = replace(STREAMS, log_flush_interval_s=every_s)
    features = check_features(config, sink, streams, {1: 24})
    rest.cancel()
    assert (features.wrong_rows, features.waiting) == (0, waiting)
    assert features.rows == 3 * 3 + 4 - waiting


def test_a_user_who_was_forgotten_is_right_without_the_past(
    config: FeatureConfig, sink: FeatureSink
) -> None:
    events = a_morning()
    events += [
        a_forget(at_ms=events[-1].occurred_at + 1, user_id="ann"),
        a_behavior("i9", at_ms=NOON_MS, user_id="ann", event_id="late"),
    ]
    log_and_store(config, sink, events)
    assert sink.read(["ann"], []).users["ann"].sequence.elements == ()
    assert checked(config, sink, len(events)).wrong_rows == 0


def test_a_user_who_came_back_after_being_forgotten_is_wrong(
    config: FeatureConfig, sink: FeatureSink
) -> None:
    events = [*a_morning(), a_forget(at_ms=NOON_MS + 60_000, user_id="ann")]
    log_and_store(config, sink, events)
    flush(config)
    store_events(sink, events[:-1], length=LENGTH, partition=1)  # from an old backup
    found = checked(config, sink, len(events))
    assert (found.wrong_sequences, found.edits, found.wrong_counters) == (2, 6, 1)


def test_a_partition_whose_beginning_is_gone_is_left_out(
    config: FeatureConfig, sink: FeatureSink
) -> None:
    events = a_morning()
    known = [(event, event.occurred_at) for event in events[8:]]
    write_log(Path(config.log_dir), known, partition=1, start=8)
    store_events(sink, events, length=LENGTH, partition=1)
    found = checked(config, sink, 24)
    assert (found.rows, found.partitions_left_out) == (0, 1)


def test_an_empty_log_leaves_nothing_to_compare(
    config: FeatureConfig, sink: FeatureSink
) -> None:
    features = check_features(config, sink, STREAMS, {})
    assert (features.rows, features.wrong_share) == (0, 0.0)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStream]:
    with live_stream(tmp_path_factory.mktemp("live"), LENGTH) as stream:
        yield stream


@pytest.mark.stack
def test_live_traffic_is_consistent_until_the_store_loses_its_rows(
    live: LiveStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in live.env.items():
        monkeypatch.setenv(name, value)
    empty = srp4ctr("features", "check")
    assert (empty.exit_code, "nothing to compare" in empty.output) == (0, True)
    with traffic(live):
        rows = 0
        while rows <= 30:  # as many as the stream has stored so far; a test has its timeout
            assert srp4ctr("features", "check").exit_code == 0
            report = read_json(Path(live.features.log_dir) / REPORT_FILE, FeatureCheck)
            assert report is not None
            assert (report.wrong_rows, report.details) == (0, ())
            rows = report.rows
    live.wait_until_stored()
    flush(replace(live.features, redis=f"{live.features.redis},db=0"))
    lost = srp4ctr("features", "check")
    assert lost.exit_code == 1
    assert "edits" in lost.output
    with traffic(live):
        assert srp4ctr("stream", "rebuild").exit_code == 0
        repaired = srp4ctr("features", "check")
        assert repaired.exit_code == 0, repaired.output


def srp4ctr(*words: str) -> Result:
    return CliRunner().invoke(cli.app, words)


@contextmanager
def traffic(live: LiveStream) -> Iterator[None]:
    """Publish events of users meanwhile."""
    stop = threading.Event()
    thread = threading.Thread(target=publish_until, args=(live, stop))
    thread.start()
    try:
        while not places(Path(live.features.log_dir), "user_id", 1):
            time.sleep(0.2)
        yield
    finally:
        stop.set()
        thread.join()


def publish_until(live: LiveStream, stop: threading.Event) -> None:
    with EventPublisher(live.kafka) as publisher:
        for number in itertools.count():
            now_ms = time.time_ns() // 1_000_000
            names = {"user_id": f"u{number % 20}", "event_id": f"e{now_ms}-{number}"}
            item, slate = f"i{number % 7}", f"r{number // 40}"
            publisher.publish(an_impression(item, at_ms=now_ms, request_id=slate, **names))
            if number % 3 == 0:
                publisher.publish(a_click(item, at_ms=now_ms, request_id=slate, **names))
            publisher.publish(a_behavior(item, at_ms=now_ms, **names))
            if stop.wait(0.005):
                return
