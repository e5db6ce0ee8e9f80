import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest
from kafka import KafkaConsumer, KafkaProducer

from features import bundle
from features.check_report import REPORT_FILE, FeatureCheck, write_report
from local import broker, ports, processes
from monitoring.config import MonitorConfig
from monitoring.exporter import Monitor, MonitorSources, serving_version
from monitoring.impression_reader import ImpressionReader, ShownImpression
from monitoring.label_reader import LabelBatch, LabelReader, ReceivedLabel
from monitoring.service import run_monitor
from monitoring.worker_watch import WorkerProgress, WorkerWatch
from streams.config import KafkaConfig
from streams.events import BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC, Behavior
from streams.labels import ImpressionLabel, encode_label
from streams.topics import ensure_topics
from streams.wire import encode
from tests.monitoring.conftest import START_MS, a_label, an_impression
from tests.monitoring.test_triton_metrics import PAGE


@pytest.fixture
def triton_url() -> Iterator[str]:
    """A server whose every page is Triton's metrics page."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PAGE.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def sources(tmp_path: Path, triton_url: str) -> MonitorSources:
    folder = tmp_path / "bundles" / "v7"
    folder.mkdir(parents=True)
    card = bundle.BundleManifest(
        version="v7",
        created_at_ms=1,
        window_end_ms=1_750_000_000_000,
        sizes={},
        cost={"encoder_flops": 10.0},
        metrics={"auc": 0.75},
    )
    bundle.write_card(folder, card)
    (tmp_path / "serving.json").write_text(json.dumps({"serving": "v7", "previous": None}))
    return MonitorSources(
        kafka=KafkaConfig(bootstrap="127.0.0.1:9"),
        triton_metrics_url=triton_url,
        repository=tmp_path,
        bundles_dir=tmp_path / "bundles",
        label_window_s=1800.0,
        feature_check=tmp_path / REPORT_FILE,
    )


def value_of(monitor: Monitor, name: str, /, **labels: str) -> float | None:
    return monitor.registry.get_sample_value(name, labels)


def received(label: ImpressionLabel, after_due_ms: int) -> ReceivedLabel:
    published_ms = label.matured_at + after_due_ms
    return ReceivedLabel(label=label, partition=0, published_ms=published_ms)


def test_labels_become_figures_at_the_next_show(sources: MonitorSources) -> None:
    monitor = Monitor(sources, MonitorConfig())
    labels = (received(a_label("i1", clicked=True), 0), received(a_label("i2"), 0))
    monitor.fold_labels(LabelBatch(labels=labels, undecodable=3))
    assert value_of(monitor, "srp4ctr_online_click_rate", model_version="v7") is None
    monitor.show()
    assert value_of(monitor, "srp4ctr_online_click_rate", model_version="v7") == 0.5
    assert value_of(monitor, "srp4ctr_undecodable_labels_total") == 3.0
    assert value_of(monitor, "srp4ctr_serving_model", model_version="v7") == 1.0
    shown = value_of(monitor, "srp4ctr_bundle_metric", model_version="v7", metric="auc")
    assert shown == 0.75


def test_an_impression_is_provisional_until_its_label_comes(
    sources: MonitorSources,
) -> None:
    monitor = Monitor(sources, MonitorConfig())
    monitor.fold_labels(LabelBatch(labels=(received(a_label("i1"), 0),), undecodable=0))
    shown = [
        ShownImpression(impression=an_impression(item), known_ms=START_MS)
        for item in ("i1", "i2", "i3")
    ]
    monitor.fold_impressions(shown)
    clicked = received(a_label("i2", clicked=True), 0)
    monitor.fold_labels(LabelBatch(labels=(clicked,), undecodable=0))
    monitor.show()
    version = {"model_version": "v7"}
    assert value_of(monitor, "srp4ctr_provisional_impressions", **version) == 2.0
    assert value_of(monitor, "srp4ctr_provisional_click_rate", **version) == 0.5
    assert value_of(monitor, "srp4ctr_matured_impressions", **version) == 2.0
    assert value_of(monitor, "srp4ctr_label_coverage", **version) == 1.0


def test_two_versions_that_serve_are_compared_with_the_serving_one(
    sources: MonitorSources,
) -> None:
    monitor = Monitor(sources, MonitorConfig())
    labels = tuple(
        received(
            a_label(f"{version}-{number}", position=0, model_version=version, clicked=c), 0
        )
        for version, clicks in (("v7", 10), ("v8", 90))
        for number in range(300)
        for c in [number < clicks]
    )
    monitor.fold_labels(LabelBatch(labels=labels, undecodable=0))
    monitor.show()
    pair = {"model_version": "v8", "baseline": "v7"}
    difference = value_of(monitor, "srp4ctr_click_rate_difference", **pair)
    assert difference == pytest.approx(80 / 300)
    assert value_of(monitor, "srp4ctr_verdict", **pair) == 1.0
    assert value_of(monitor, "srp4ctr_compared_impressions", **pair) == 300.0


def test_the_workers_lag_is_known_although_no_worker_runs(sources: MonitorSources) -> None:
    monitor = Monitor(sources, MonitorConfig())
    progress = WorkerProgress(is_running=False, committed={0: 3}, ends={0: 10, 1: 5})
    monitor.hear_worker(progress)
    monitor.show()
    lag = value_of(monitor, "srp4ctr_consumer_lag_records", group=sources.worker_group)
    assert lag == 12.0


def test_a_backfilled_labels_lag_says_nothing(sources: MonitorSources) -> None:
    monitor = Monitor(sources, MonitorConfig())
    labels = (received(a_label("i1"), 400), received(a_label("i2"), 10_000_000_000))
    monitor.fold_labels(LabelBatch(labels=labels, undecodable=0))
    assert value_of(monitor, "srp4ctr_label_maturity_lag_seconds_count") == 1.0
    assert value_of(monitor, "srp4ctr_label_maturity_lag_seconds_sum") == 0.4


def test_the_cost_comes_from_the_card_of_the_version_that_ran(
    sources: MonitorSources,
) -> None:
    monitor = Monitor(sources, MonitorConfig())
    monitor.poll_triton()
    monitor.show()
    for metric, value in (("encoder_runs", 42.0), ("inference_flops", 420.0)):
        name = f"srp4ctr_{metric}_total"
        assert value_of(monitor, name, model_version="v7") == value
    assert value_of(monitor, "srp4ctr_source_up", source="triton") == 1.0


def test_a_triton_that_is_away_shows_and_nothing_else_breaks(
    sources: MonitorSources,
) -> None:
    away = replace(sources, triton_metrics_url="http://127.0.0.1:9/metrics")
    monitor = Monitor(away, MonitorConfig())
    monitor.poll_triton()
    monitor.show()
    assert value_of(monitor, "srp4ctr_source_up", source="triton") == 0.0


def test_a_bundle_that_is_gone_costs_nothing_we_know_of(sources: MonitorSources) -> None:
    monitor = Monitor(replace(sources, bundles_dir=Path("/nowhere")), MonitorConfig())
    monitor.poll_triton()
    monitor.show()
    assert value_of(monitor, "srp4ctr_inference_flops_total", model_version="v7") == 0.0


def test_the_newest_check_of_the_store_is_shown_once_there_is_one(
    sources: MonitorSources, tmp_path: Path
) -> None:
    monitor = Monitor(sources, MonitorConfig())
    assert value_of(monitor, "srp4ctr_feature_check_rows") is None
    write_report(tmp_path, FeatureCheck(checked_at_ms=1, rows=9, wrong_counters=2))
    monitor.show()
    assert value_of(monitor, "srp4ctr_feature_check_rows") == 9.0
    assert value_of(monitor, "srp4ctr_feature_check_wrong_rows") == 2.0
    (tmp_path / REPORT_FILE).write_text('{"rows": "another release\'s"}')
    monitor.show()
    assert value_of(monitor, "srp4ctr_feature_check_rows") is None


def test_before_the_first_promotion_nothing_serves(tmp_path: Path) -> None:
    assert serving_version(tmp_path) is None
    (tmp_path / "serving.json").write_text("half a fi")
    assert serving_version(tmp_path) is None


def test_a_port_that_is_taken_is_an_error_that_names_the_setting(
    sources: MonitorSources, triton_url: str
) -> None:
    taken = int(triton_url.rpartition(":")[2].removesuffix("/metrics"))
    with pytest.raises(ValueError, match=r"monitoring\.port"):
        run_monitor(sources, MonitorConfig(port=taken), threading.Event())


def test_without_a_broker_the_monitor_still_serves_and_stops(
    sources: MonitorSources,
) -> None:
    with ports.reserved_ports(1) as (port,):
        pass
    wanted = 'srp4ctr_source_up{source="labels"} 0.0'
    with running(sources, port):
        assert wait_for(f"http://127.0.0.1:{port}/metrics", wanted)


@contextmanager
def running(sources: MonitorSources, port: int) -> Iterator[None]:
    """Run the monitor in a thread, and prove that it stops when it is told to."""
    stop = threading.Event()
    config = MonitorConfig(port=port, poll_interval_s=0.1)
    thread = threading.Thread(target=run_monitor, args=(sources, config, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def bootstrap(tmp_path: Path) -> Iterator[str]:
    """An embedded broker with the project's topics."""
    with ports.reserved_ports(1) as (port,):
        running = broker.start_broker(tmp_path, port, tied=True)
    address = f"127.0.0.1:{port}"
    ensure_topics(KafkaConfig(bootstrap=address))
    yield address
    processes.stop(running, tmp_path)


