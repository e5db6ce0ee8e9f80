"""A restarted monitor has the figures of one that was never stopped."""

import logging
import multiprocessing
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import msgspec
import pytest

from srp4ctr.embedded import ports
from srp4ctr.monitoring.collector import snapshot as snapshots_module
from srp4ctr.monitoring.collector.exporter import Monitor, MonitorSources
from srp4ctr.monitoring.collector.service import Snapshots, run_monitor
from srp4ctr.monitoring.collector.snapshot import (
    FORMAT,
    NOTHING_READ,
    LabelPosition,
    MonitorState,
    Snapshot,
    SnapshotFile,
)
from srp4ctr.monitoring.collector.topic_readers import (
    LabelReader,
)
from srp4ctr.monitoring.config import MonitorConfig
from srp4ctr.monitoring.quality.ab_test import AbTestState
from srp4ctr.monitoring.quality.live_quality import Entry, LiveQualityState
from srp4ctr.monitoring.quality.position_auc import PositionScores
from srp4ctr.monitoring.quality.quality_sums import QualitySums, SettledImpression
from srp4ctr.monitoring.quality.request_auc import RequestPairs, TopItem
from srp4ctr.monitoring.quality.sample_ratio import SampleRatioState
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.state.label_join import ImpressionLabel
from tests.monitoring.collector.label_topics import (
    a_broker,
    batches,
    figures,
    publish,
    same,
    some_labels,
    wait_until_current,
)
from tests.monitoring.conftest import MINUTE_MS, START_MS, a_label

DAY_MS = 24 * 60 * MINUTE_MS
# Of the classes in the file: with other fields the file has another format.
LAYOUT = {
    2: {
        LabelPosition: "topic_id offsets complete_until_ms",
        MonitorState: "position undecodable quality ab_test",
        LiveQualityState: "sums settled_ms newest_ms unsettled",
        AbTestState: "newest counts users",
        SampleRatioState: "counts newest_ms users",
        Entry: "impression revision is_counted",
        SettledImpression: "model_version experiment arm request user_group position "
        "shown_at score propensity is_click is_late_click",
        QualitySums: "impressions late_clicks variance loss_nats reciprocal_ranks shown "
        "clicks top_shown top_clicks predicted scored_clicks bin_shown bin_clicks "
        "bin_scores by_position by_request",
        PositionScores: "counts",
        RequestPairs: "num_pairs won weights _tops",
        TopItem: "score propensity is_click",
    }
}


def a_file(path: Path, **settings: float) -> SnapshotFile:
    return SnapshotFile(path / "monitor.snapshot", settings)


def packed(snapshot: Snapshot) -> bytes:
    """Return all of the snapshot as bytes: equal only if every sum is."""
    value = (snapshot.state, list(snapshot.entries))
    return msgspec.msgpack.encode(value, enc_hook=bytes)


@pytest.mark.parametrize("stops", [(1,), (33,), (5, 40, 60)])
def test_a_restored_monitor_has_exactly_the_sums_of_one_that_ran_on(
    sources: MonitorSources, tmp_path: Path, stops: Sequence[int]
) -> None:
    config = MonitorConfig()
    one, other = Monitor(sources, config), Monitor(sources, config)
    file = a_file(tmp_path)
    for number, batch in enumerate(batches(some_labels(1500))):
        if number in stops:
            file.write(other.snapshot())
            restored = file.read()
            assert restored is not None
            other = Monitor(sources, config)
            other.restore(restored)
            assert other.label_position == one.label_position
        one.add_labels(batch)
        other.add_labels(batch)
    assert min(quality.impressions for quality in one.qualities()) > 200
    assert packed(other.snapshot()) == packed(one.snapshot())
    assert repr(other.qualities()) == repr(one.qualities())
    for monitor in (one, other):
        monitor.settle(START_MS + DAY_MS)
    assert packed(other.snapshot()) == packed(one.snapshot())


def test_a_change_of_what_is_stored_is_another_format() -> None:
    for kind, names in LAYOUT[FORMAT].items():
        found = (
            kind.__struct_fields__
            if issubclass(kind, msgspec.Struct)
            else [field.name for field in fields(kind)]  # type: ignore[arg-type]
        )
        assert " ".join(found) == names, kind


@pytest.fixture
def written(sources: MonitorSources, tmp_path: Path) -> SnapshotFile:
    monitor = Monitor(sources, MonitorConfig())
    for batch in batches(some_labels(200)):
        monitor.add_labels(batch)
    file = a_file(tmp_path, window_ms=1)
    file.write(monitor.snapshot())
    return file


def test_a_file_of_other_settings_is_ignored_with_one_line(
    written: SnapshotFile, caplog: pytest.LogCaptureFixture
) -> None:
    assert a_file(written.path.parent, window_ms=2).read() is None
    (record,) = caplog.records
    assert "window_ms 1.0 instead of 2" in record.message
    assert str(written.path) in record.message


