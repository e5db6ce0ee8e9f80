from dataclasses import replace
from pathlib import Path

import pytest

from srp4ctr.atomic_files import write_json
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.crash_counts import count_crashes, read_crashes
from srp4ctr.features.bundles.drift_reference import REFERENCE_FILE, Bins, Reference
from srp4ctr.features.consistency.report import REPORT_FILE, FeatureCheck
from srp4ctr.monitoring.collector.bundle_cache import BundleCache
from srp4ctr.monitoring.collector.consumer_lag import WorkerProgress
from srp4ctr.monitoring.collector.exporter import Monitor, MonitorSources, serving_version
from srp4ctr.monitoring.collector.topic_readers import (
    LabelBatch,
    ReceivedLabel,
    ShownImpression,
)
from srp4ctr.monitoring.config import MonitorConfig
from srp4ctr.monitoring.quality.version_order import MAX_OTHERS, OTHER
from srp4ctr.streams.state.label_join import ImpressionLabel
from tests.monitoring.conftest import PAGE, START_MS, a_label, an_impression


def value_of(monitor: Monitor, name: str, /, **labels: str) -> float | None:
    return monitor.registry.get_sample_value(name, labels)


def received(label: ImpressionLabel, after_due_ms: int) -> ReceivedLabel:
    published_ms = label.matured_at + after_due_ms
    return ReceivedLabel(label=label, partition=0, published_ms=published_ms)


def test_labels_become_figures_at_the_next_update(sources: MonitorSources) -> None:
    monitor = Monitor(sources, MonitorConfig())
    labels = (received(a_label("i1", clicked=True), 0), received(a_label("i2"), 0))
    monitor.add_labels(LabelBatch(labels=labels, undecodable=3))
    assert value_of(monitor, "srp4ctr_online_click_rate", model_version="v7") is None
    monitor.update()
    assert value_of(monitor, "srp4ctr_online_click_rate", model_version="v7") == 0.5
    assert value_of(monitor, "srp4ctr_undecodable_labels_total") == 3.0
    assert value_of(monitor, "srp4ctr_serving_model", model_version="v7") == 1.0
    shown = value_of(monitor, "srp4ctr_bundle_metric", model_version="v7", metric="auc")
    assert shown == 0.75


def test_an_impression_is_provisional_until_its_label_comes(
    sources: MonitorSources,
) -> None:
    monitor = Monitor(sources, MonitorConfig())
    monitor.add_labels(LabelBatch(labels=(received(a_label("i1"), 0),), undecodable=0))
    shown = [
        ShownImpression(impression=an_impression(item), known_ms=START_MS)
        for item in ("i1", "i2", "i3")
    ]
    monitor.add_impressions(shown)
    clicked = received(a_label("i2", clicked=True), 0)
    monitor.add_labels(LabelBatch(labels=(clicked,), undecodable=0))
    monitor.update()
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
            a_label(
                position=0, model_version=version, clicked=c, user_id=f"{version}-{number}"
            ),
            0,
        )
        for version, clicks in (("v7", 10), ("v8", 90))
        for number in range(300)
        for c in [number < clicks]
    )
    monitor.add_labels(LabelBatch(labels=labels, undecodable=0))
    monitor.update()
    pair = {"model_version": "v8", "baseline": "v7"}
    difference = value_of(monitor, "srp4ctr_click_rate_difference", **pair)
    assert difference == pytest.approx(80 / 300)
    assert value_of(monitor, "srp4ctr_verdict", **pair) == 1.0
    assert value_of(monitor, "srp4ctr_compared_impressions", **pair) == 300.0


def test_invented_versions_take_no_bundle_s_place(sources: MonitorSources) -> None:
    monitor = Monitor(replace(sources, repository=Path("/nowhere")), MonitorConfig())
    versions = [*(f"x{number}" for number in range(100)), "v7"]
    labels = [
        received(
            a_label(position=0, model_version=version, user_id=f"{version}-{number}"), 0
        )
        for version in versions
        for number in range(2)
    ]
    monitor.add_labels(LabelBatch(labels=tuple(labels), undecodable=0))
    monitor.add_impressions(
        [
            ShownImpression(
                impression=an_impression(f"i{version}", model_version=version),
                known_ms=START_MS,
            )
            for version in versions
        ]
    )
    monitor.update()
    own = {"model_version": "v7"}
    assert value_of(monitor, "srp4ctr_matured_impressions", **own) == 2.0
    assert value_of(monitor, "srp4ctr_provisional_impressions", **own) == 1.0
    others = {"model_version": OTHER}
    of_others = 2.0 * (100 - MAX_OTHERS)
    assert value_of(monitor, "srp4ctr_matured_impressions", **others) == of_others


def test_the_lag_is_known_without_a_running_worker(sources: MonitorSources) -> None:
    monitor = Monitor(sources, MonitorConfig())
    progress = WorkerProgress(is_running=False, committed={0: 3}, ends={0: 10, 1: 5})
    monitor.observe_worker(progress)
    monitor.update()
    lag = value_of(monitor, "srp4ctr_consumer_lag_records", group=sources.worker_group)
    assert lag == 12.0


def test_a_backfilled_label_has_no_lag(sources: MonitorSources) -> None:
    monitor = Monitor(sources, MonitorConfig())
    labels = (received(a_label("i1"), 400), received(a_label("i2"), 10_000_000_000))
    monitor.add_labels(LabelBatch(labels=labels, undecodable=0))
    assert value_of(monitor, "srp4ctr_label_maturity_lag_seconds_count") == 1.0
    assert value_of(monitor, "srp4ctr_label_maturity_lag_seconds_sum") == 0.4