def publish(bootstrap: str, *payloads: bytes, topic: str = LABELS_TOPIC) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for payload in payloads:
        producer.send(topic, key=b"u1", value=payload)
    producer.flush()
    producer.close()


@pytest.mark.stack
def test_every_label_of_the_topic_is_read_from_its_start(bootstrap: str) -> None:
    labels = [a_label(f"i{number}") for number in range(2000)]
    publish(bootstrap, *map(encode_label, labels), b"not a label", b"\xff")
    reader = LabelReader(KafkaConfig(bootstrap=bootstrap))
    found: list[ImpressionLabel] = []
    undecodable = 0
    deadline = time.monotonic() + 30
    while len(found) + undecodable < 2002 and time.monotonic() < deadline:
        batch = reader.read()
        found += [each.label for each in batch.labels]
        undecodable += batch.undecodable
    reader.close()
    assert found == labels
    assert undecodable == 2


@pytest.mark.stack
def test_impressions_are_read_from_when_the_newest_windows_began(bootstrap: str) -> None:
    began_ms = round(time.time() * 1000)
    publish(
        bootstrap,
        encode(an_impression("i1", occurred_at=began_ms)),
        encode(
            Behavior(
                event_id="b",
                user_id="u1",
                item_id="i1",
                occurred_at=began_ms,
                action="view",
            )
        ),
        b'{"type":"impression"',
        encode(an_impression("i2", occurred_at=began_ms)),
        topic=BEHAVIOR_EVENTS_TOPIC,
    )
    kafka = KafkaConfig(bootstrap=bootstrap)
    found: dict[int, set[str]] = {}
    for since_ms in (0, began_ms - 1000, began_ms + 600_000):
        reader = ImpressionReader(kafka, since_ms)
        deadline, items = time.monotonic() + 5, set[str]()
        while len(items) < 2 and time.monotonic() < deadline:
            items |= {each.impression.item_id for each in reader.read()}
        reader.close()
        found[since_ms] = items
    assert [*found.values()] == [{"i1", "i2"}, {"i1", "i2"}, set()]


