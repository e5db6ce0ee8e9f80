"""Simulated hours of traffic of several versions → labels and OpenMetrics lines.

The lines of each minute come from the monitor's own code; ``promtool`` makes blocks of a
real Prometheus from them. The labels serve for a recount. Impressions are shown on the
minute, so that windows begin and end between them.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import Metric

from srp4ctr.features.bundles.drift_reference import COLD_USER, SCORE, UNSEEN_ITEM
from srp4ctr.metrics import ANSWERS, ANSWERS_US, CANDIDATES, CPU_US
from srp4ctr.monitoring.collector.collector import MachinePrices, View, families
from srp4ctr.monitoring.cost.triton_counters import (
    RUNS,
    CostCard,
    CounterKey,
    ServingTotals,
    flops,
)
from srp4ctr.monitoring.quality.ab_test import AbTest
from srp4ctr.monitoring.quality.drift import FeatureDrift
from srp4ctr.monitoring.quality.live_quality import LiveQuality
from srp4ctr.monitoring.quality.pending_labels import ProvisionalCounts
from srp4ctr.streams.state.label_join import ImpressionLabel
from tests.monitoring.conftest import LABEL_WINDOW_MS, MINUTE_MS, a_label

SLATE = 5
CANDIDATES_EACH = 100
CARD = CostCard(encoder=5e6, request=1e5, candidate=1e4, reencode=6e6)
PRICES = MachinePrices(currency="USD", core=0.045, gpu=0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranker:
    """How a version ranks and what it costs."""

    version: str
    top_rate: float
    """Click rate at position 1; 0.7 of that at each next one."""
    score_factor: float = 1.0
    """Scores over click rates."""
    cpu_ms: float = 4.0
    """Of a request."""
    answers_under: str = "0.01"
    per_minute: int = 4
    starts_minute: int = 0


@dataclass(slots=True)
class Traffic:
    """``minutes`` of traffic that end at ``end_ms``."""

    rankers: tuple[Ranker, ...]
    end_ms: int
    minutes: int
    serving: str
    window_ms: int = 60 * MINUTE_MS
    labels: list[ImpressionLabel] = field(default_factory=list)

    def openmetrics(self, more: tuple[str, ...] = ()) -> Iterator[str]:
        """Yield the lines of every minute, of ``more`` at last, and the end's mark."""
        ab_test = AbTest()
        live = LiveQuality(
            window_ms=self.window_ms, label_window_ms=LABEL_WINDOW_MS, ab_test=ab_test
        )
        totals = ServingTotals()
        self.labels = sorted(self._labels(), key=lambda each: each.matured_at)
        waiting = iter(self.labels)
        due = next(waiting, None)
        for minute in range(self.minutes + 1):
            now_ms = self.start_ms + minute * MINUTE_MS
            while due and due.matured_at <= now_ms:
                live.add(due, partition=0)
                due = next(waiting, None)
            totals.add(self._counters(minute))
            view = self._view(live, ab_test, totals, now_ms)
            yield from _lines(families(view), now_ms)
        yield from more
        yield "# EOF"

    @property
    def start_ms(self) -> int:
        return self.end_ms - self.minutes * MINUTE_MS

    def _labels(self) -> Iterator[ImpressionLabel]:
        draw = random.Random(7)
        for minute in range(self.minutes + 1):
            shown_ms = self.start_ms + minute * MINUTE_MS
            for ranker in self.rankers:
                if minute < ranker.starts_minute:
                    continue
                for request in range(ranker.per_minute):
                    name = f"{ranker.version}-{minute}-{request}"
                    yield from self._slate(ranker, name, shown_ms, draw)

    def _slate(
        self, ranker: Ranker, name: str, shown_ms: int, draw: random.Random
    ) -> Iterator[ImpressionLabel]:
        for position in range(SLATE):
            rate = ranker.top_rate * 0.7**position * draw.uniform(0.6, 1.4)
            clicked = draw.random() < rate
            wait_ms = 20_000 if clicked else LABEL_WINDOW_MS
            yield a_label(
                f"i{position}",
                request_id=name,
                user_id=name,
                position=position,
                score=min(0.99, rate * ranker.score_factor),
                model_version=ranker.version,
                impression_at=shown_ms,
                matured_at=shown_ms + wait_ms,
                clicked=clicked,
            )

    def _counters(self, minute: int) -> dict[CounterKey, float]:
        found: dict[CounterKey, float] = {}
        for ranker in self.rankers:
            requests = ranker.per_minute * max(0, minute - ranker.starts_minute + 1)
            step = f"click_ranker_{ranker.version}"
            found |= {
                CounterKey(RUNS, f"click_head_{ranker.version}"): requests,
                CounterKey(RUNS, f"behavior_encoder_{ranker.version}"): 0.75 * requests,
                CounterKey(CANDIDATES, step): CANDIDATES_EACH * requests,
                CounterKey(CPU_US, step): 1000 * ranker.cpu_ms * requests,
                CounterKey(ANSWERS, step, ranker.answers_under): requests,
                CounterKey(ANSWERS_US, step): 8000 * requests,
            }
        return found

    def _view(
        self, live: LiveQuality, ab_test: AbTest, totals: ServingTotals, now_ms: int
    ) -> View:
        names = [each.version for each in self.rankers]
        return View(
            window_s=self.window_ms / 1000,
            label_window_s=LABEL_WINDOW_MS / 1000,
            window_end_ms=live.newest_ms,
            qualities=live.quality(),
            provisional={name: ProvisionalCounts(open=40, clicked=9) for name in names},
            differences=ab_test.differences(self.serving),
            totals=totals,
            flops=flops(totals, dict.fromkeys(names, CARD)),
            prices=PRICES,
            feature_drifts=tuple(
                FeatureDrift(
                    model_version=v,
                    feature=f,
                    psi=0.04,
                    training_share=0.02,
                    live_share=0.03,
                )
                for v in names
                for f in (SCORE, COLD_USER, UNSEEN_ITEM)
            ),
            serving_version=self.serving,
            bundles=(),
            source_up={"labels": True, "triton": True},
            consumer_lag={},
            now_ms=now_ms,
        )


def _lines(found: list[Metric], now_ms: int) -> Iterator[str]:
    for metric in found:
        for sample in metric.samples:
            labels = {**sample.labels, "job": "monitor", "instance": "127.0.0.1:9102"}
            named = ",".join(f'{name}="{value}"' for name, value in labels.items())
            yield f"{sample.name}{{{named}}} {sample.value} {now_ms / 1000}"
