"""Measures memory by process of a running stack, and what an idle one has kept."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import psutil
from prometheus_client import Metric

from srp4ctr import processes
from srp4ctr.ops.feature_store import compare_store
from srp4ctr.settings import Settings
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC
from srp4ctr.streams.raw_log.delta_tables import dataset

CHECKED = 1_000  # users, and as many items
# Each draws others, of which it takes as many as memory has room for the events of.
CHECKS = 10
_CALLS, _ANSWERED = "srp4ctr_native_calls", "answered"
_MISMATCHES, _OTHER_ROWS = "srp4ctr_native_mismatches", "of other rows"
_LEAST_LIFE_S = 60.0  # after its warm-up: a shorter one says nothing of growth


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Resident memory of one kind of process, each life of it from its warm-up on."""

    name: str
    lives: int
    first_mb: float
    last_mb: float
    """Of the life that grew most."""

    @property
    def mb(self) -> float:
        """How much that life grew."""
        return self.last_mb - self.first_mb


@dataclass(slots=True)
class Memory:
    """Samples of every process of a folder, and of what those have started."""

    folder: Path
    warm_up_s: float
    """Of each process; before it nothing is compared."""
    _samples: dict[tuple[str, int], list[tuple[float, float]]] = field(default_factory=dict)

    def sample(self, at_s: float) -> None:
        """Note what each process takes at ``at_s``."""
        for running in processes.find(self.folder):
            try:
                parent = psutil.Process(running.pid)
                family = [(running.name, parent)]
                family += [
                    (f"{running.name}: {child.name()[:22]}", child)
                    for child in parent.children(recursive=True)
                ]
                for name, each in family:
                    self.note(name, each.pid, at_s, each.memory_info().rss / 1e6)
            except psutil.NoSuchProcess:  # it has just been killed
                continue

    def note(self, name: str, pid: int, at_s: float, mb: float) -> None:
        """Note one process; one that has ended and waits for its parent takes nothing."""
        if mb > 0.0:
            self._samples.setdefault((name, pid), []).append((at_s, mb))

    def growths(self) -> list[Growth]:
        """Return every kind of process that lived long enough."""
        lives: dict[str, list[tuple[float, float]]] = {}
        for (name, _), samples in self._samples.items():
            warm = [
                sample for sample in samples if sample[0] >= samples[0][0] + self.warm_up_s
            ]
            if warm and warm[-1][0] - warm[0][0] >= _LEAST_LIFE_S:
                lives.setdefault(name, []).append((_level(warm[:6]), _level(warm[-6:])))
        return [
            Growth(name=name, lives=len(of_name), first_mb=first, last_mb=last)
            for name, of_name in sorted(lives.items())
            for first, last in [max(of_name, key=lambda life: life[1] - life[0])]
        ]


class NativeCalls:
    """Adds up Triton's counters of native steps, which start again with each process."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, ...], float] = {}
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._outputs = Counter[str]()

    def sample(self, metrics: Iterable[Metric]) -> None:
        """Add what has been counted since the last sample; what a killed server had
        counted since then is not known."""
        found = {
            (
                sample.name.removesuffix("_total"),
                *sorted(sample.labels.values()),
            ): sample.value
            for metric in metrics
            for sample in metric.samples
            if sample.name.startswith("srp4ctr_native_")
        }
        for key, value in found.items():
            last = self._last.get(key, 0.0)
            added = value - last if value >= last else value
            name = key[0]
            if name == _CALLS and "answered" in key:
                name = _ANSWERED
            if name == _MISMATCHES and "feature_version" in key:
                name = _OTHER_ROWS
            self._sums[name] += added
            if name == _MISMATCHES and added:
                self._outputs.update({" ".join(key[1:]): round(added)})
        self._last = found

    def figures(self) -> dict[str, Any]:
        """Return the share of calls that were answered natively, and wrong answers."""
        answered = self._sums[_ANSWERED]
        calls = answered + self._sums[_CALLS]
        return {
            "native_share": round(answered / calls, 4) if calls else 0.0,
            "native_comparisons": round(self._sums["srp4ctr_native_comparisons"]),
            "native_mismatches": round(self._sums[_MISMATCHES]),
            # The user acted, or the items changed, between the two answers.
            "native_other_rows": round(self._sums[_OTHER_ROWS]),
            "mismatched_outputs": dict(self._outputs),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is in the raw log and the store."""

    events: int
    """Of the visitors, each once."""
    logged_twice: int
    impressions: int
    labelled: int
    """Impressions of them that have a label."""
    rows: int
    wrong_rows: int
    """Of the rows of the store that were compared with the raw log."""


def kept(settings: Settings) -> Kept:
    """Return what the stack has kept, as of now."""
    log = settings.features.raw_log
    events, labels = "logged_events", "logged_labels"
    # The monitor's probe has ids of its own.
    theirs = "event_id NOT LIKE 'srp4ctr-probe%' AND user_id NOT LIKE 'srp4ctr-probe%'"
    shown = f"SELECT DISTINCT request_id, item_id FROM {events}"
    shown += f" WHERE type = 'impression' AND {theirs}"
    query = f"""
        SELECT count(DISTINCT event_id), count(*),
            count(DISTINCT ("partition", "offset")), (SELECT count(*) FROM ({shown})),
            (SELECT count(*) FROM ({shown}) SEMI JOIN {labels} USING (request_id, item_id))
        FROM {events} WHERE {theirs}"""
    with duckdb.connect() as database:
        database.register(events, dataset(log, BEHAVIOR_EVENTS_TOPIC))
        database.register(labels, dataset(log, LABELS_TOPIC))
        counted = database.execute(query).fetchone()
    assert counted is not None
    distinct, logged, places, impressions, labelled = counted
    found = [compare_store(settings, CHECKED) for _ in range(CHECKS)]
    return Kept(
        events=distinct,
        logged_twice=logged - places,
        impressions=impressions,
        labelled=labelled,
        rows=sum(each.rows for each in found),
        wrong_rows=sum(each.wrong_rows for each in found),
    )


def _level(samples: list[tuple[float, float]]) -> float:
    """Return the mean of a few samples: a collector of garbage makes one jump."""
    return sum(mb for _, mb in samples) / len(samples)
