"""Triton's counters → what serving did and what it cost, per step and model version.

In: samples of Triton's metrics endpoint and the bundles' cost cards. Out: totals that
only grow. Triton forgets a model's counters when the model is unloaded or loaded again,
so each sample's increase is added up here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ENSEMBLES = (
    *("rank_clicks", "score_clicks", "rank_clicks_canary"),
    *("encode_user", "candidate_states"),
)
ENCODER = "behavior_encoder"
HEAD = "click_head"
# Triton's counter of microseconds → our name of the phase.
PHASES = {
    "nv_inference_request_duration_us": "request",
    "nv_inference_queue_duration_us": "queue",
    "nv_inference_compute_input_duration_us": "input",
    "nv_inference_compute_infer_duration_us": "infer",
    "nv_inference_compute_output_duration_us": "output",
}
# ``nv_inference_count`` counts inferences, one a user in the batch; an execution may
# carry several of them, and would flatter "encoder runs per request".
RUNS = "nv_inference_count"
SUCCESSES = "nv_inference_request_success"
FAILURES = "nv_inference_request_failure"
COUNTERS = frozenset({*PHASES, RUNS, SUCCESSES, FAILURES})
_VERSIONED = re.compile(r"(?P<step>.+)_(?P<version>v[0-9]+)")


@dataclass(frozen=True, slots=True)
class CounterKey:
    """Which of Triton's counters: its name, and the model as Triton names it."""

    counter: str
    model: str

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


Sample = Mapping[CounterKey, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostCard:
    """FLOPs of a request with 100 candidates, from a bundle's card; 0 where unknown."""

    encoder_flops: float = 0.0
    folded_flops: float = 0.0
    unfolded_flops: float = 0.0


@dataclass(slots=True)
class ServingTotals:
    """Counters added up over the life of this process, reloads of models included."""

    totals: dict[CounterKey, float] = field(default_factory=dict)
    _last: Sample = field(default_factory=dict)
    _baseline: dict[str, float] | None = None

    def add(self, sample: Sample) -> None:
        """Add what has happened since the sample before."""
        for key, value in sample.items():
            before = self._last.get(key, 0.0)
            increase = value - before if value >= before else value  # counted from 0 anew
            self.totals[key] = self.totals.get(key, 0.0) + increase
        self._last = dict(sample)
        if self._baseline is None and self.runs(*ENSEMBLES):
            # The golden requests before a first promotion are no user's.
            self._baseline = self._encoder_and_requests()

    def runs(self, *steps: str) -> float:
        """Return the inferences of ``steps``, one a user, over all their versions."""
        return sum(
            value
            for key, value in self.totals.items()
            if key.counter == RUNS and key.step in steps
        )

    def runs_by_version(self, step: str) -> dict[str, float]:
        """Return the inferences of ``step`` by the version in the model's name."""
        return {
            key.version: value
            for key, value in self.totals.items()
            if key.counter == RUNS and key.step == step and key.version
        }

    def by_step(self, counter: str) -> dict[str, float]:
        """Return one of Triton's counters by step, over all versions."""
        result: dict[str, float] = {}
        for key, value in self.totals.items():
            if key.counter == counter:
                result[key.step] = result.get(key.step, 0.0) + value
        return result

    def encoder_runs_per_request(self) -> float | None:
        """Return encodings per user asked for; None before the first request.

        Golden requests before the first user's are left out where the samples allow it.
        """
        now, before = self._encoder_and_requests(), self._baseline
        if before is None:
            return None
        requests = now["requests"] - before["requests"]
        if requests == 0:  # one sample saw all of them: nothing to tell them apart by
            return now["encoder"] / now["requests"]
        return (now["encoder"] - before["encoder"]) / requests

    def _encoder_and_requests(self) -> dict[str, float]:
        return {"encoder": self.runs(ENCODER), "requests": self.runs(*ENSEMBLES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """Floating point operations, as if each request had scored 100 candidates."""

    folded: float
    unfolded: float


def flops(totals: ServingTotals, cards: Mapping[str, CostCard]) -> Flops:
    """Return what the traffic cost, and what it would have cost unfolded.

    Encoder runs and head runs are counted apart: a cached encoding costs nothing.
    """
    encoder, head = totals.runs_by_version(ENCODER), totals.runs_by_version(HEAD)
    folded = sum(
        encoder.get(version, 0.0) * card.encoder_flops
        + head.get(version, 0.0) * (card.folded_flops - card.encoder_flops)
        for version, card in cards.items()
    )
    unfolded = sum(
        head.get(version, 0.0) * card.unfolded_flops for version, card in cards.items()
    )
    return Flops(folded=folded, unfolded=unfolded)


def served_versions(totals: ServingTotals) -> Sequence[str]:
    """Return the versions whose encoder has been seen, for their cost cards."""
    return sorted(totals.runs_by_version(ENCODER))
