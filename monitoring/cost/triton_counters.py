"""Triton's counters → totals of serving and its FLOPs, per step and model version.

In: Triton's page of metrics and the bundles' cost cards. Out: totals that only
grow. Triton resets a model's counters when it unloads or reloads the model, so this module
adds up the increases between samples, per server.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from prometheus_client import Metric

from srp4ctr.metrics import (
    CANDIDATES,
    NATIVE_STEP,
    PART_RUNS,
    PART_US,
    SERVING_STEP,
    TABLE_AGE_MS,
    TABLE_READS,
)

ENSEMBLES = (
    "rank_clicks",
    "score_clicks",
    "rank_clicks_canary",
    "encode_user",
    "candidate_states",
    "canary_experiment",
    "recommend_items",
)
ENCODER = "behavior_encoder"
HEAD = "click_head"
QUEUE_US = "nv_inference_queue_duration_us"
# Triton's counter of microseconds → our name of the phase.
PHASES = {
    "nv_inference_request_duration_us": "request",
    QUEUE_US: "queue",
    "nv_inference_compute_input_duration_us": "input",
    "nv_inference_compute_infer_duration_us": "infer",
    "nv_inference_compute_output_duration_us": "output",
}
# ``nv_inference_count`` counts inferences, one per user in the batch; an execution can have
# several, so counting executions would understate "encoder runs per request".
RUNS = "nv_inference_count"
SUCCESSES = "nv_inference_request_success"
FAILURES = "nv_inference_request_failure"
# Counters of the ranking step itself, each with its label besides model and version.
STEP_COUNTERS = {
    spec.name: "".join(spec.labels[1:]) for spec in (*SERVING_STEP, *NATIVE_STEP)
}
# The single-step model reports its parts under the counters of separate steps.
PARTS = {
    PART_RUNS: RUNS,
    PART_US: "nv_inference_request_duration_us",
}
COUNTERS = frozenset({*PHASES, RUNS, SUCCESSES, FAILURES, *STEP_COUNTERS})
_Group = TypeVar("_Group")
_VERSIONED = re.compile(r"(?P<step>.+)_(?P<version>v[0-9]+)")
RETIRED = "v0"  # no bundle's: sums of versions that are no longer served
RETIRES_AFTER = 3600  # samples without the version; one per second


@dataclass(frozen=True, slots=True)
class CounterKey:
    """A Triton counter: its name, Triton's model name, and the value of its own label."""

    counter: str
    model: str
    label: str = ""
    source: str = ""
    """The step that counts, where two do: each resets its own counters."""
    server: str = ""
    """The server that counts, where there are several."""

    @property
    def step(self) -> str:
        """The model's name without its version."""
        match = _VERSIONED.fullmatch(self.model)
        return match["step"] if match else self.model

    @property
    def version(self) -> str | None:
        """The bundle's version in the model's name."""
        match = _VERSIONED.fullmatch(self.model)
        return match["version"] if match else None

    @property
    def served(self) -> str | None:
        """The version, unless it is retired."""
        return self.version if self.version != RETIRED else None


Sample = Mapping[CounterKey, float]


def sample_of(families: Iterable[Metric], server: str = "") -> Sample:
    """Return ``server``'s inference counters; failures are added up over their reasons."""
    sample: dict[CounterKey, float] = {}
    for each in (sample for family in families for sample in family.samples):
        name = each.name.removesuffix("_total")  # the parser adds it to counters
        name = PARTS.get(name, name)
        if name in COUNTERS and "model" in each.labels:
            label = each.labels.get(STEP_COUNTERS.get(name, ""), "")
            source = each.labels.get("source", "")
            key = CounterKey(name, each.labels["model"], label, source, server)
            sample[key] = sample.get(key, 0.0) + each.value
    return sample


@dataclass(frozen=True, slots=True, kw_only=True)
class CostCard:
    """FLOPs by a bundle's card; 0 where unknown."""

    encoder: float = 0.0
    """Per history."""
    request: float = 0.0
    """Of the head, per request."""
    candidate: float = 0.0
    """Of the head, per candidate."""
    reencode: float = 0.0
    """Per candidate, if each re-encodes the history."""

    @classmethod
    def of(cls, card: Mapping[str, float]) -> "CostCard":
        """Return the terms of a bundle's ``cost``, which has 1 and 100 candidates."""
        one, hundred = (
            card.get("head_flops_per_1", 0.0),
            card.get("head_flops_per_100", 0.0),
        )
        candidate = (hundred - one) / 99
        return cls(
            encoder=card.get("encoder_flops", 0.0),
            request=one - candidate,
            candidate=candidate,
            reencode=card.get("unfolded_flops_per_1", 0.0),
        )