def test_a_file_of_another_format_is_ignored_with_one_line(
    written: SnapshotFile,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(snapshots_module, "FORMAT", FORMAT + 1)
    assert a_file(written.path.parent, window_ms=1).read() is None
    (record,) = caplog.records
    assert f"format {FORMAT} instead of {FORMAT + 1}" in record.message


def test_a_damaged_file_is_ignored_with_one_line(
    written: SnapshotFile, caplog: pytest.LogCaptureFixture
) -> None:
    whole, expected = written.path.read_bytes(), written.read()
    assert expected is not None
    draw = random.Random(1)
    damaged = [b"", b"{}", whole[: len(whole) // 2], whole[:-8], whole[:-1]]
    for _ in range(60):
        place = draw.randrange(10, len(whole))  # before it are the time and flags
        flipped = bytes([whole[place] ^ (1 << draw.randrange(8))])
        damaged.append(whole[:place] + flipped + whole[place + 1 :])
    refused = 0
    for content in damaged:
        written.path.write_bytes(content)
        caplog.clear()
        found = written.read()
        # Some bits mean nothing: a copy of zeros may begin anywhere among zeros.
        assert found is None or packed(found) == packed(expected)
        assert len(caplog.records) == (found is None)
        refused += found is None
    assert refused > 15


def test_without_a_file_nothing_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert a_file(tmp_path).read() is None
    assert not caplog.records


def test_a_disk_that_takes_no_snapshot_does_not_end_the_monitor(
    sources: MonitorSources, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a-file").touch()
    monitor = Monitor(sources, MonitorConfig())
    for batch in batches(some_labels(100)):
        monitor.add_labels(batch)
    Snapshots(monitor, tmp_path / "a-file" / "snapshot", 60.0).write()
    (record,) = caplog.records
    assert "no snapshot" in record.message


# With a broker.


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[KafkaConfig]:
    """An embedded broker with the project's topics."""
    with a_broker(tmp_path / "broker-1") as config:
        yield config


def run(sources: MonitorSources, config: MonitorConfig) -> None:
    run_monitor(sources, config, threading.Event())


def read_file(path: Path) -> Snapshot:
    windows = {"window_ms": 3_600_000, "label_window_ms": 1_800_000}
    found = SnapshotFile(path, windows).read()
    assert found is not None
    return found


class ARun:
    """A monitor with a snapshot file of its own, which may be started again."""

    def __init__(self, sources: MonitorSources, name: str) -> None:
        self._sources = replace(sources, snapshot=sources.repository / name)

    @contextmanager
    def in_thread(self) -> Iterator[str]:
        """Run the monitor until the end, which is clean."""
        stop, config = threading.Event(), self._config()
        arguments = (self._sources, config, stop)
        thread = threading.Thread(target=run_monitor, args=arguments)
        thread.start()
        try:
            yield f"http://127.0.0.1:{config.port}/metrics"
        finally:
            stop.set()
            thread.join(20)
        assert not thread.is_alive()

    @contextmanager
    def killed(self) -> Iterator[str]:
        """Run the monitor as a process until the end, at which it is killed."""
        config = self._config()
        process = multiprocessing.get_context("spawn").Process(
            target=run, args=(self._sources, config), daemon=True
        )
        process.start()
        try:
            yield f"http://127.0.0.1:{config.port}/metrics"
        finally:
            process.kill()
            process.join(20)

    def counts(self) -> tuple[object, ...]:
        """Return what the file has, but for sums that depend on the order of additions."""
        assert self._sources.snapshot is not None
        file = read_file(self._sources.snapshot)
        state, entries = file.state, sorted(file.entries, key=lambda each: each[0])
        of_versions = {
            version: (each.shown, each.clicks, each.late_clicks, each.by_position.counts)
            for version, each in state.quality.sums.items()
        }
        settled = state.quality.settled_ms, state.quality.newest_ms
        offsets, undecodable = state.position.offsets, state.undecodable
        return state.ab_test, of_versions, entries, settled, offsets, undecodable

    @staticmethod
    def _config() -> MonitorConfig:
        with ports.reserved_ports(1) as (port,):
            return MonitorConfig(port=port, poll_interval_s=0.1, snapshot_interval_s=3600.0)


@pytest.mark.stack
def test_a_killed_monitor_has_the_figures_of_one_that_ran_on(
    sources: MonitorSources, kafka: KafkaConfig
) -> None:
    now_ms = round(time.time() * 1000)
    labels = some_labels(1800, since_ms=now_ms - 150 * MINUTE_MS)
    parts = labels[:700], labels[700:1500], labels[1500:]
    where = replace(sources, kafka=kafka)
    one, other = ARun(where, "one"), ARun(where, "other")
    with one.in_thread() as url:
        publish(kafka, parts[0])
        with other.in_thread() as other_url:
            wait_until_current(other_url, time.time())
        # This one is killed with labels in its figures that its file does not have.
        with other.killed() as other_url:
            publish(kafka, parts[1])
            wait_until_current(other_url, time.time())
            wait_until_current(url, time.time())
            assert figures(other_url) == same(figures(url))
        publish(kafka, parts[2])
        with other.in_thread() as other_url:
            wait_until_current(other_url, time.time())
            wait_until_current(url, time.time())
            found = figures(other_url)
            assert found == same(figures(url))
    assert any(name.startswith("srp4ctr_verdict") for name in found)
    assert other.counts() == one.counts()


@pytest.mark.stack
def test_a_file_of_another_topic_is_ignored_and_labels_are_read_again(
    sources: MonitorSources,
    kafka: KafkaConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_ms = round(time.time() * 1000)
    labels = some_labels(600, since_ms=now_ms - 150 * MINUTE_MS)
    publish(kafka, labels)
    one = ARun(replace(sources, kafka=kafka), "one")
    with one.in_thread() as url:
        wait_until_current(url, time.time())
    with a_broker(tmp_path / "broker-2") as fewer:
        publish(fewer, labels[:300])
        again = ARun(replace(sources, kafka=fewer), "one")
        fresh = ARun(replace(sources, kafka=fewer), "fresh")
        caplog.clear()
        with again.in_thread() as url:
            wait_until_current(url, time.time())
            found = figures(url)
        with fresh.in_thread() as url:
            wait_until_current(url, time.time())
            assert found == same(figures(url))
    (line,) = [
        record.message for record in caplog.records if "is not used" in record.message
    ]
    assert "has the offsets 0 to" in line
    assert again.counts() == fresh.counts()


@pytest.mark.stack
def test_without_a_file_labels_that_cannot_matter_are_not_read(
    sources: MonitorSources, kafka: KafkaConfig
) -> None:
    now_ms = round(time.time() * 1000)
    old, new = (
        [a_label(f"{ms}-{n}", user_id=f"u{n}", after_ms=ms - START_MS) for n in range(9)]
        for ms in (now_ms - 40 * DAY_MS, now_ms - DAY_MS)
    )
    publish(kafka, old, published_ms=now_ms - 40 * DAY_MS)
    reader = LabelReader(kafka)
    reader.start(NOTHING_READ, now_ms - 20 * DAY_MS)
    assert read_all(reader) == []  # and none that comes meanwhile is lost
    publish(kafka, new)
    found = read_all(reader)
    reader.close()
    assert {each.item_id for each in found} == {each.item_id for each in new}
    again = LabelReader(kafka)
    again.start(NOTHING_READ, now_ms - 20 * DAY_MS)
    assert {each.item_id for each in read_all(again)} == {each.item_id for each in new}
    again.close()
    one = ARun(replace(sources, kafka=kafka), "one")
    with one.in_thread() as url:
        wait_until_current(url, time.time())
        assert figures(url)["srp4ctr_matured_impressions[('model_version', 'v7')]"] == 9
    assert len(list(read_file(sources.repository / "one").entries)) == 9


def read_all(reader: LabelReader) -> list[ImpressionLabel]:
    """Return what the topic has; ``complete_until_ms`` says when that is all."""
    began_ms, labels = round(time.time() * 1000), list[ImpressionLabel]()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        batch = reader.read()
        labels += [label.label for label in batch.labels]
        if batch.position.complete_until_ms > began_ms + 1000:
            return labels
        time.sleep(0.02)
    raise AssertionError("the reader did not reach the end")


@pytest.mark.stack
def test_figures_are_behind_until_every_label_is_read(
    kafka: KafkaConfig, sources: MonitorSources
) -> None:
    now_ms = round(time.time() * 1000)
    old_ms = now_ms - 3 * DAY_MS
    publish(kafka, some_labels(9000, since_ms=old_ms), published_ms=old_ms)
    reader = LabelReader(kafka)
    reader.start(NOTHING_READ, old_ms - DAY_MS)
    monitor = Monitor(sources, MonitorConfig())
    ages, untils = list[float](), list[int]()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (ages and ages[-1] < 10):
        monitor.add_labels(reader.read())
        untils.append(monitor.label_position.complete_until_ms)
        monitor.update()
        (family,) = [
            each
            for each in monitor.collect()
            if each.name == "srp4ctr_figures_behind_seconds"
        ]
        ages.append(family.samples[0].value)
    reader.close()
    assert ages[0] >= 3 * DAY_MS / 1000 - 1
    assert untils == sorted(untils)
    assert old_ms in untils  # while some are read
    assert ages[-1] < 10


def test_the_file_is_not_written_before_a_label_was_read(
    sources: MonitorSources, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        Snapshots(Monitor(sources, MonitorConfig()), tmp_path / "none", 60.0).write()
    assert not (tmp_path / "none").exists()
    assert not caplog.records
