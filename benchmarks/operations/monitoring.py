"""Claim: the monitor's figures are true, and the right alert fires for the right version.

Real slates and clicks of EB-NeRD's validation week, by turns of users from three versions
that rank by what was clicked before: ``v1`` serves; ``v2`` over-predicts by 50 %;
``v3`` costs ten times as much. A slate's probabilities add up to one, as its clicks do, so
that v1 and v3 are calibrated. The monitor itself counts the labels, as the stream's join
makes them, and reads a page of Triton's form, whose costs are made up; its figures of each
minute go through the project's rules in Prometheus' own engine (``promtool test rules``),
unchanged.

Then a million labels: how long one takes, and how much memory they keep. At last two
monitors share the labels of Apache Kafka with one beside them that reads all; one of the
two is killed.

    make bench NAME=monitoring
"""

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import psutil

from benchmarks import parser_of, say
from benchmarks.harness.figures import table
from benchmarks.operations import monitoring_shared
from benchmarks.operations.monitoring_alerts import TritonPage, fired
from benchmarks.quality.clicks.click_sources import of_ebnerd
from srp4ctr.monitoring.collector.exporter import Monitor, MonitorSources
from srp4ctr.monitoring.collector.topic_readers import LabelBatch, ReceivedLabel
from srp4ctr.monitoring.config import MonitorConfig
from srp4ctr.monitoring.quality.position_auc import MAX_POSITIONS, MIN_CLICKS
from srp4ctr.monitoring.quality.quality_sums import ModelQuality
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import Click, Impression, UserEvent, item_key
from srp4ctr.streams.state.label_join import ImpressionLabel, LabelJoin
from srp4ctr.training.evaluation import quality as held_out

CALIBRATED, OVER_PREDICTING, COSTLY = "v1", "v2", "v3"
OVER_PREDICTION = 1.5
LABELS = 20_000  # matured, of all three together
LABEL_WINDOW_S = 1800.0
WINDOW_S = 24 * 3600.0  # a smaller site's: an hour has 1,800 impressions
MINUTE_MS = 60_000
OVERHEAD_LABELS = 1_000_000
SHARED_LABELS = 400_000
QUALITIES = (
    "model_version",
    "impressions",
    "click_rate",
    "calibration_ratio",
    "normalized_entropy",
)
COLUMNS = {
    "version": "model_version",
    "labels": "impressions:,",
    "CTR": "click_rate:.4f",
    "AUC": "auc:.4f",
    "p / y": "calibration_ratio:.3f",
    "NE": "normalized_entropy:.3f",
    "alerts": "alerts",
}
# The alert that each fault deserves, by version.
DESERVED = {("Srp4ctrCalibrationDrift", OVER_PREDICTING), ("Srp4ctrCostRegression", COSTLY)}


def main() -> None:
    """Print a table, then one JSON object."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--labels", type=int, default=LABELS)
    add("--overhead", type=int, default=OVERHEAD_LABELS)
    add("--shared", type=int, default=SHARED_LABELS, help="labels that two monitors share")
    options = parser.parse_args()
    labels = list(_labels(options.labels))
    hours = (labels[-1].matured_at - labels[0].matured_at) / 3.6e6
    clicks = sum(label.clicked for label in labels)
    say(f"{len(labels):,} labels, {clicks:,} clicks, {hours:.1f} hours")
    with tempfile.TemporaryDirectory(prefix="srp4ctr-monitoring-") as folder:
        replayed = _replay(labels, Path(folder))
        overhead = _overhead(labels, options.overhead, Path(folder))
        shared = monitoring_shared.measure(options.shared, Path(folder) / "shared")
    errors = _errors(labels, replayed.qualities)
    found, rows = fired(replayed.series), []
    for each in found:
        say(f"{each.alert} {each.model_version}: after {each.minute} minutes")
    seen = {(each.alert, each.model_version) for each in found}
    report = {
        **errors,
        "alerts_right": len(seen & DESERVED),
        "alerts_deserved": len(DESERVED),
        "alerts_wrong": len(seen - DESERVED),
        **overhead,
        **shared,
    }
    for quality in replayed.qualities:
        fields = (getattr(quality, name) for name in QUALITIES)
        row = dict(zip(QUALITIES, fields, strict=True)) | {"auc": quality.auc.value}
        alerts = [f.alert for f in found if f.model_version == quality.model_version]
        rows.append(row | {"alerts": ", ".join(alerts)})
    print(table(rows, COLUMNS))
    print(json.dumps(report))


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What the monitor showed while the labels came."""

    series: dict[str, list[float | None]]
    """By name and labels as Prometheus writes them, a value per minute."""
    qualities: tuple[ModelQuality, ...]