def test_the_cost_comes_from_the_card_of_the_version_that_ran(
    sources: MonitorSources, triton_pages: list[str]
) -> None:
    triton_pages.insert(0, PAGE.replace(" 42", " 2"))
    monitor = Monitor(sources, MonitorConfig())
    for expected in (0.0, 40.0):  # the first two are from before the monitor's start
        monitor.poll_triton()
        monitor.update()
        for metric, value in (("encoder_runs", 1.0), ("inference_flops", 10.0)):
            name = f"srp4ctr_{metric}_total"
            assert value_of(monitor, name, model_version="v7") == expected * value
    assert value_of(monitor, "srp4ctr_source_up", source="triton") == 1.0


def test_counts_before_the_start_are_left_out_though_the_first_poll_failed(
    sources: MonitorSources, triton_pages: list[str]
) -> None:
    triton_pages[:0] = ["no { page", PAGE.replace(" 42", " 2")]
    monitor = Monitor(sources, MonitorConfig())
    for up, expected in ((0.0, None), (1.0, 0.0), (1.0, 40.0)):
        monitor.poll_triton()
        monitor.update()
        assert value_of(monitor, "srp4ctr_source_up", source="triton") == up
        found = value_of(monitor, "srp4ctr_encoder_runs_total", model_version="v7")
        assert found == expected


def test_a_triton_that_is_down_has_source_up_0(
    sources: MonitorSources,
) -> None:
    away = replace(sources, triton_metrics={"t1:8001": "http://127.0.0.1:9/metrics"})
    monitor = Monitor(away, MonitorConfig())
    monitor.poll_triton()
    monitor.update()
    assert value_of(monitor, "srp4ctr_source_up", source="triton") == 0.0


def test_a_missing_bundle_has_no_flops(sources: MonitorSources) -> None:
    monitor = Monitor(replace(sources, bundles_dir=Path("/nowhere")), MonitorConfig())
    monitor.poll_triton()
    monitor.update()
    assert value_of(monitor, "srp4ctr_inference_flops_total", model_version="v7") == 0.0


def test_a_bundle_that_could_not_be_read_once_is_read_at_the_next_update(
    sources: MonitorSources, triton_pages: list[str]
) -> None:
    triton_pages.insert(0, PAGE.replace(" 42", " 2"))
    card = sources.bundles_dir / "v7" / bundle.CARD_FILE
    away = card.rename(card.with_suffix(".away"))
    monitor = Monitor(sources, MonitorConfig())
    for _ in range(2):
        monitor.poll_triton()
        monitor.update()
    version = {"model_version": "v7"}
    assert value_of(monitor, "srp4ctr_encoder_runs_total", **version) == 40.0
    assert value_of(monitor, "srp4ctr_inference_flops_total", **version) == 0.0
    away.rename(card)
    monitor.update()
    assert value_of(monitor, "srp4ctr_inference_flops_total", **version) == 400.0


def test_a_drift_reference_that_could_not_be_read_once_is_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "v7"
    folder.mkdir()
    card = bundle.BundleManifest(version="v7", created_at_ms=1, sizes={})
    bundle.write_card(folder, card)
    (folder / REFERENCE_FILE).write_text('{"bins": {"score"')
    cache = BundleCache(tmp_path)
    assert [cache.of("v7").reference for _ in range(3)] == [None] * 3
    assert len(caplog.records) == 1
    reference = Reference(shown=1, bins={"score": Bins(edges=(0.5,), shares=(0.5, 0.5))})
    write_json(folder / REFERENCE_FILE, reference)
    assert cache.of("v7").reference == reference
    (folder / bundle.CARD_FILE).unlink()  # a bundle never changes: it is read once
    assert cache.of("v7").reference == reference


def test_the_newest_check_of_the_store_is_shown_once_there_is_one(
    sources: MonitorSources, tmp_path: Path
) -> None:
    monitor = Monitor(sources, MonitorConfig())
    assert value_of(monitor, "srp4ctr_feature_check_rows") is None
    write_json(
        tmp_path / REPORT_FILE, FeatureCheck(checked_at_ms=1, rows=9, wrong_counters=2)
    )
    monitor.update()
    assert value_of(monitor, "srp4ctr_feature_check_rows") == 9.0
    assert value_of(monitor, "srp4ctr_feature_check_wrong_rows") == 2.0
    (tmp_path / REPORT_FILE).write_text('{"rows": "another release\'s"}')
    monitor.update()
    assert value_of(monitor, "srp4ctr_feature_check_rows") is None


def test_the_first_crash_is_an_increase_from_zero(
    sources: MonitorSources, triton_pages: list[str]
) -> None:
    triton_pages.insert(0, PAGE.replace(" 42", " 2"))
    monitor = Monitor(sources, MonitorConfig())
    (sources.repository / "click_ranker_v7").mkdir()
    for crashes in (0.0, 2.0, 3.0):
        monitor.poll_triton()
        monitor.update()
        shown = value_of(monitor, "srp4ctr_serving_crashes_total", model_version="v7")
        assert shown == crashes
        count_crashes(sources.repository, ["v7"] if crashes else ["v7", "v7"])


def test_crashes_of_a_removed_bundle_are_dropped(tmp_path: Path) -> None:
    steps = [tmp_path / f"click_ranker_{version}" for version in ("v1", "v11")]
    for step in steps:
        step.mkdir()
    count_crashes(tmp_path, ["v1", "v11"])
    assert read_crashes(tmp_path) == {"v1": 1, "v11": 1}
    steps[0].rmdir()
    count_crashes(tmp_path, ["v11"])
    assert read_crashes(tmp_path) == {"v11": 2}


def test_before_the_first_promotion_nothing_serves(tmp_path: Path) -> None:
    assert serving_version(tmp_path) is None
    (tmp_path / "serving.json").write_text("half a fi")
    assert serving_version(tmp_path) is None