@pytest.mark.stack
def test_the_running_monitor_serves_what_is_published(
    sources: MonitorSources, bootstrap: str
) -> None:
    publish(bootstrap, encode_label(a_label("i1")))
    with ports.reserved_ports(1) as (port,):
        pass
    where = replace(sources, kafka=KafkaConfig(bootstrap=bootstrap))
    wanted = 'srp4ctr_matured_impressions{model_version="v7"} 1.0'
    with running(where, port):
        assert wait_for(f"http://127.0.0.1:{port}/metrics", wanted)


@contextmanager
def a_worker(bootstrap: str, group: str) -> Iterator[None]:
    """A member of the worker's group that commits all events at once."""
    consumer = KafkaConsumer(
        BEHAVIOR_EVENTS_TOPIC,
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    deadline = time.monotonic() + 20
    while not consumer.poll(timeout_ms=100) and time.monotonic() < deadline:
        pass
    consumer.commit()
    yield
    consumer.close(autocommit=False)


@pytest.mark.stack
def test_only_a_living_worker_that_has_read_all_is_caught_up(bootstrap: str) -> None:
    publish(bootstrap, b"{}", topic=BEHAVIOR_EVENTS_TOPIC)
    watch = WorkerWatch(KafkaConfig(bootstrap=bootstrap), "workers")
    assert not watch.progress().is_caught_up
    with a_worker(bootstrap, "workers"):
        assert watch.progress().is_caught_up
        publish(bootstrap, b"{}", topic=BEHAVIOR_EVENTS_TOPIC)
        assert not watch.progress().is_caught_up
    assert not watch.progress().is_running
    watch.close()


@pytest.mark.stack
def test_the_clock_settles_a_click_only_while_a_worker_is_caught_up(
    sources: MonitorSources, bootstrap: str
) -> None:
    publish(bootstrap, b"{}", topic=BEHAVIOR_EVENTS_TOPIC)
    publish(bootstrap, encode_label(a_label("i1", clicked=True)))
    with ports.reserved_ports(1) as (port,):
        pass
    where = replace(sources, kafka=KafkaConfig(bootstrap=bootstrap))
    url = f"http://127.0.0.1:{port}/metrics"
    wanted = 'srp4ctr_matured_impressions{model_version="v7"} 1.0'
    with running(where, port):
        assert not wait_for(url, wanted, timeout_s=7)
        with a_worker(bootstrap, where.worker_group):
            assert wait_for(url, wanted)


def wait_for(url: str, wanted: str, timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            with urlopen(url, timeout=1) as answer:
                if wanted in answer.read().decode().splitlines():
                    return True
        except OSError:
            pass
        time.sleep(0.1)
    return False