def _labels(most: int) -> Iterator[ImpressionLabel]:
    """Yield the first ``most`` labels of the week, as the stream's join makes them."""
    join = LabelJoin(int(LABEL_WINDOW_S * 1000), correction_ms=0, max_kept=1_000_000)
    count = 0
    source = of_ebnerd()
    for event in _ranked(source.events, source.judged_from_ms or 0):
        for label in join.add(event, event.occurred_at) + join.advance():
            yield label
            count += 1
            if count >= most:
                return


def _ranked(events: Sequence[UserEvent], since_ms: int) -> Iterator[UserEvent]:
    """Yield slates as a version ranked them: by the clicks that their items had so far."""
    clicked: dict[str, int] = defaultdict(int)
    slate: list[Impression] = []
    for event in events:
        request = event.request_id if isinstance(event, Impression) else ""
        if slate and request != slate[0].request_id:
            yield from _slate(slate, clicked)
            slate = []
        if isinstance(event, Impression) and event.occurred_at >= since_ms:
            slate.append(event)
        if isinstance(event, Click):
            clicked[event.item_id] += 1
            if event.occurred_at >= since_ms:
                yield event


def _slate(shown: Sequence[Impression], clicked: dict[str, int]) -> Iterator[Impression]:
    version = (CALIBRATED, OVER_PREDICTING, COSTLY)[item_key(shown[0].user_id) % 3]
    weights = np.array([clicked[each.item_id] + 1.0 for each in shown])
    scores = (
        weights / weights.sum() * (OVER_PREDICTION if version == OVER_PREDICTING else 1.0)
    )
    for position, place in enumerate(np.argsort(-weights, kind="stable")):
        yield msgspec.structs.replace(
            shown[place],
            position=position,
            score=float(min(scores[place], 1.0)),
            model_version=version,
        )