@dataclass(slots=True)
class ServingTotals:
    """Counters added up over the life of this process, across reloads of models."""

    totals: dict[CounterKey, float] = field(default_factory=dict)
    _cache_ages_s: dict[tuple[str, str], float] = field(default_factory=dict)
    _last: Sample = field(default_factory=dict)
    _baseline: dict[str, float] | None = None
    _unseen: dict[str, int] = field(default_factory=dict)

    def start_from(self, sample: Sample) -> None:
        """Count from ``sample`` on.

        Prometheus takes counters that begin at 0 for a restart; if they began at Triton's
        values, each restart of the monitor would look like new requests.
        """
        self.totals |= dict.fromkeys(sample, 0.0)
        self._last = {**self._last, **sample}

    def add(self, sample: Sample, absent: Collection[str] = ()) -> None:
        """Add the increase since the previous sample.

        It has nothing of the servers ``absent``, whose counters stay as they were.
        """
        increases: dict[CounterKey, float] = {}
        for key, value in sample.items():
            before = self._last.get(key, 0.0)
            # Less than before: Triton has reset the counter.
            increases[key] = value - before if value >= before else value
            self.totals[key] = self.totals.get(key, 0.0) + increases[key]
        self._observe_item_cache_age(increases, absent)
        kept = {key: n for key, n in self._last.items() if key.server in absent}
        self._last = {**kept, **sample}
        self._retire({key.version for key in self._last})
        if self._baseline is None and self.runs(*ENSEMBLES):
            # The golden requests before the first promotion are no user's.
            self._baseline = self._encoder_and_requests()

    @property
    def item_cache_age_s(self) -> dict[str, float]:
        """By version: the oldest server's mean age of the item cache at its last requests.

        A server that is stale among fresh ones must show.
        """
        oldest: dict[str, float] = {}
        for (version, _), age_s in self._cache_ages_s.items():
            oldest[version] = max(age_s, oldest.get(version, 0.0))
        return oldest

    def by_server(self) -> dict[str, "ServingTotals"]:
        """Return the totals of each server."""
        found: dict[str, ServingTotals] = {}
        for key, value in self.totals.items():
            found.setdefault(key.server, ServingTotals()).totals[key] = value
        return found

    def runs(self, *steps: str) -> float:
        """Return the inferences of ``steps``, one per user, over all versions."""
        return sum(runs for step, runs in self.by_step(RUNS).items() if step in steps)

    def by_version(self, counter: str, step: str = "") -> dict[str, float]:
        """Return one counter by version, of ``step`` or of all steps."""
        return self._sums(counter, lambda k: k.served if step in ("", k.step) else None)

    def labelled(self, counter: str) -> dict[tuple[str, str], float]:
        """Return one counter by version and its own label."""
        return self._sums(counter, lambda k: (k.served, k.label) if k.served else None)

    def by_label(self, counter: str) -> dict[str, float]:
        """Return one counter by its own label, over all versions, retired ones too."""
        return self._sums(counter, lambda k: k.label)

    def by_step(self, counter: str) -> dict[str, float]:
        """Return one of Triton's counters by step, over all versions."""
        return self._sums(counter, lambda k: k.step)

    def _sums(
        self, counter: str, group_of: Callable[[CounterKey], _Group | None]
    ) -> dict[_Group, float]:
        result: dict[_Group, float] = {}
        for key, value in self.totals.items():
            if key.counter == counter and (group := group_of(key)) is not None:
                result[group] = result.get(group, 0.0) + value
        return result

    def encoder_runs_per_request(self) -> float | None:
        """Return encodings per user of a request; None before the first request.

        Golden requests before the first user's are excluded if the samples allow it.
        """
        now, before = self._encoder_and_requests(), self._baseline
        if before is None:
            return None
        requests = now["requests"] - before["requests"]
        if requests == 0:  # a single sample has all of them
            return now["encoder"] / now["requests"]
        return (now["encoder"] - before["encoder"]) / requests

    def _observe_item_cache_age(
        self, increases: Mapping[CounterKey, float], absent: Collection[str]
    ) -> None:
        for version, server in list(self._cache_ages_s):
            if server in absent:  # its last age says nothing about now
                del self._cache_ages_s[version, server]
        for key, reads in increases.items():
            if key.counter == TABLE_READS and key.version and reads:
                age_ms = increases.get(replace(key, counter=TABLE_AGE_MS), 0.0)
                self._cache_ages_s[key.version, key.server] = age_ms / reads / 1000

    def _encoder_and_requests(self) -> dict[str, float]:
        return {"encoder": self.runs(ENCODER), "requests": self.runs(*ENSEMBLES)}

    def _retire(self, served: set[str | None]) -> None:
        """Drop versions that have long been unloaded; their counts stay in the sums.

        Hourly refreshes would otherwise create a thousand time series per week.
        """
        for version in set(filter(None, (key.served for key in self.totals))):
            unseen = 0 if version in served else self._unseen.get(version, 0) + 1
            self._unseen[version] = unseen
            if unseen >= RETIRES_AFTER:
                del self._unseen[version]
                for key in [key for key in self._cache_ages_s if key[0] == version]:
                    del self._cache_ages_s[key]
                self._merge({key for key in self.totals if key.version == version})

    def _merge(self, keys: Iterable[CounterKey]) -> None:
        for key in keys:
            into = replace(key, model=f"{key.step}_{RETIRED}", source="")
            self.totals[into] = self.totals.get(into, 0.0) + self.totals.pop(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """Floating point operations of one version's traffic."""

    encode_once: float
    reencode: float


def flops(totals: ServingTotals, cards: Mapping[str, CostCard]) -> dict[str, Flops]:
    """Return each version's FLOPs, and those of re-encoding the history per candidate.

    Encoder runs, head runs and candidates are counted separately: a cached encoding costs
    nothing, and padding is not counted.
    """
    encoder, head = totals.by_version(RUNS, ENCODER), totals.by_version(RUNS, HEAD)
    candidates = totals.by_version(CANDIDATES)
    return {
        version: Flops(
            encode_once=encoder.get(version, 0.0) * card.encoder
            + head.get(version, 0.0) * card.request
            + candidates.get(version, 0.0) * card.candidate,
            reencode=candidates.get(version, 0.0) * card.reencode,
        )
        for version, card in sorted(cards.items())
        if version in encoder or version in head
    }


def served_versions(totals: ServingTotals) -> Sequence[str]:
    """Return the versions whose encoder has run, for their cost cards."""
    return sorted(totals.by_version(RUNS, ENCODER))