def _replay(labels: Sequence[ImpressionLabel], folder: Path) -> Replayed:
    """Let the monitor see the labels minute by minute, as they matured."""
    series: dict[str, list[float | None]] = {}
    began_ms = min(label.matured_at for label in labels)
    minutes: dict[int, list[ImpressionLabel]] = defaultdict(list)
    for label in labels:
        minutes[(label.matured_at - began_ms) // MINUTE_MS].append(label)
    page = TritonPage()
    with page.shown() as url:
        monitor = monitor_of(folder, url)
        monitor.observe_broker(True)
        for minute in range(max(minutes) + 1):
            add_labels(monitor, minutes[minute])
            page.count(minutes[minute])
            monitor.poll_triton()
            monitor.update()
            for name, value in _samples(monitor):
                series.setdefault(name, [None] * minute).append(value)
            for values in series.values():
                values += [None] * (minute + 1 - len(values))
    series['up{job="monitor"}'] = [1.0] * (max(minutes) + 1)  # Prometheus' own
    return Replayed(series=series, qualities=monitor.qualities())


def add_labels(monitor: Monitor, labels: Sequence[ImpressionLabel]) -> None:
    """Let ``monitor`` count the labels, as of one partition."""
    received = tuple(
        ReceivedLabel(label=label, partition=0, published_ms=label.matured_at)
        for label in labels
    )
    monitor.add_labels(LabelBatch(labels=received, undecodable=0))


def monitor_of(folder: Path, triton_url: str) -> Monitor:
    """Return a monitor of that page, with its files in ``folder``; ``v1`` serves."""
    (folder / "serving.json").write_text(json.dumps({"serving": CALIBRATED}))
    sources = MonitorSources(
        kafka=KafkaConfig(),
        triton_metrics={"triton": triton_url},
        repository=folder,
        bundles_dir=folder / "bundles",
        label_window_s=LABEL_WINDOW_S,
        feature_check=folder / "feature-check.json",
    )
    return Monitor(sources, MonitorConfig(window_s=WINDOW_S))


def _samples(monitor: Monitor) -> Iterator[tuple[str, float]]:
    for family in monitor.registry.collect():
        for sample in family.samples:
            labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
            if not sample.name.endswith("_created"):
                yield f"{sample.name}{{{labels}}}", sample.value


def _errors(
    labels: Sequence[ImpressionLabel], qualities: Sequence[ModelQuality]
) -> dict[str, float]:
    """Return how far the monitor's figures are from those of all labels at once."""
    settled_ms = max(label.impression_at for label in labels if not label.revision)
    worst: dict[str, float] = defaultdict(float)
    for quality in qualities:
        own = {
            (label.user_id, label.request_id, label.item_id): label
            for label in sorted(labels, key=lambda each: each.revision)
            if label.model_version == quality.model_version
        }.values()
        counted = [each for each in own if each.impression_at <= settled_ms]
        clicks = np.array([each.clicked and each.within_window for each in counted], float)
        scores = np.array([each.score for each in counted])
        exact = {
            "ctr": (quality.click_rate, clicks.mean()),
            "auc": (quality.auc.value, _position_auc(counted, clicks, scores)),
            "calibration": (quality.calibration_ratio, scores.sum() / clicks.sum()),
            "entropy": (
                quality.normalized_entropy,
                held_out.normalised_entropy(clicks, scores),
            ),
        }
        for name, (live, offline) in exact.items():
            key = f"{name}_error"
            worst[key] = max(worst[key], float(abs(live - offline)))
    return {**worst, "max_abs_error": max(worst.values())}


def _position_auc(
    counted: Sequence[ImpressionLabel], clicks: np.ndarray, scores: np.ndarray
) -> float:
    """Return the AUC over the pairs at one position with enough clicks."""
    positions = np.array([each.position for each in counted])
    won = pairs = 0.0
    for position in range(MAX_POSITIONS):
        here = positions == position
        clicked = clicks[here].sum()
        if clicked >= MIN_CLICKS:
            weight = clicked * (here.sum() - clicked)
            won += weight * held_out.auc(clicks[here], scores[here])
            pairs += weight
    return won / pairs


def _overhead(
    labels: Sequence[ImpressionLabel], count: int, folder: Path
) -> dict[str, float]:
    """Return what ``count`` labels cost the monitor, all of them within its window."""
    monitor = monitor_of(folder, "http://127.0.0.1:9/metrics")
    copies = -(-count // len(labels))
    before = psutil.Process().memory_info().rss
    seconds, folded = 0.0, 0
    for copy in range(copies):
        renamed = [
            msgspec.structs.replace(label, request_id=f"{label.request_id}-{copy}")
            for label in labels
        ]
        began = time.process_time()
        add_labels(monitor, renamed)
        seconds += time.process_time() - began
        folded += len(renamed)
    began = time.process_time()
    monitor.update()
    return {
        "overhead_us_per_event": round(seconds / folded * 1e6, 2),
        "show_ms": round((time.process_time() - began) * 1e3, 1),
        "labels": folded,
        "memory_mb": round((psutil.Process().memory_info().rss - before) / 1e6, 1),
    }


if __name__ == "__main__":
    main()
