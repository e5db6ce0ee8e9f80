"""Gates of a bundle: the table of all of them, and the result of one.

A gate is an entry of ``GATES`` and the function that it names. Training calls those on the
judged slates and against the champion as the table lists them; export and promotion call
theirs. The bundle's card and the refresh report keep the results, ``docs/model.md`` has the
table. Standard library only.
"""

import math
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The result of one check."""

    gate: str
    passed: bool | None
    """None: there was nothing to measure, and the bundle may serve."""
    value: float | None = None
    limit: float | None = None
    """What ``value`` was compared with."""
    note: str = ""
    """What is compared, by how much it failed and how to fix it, or why it was skipped."""
    warning: bool = False
    """It passed, and the note says what is wrong all the same."""
    lost: float = 0.0
    """By how much the bundles that replaced each other since the best one became worse."""
    lost_error: float = 0.0
    """The standard error of ``lost``."""

    def __str__(self) -> str:
        return f"{self.gate}: {self.note or f'{self.value} against {self.limit}'}"


def skipped(gate: str, why: str) -> Gate:
    """Return the result of a check that could not be made."""
    return Gate(gate=gate, passed=None, note=why)


def failed(gates: Iterable[Gate]) -> tuple[Gate, ...]:
    """Return the ``gates`` that a bundle failed."""
    return tuple(gate for gate in gates if gate.passed is False)


def finite(figure: float) -> float | None:
    """Return ``figure``, or None where it is undefined: JSON has no NaN."""
    return float(figure) if math.isfinite(figure) else None


SCORE_TOLERANCES = {"click_probability": 1e-4, "ranking_score": 1e-3}
"""How far scores of the exported model may be from torch's. Absolute: a ranking score is a
logit, and a probability is at most a quarter as far off."""
_SCORES = "1e-4, a ranking score 1e-3"
_TRAINING = "srp4ctr.training"
_PROMOTION = "srp4ctr.triton_repo.deployment"
_OF_CHAMPION = (
    "no worse by more than the margin of error and `training.champion_tolerance`, on the "
    "same impressions"
)
_WORSE = "the newest data, or a changed setting, made it worse: `model diff`"
_DRAWN = "popularity is drawn out of sampled slates: see rule_of_thumb"
_UNCALIBRATED = "sampled slates have no click rate: scores are not calibrated"


class Phase(Enum):
    """When a gate is computed, and from what."""

    JUDGED = "training, on the judged slates"
    CHAMPION = "training, compared with the serving bundle"
    RULES = "training, compared with one-line rules"
    EXPORT = "training, on the exported files"
    PROMOTION = "promotion, on servers and stores"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateEntry:
    """One gate: a row of the table."""

    name: str
    phase: Phase
    measures: str
    limit: str
    """What the measure must be; a setting by its name."""
    failure: str
    """What a failure usually means."""
    function: str
    """``module:function``: rooms below cannot be imported from here."""
    skipped_if_sampled: str = ""
    """Of ``Phase.JUDGED``: why sampled slates do not measure it; "": they do."""

    def load(self) -> Callable[..., Any]:
        """Return the function."""
        found: Callable[..., Any] = pkgutil.resolve_name(self.function)
        return found


GATES = (
    GateEntry(
        name="auc",
        phase=Phase.JUDGED,
        measures="AUC of the judged impressions",
        limit="≥ `training.min_auc`, less the margin of error",
        failure="too little data, or labels that are not clicks",
        function=f"{_TRAINING}.evaluation.evaluate:auc_gate",
        skipped_if_sampled=_DRAWN,
    ),
    GateEntry(
        name="gauc",
        phase=Phase.JUDGED,
        measures="mean AUC within a request, by the ranking score",
        limit="≥ `training.min_gauc`, less the margin of error",
        failure="the model knows users and times, not items",
        function=f"{_TRAINING}.evaluation.evaluate:gauc_gate",
        skipped_if_sampled=_DRAWN,
    ),
    GateEntry(
        name="calibration",
        phase=Phase.JUDGED,
        measures="predicted / clicked",
        limit="within `training.max_calibration_error` of 1, plus the margin of error",
        failure="the click rate has changed between training and judging",
        function=f"{_TRAINING}.evaluation.evaluate:calibration_gate",
        skipped_if_sampled=_UNCALIBRATED,
    ),
    GateEntry(
        name="normalised_entropy",
        phase=Phase.JUDGED,
        measures="log loss / that of the judged slice's own click rate",
        limit="below 1, within the margin of error",
        failure="scores worse than one number for all",
        function=f"{_TRAINING}.evaluation.evaluate:entropy_gate",
        skipped_if_sampled=_UNCALIBRATED,
    ),
    GateEntry(
        name="judged",
        phase=Phase.JUDGED,
        measures="clicks of the judged impressions",
        limit="some were clicked and some not; it is in the report only where it fails, "
        "and then the ranking gates are skipped",
        failure="no clicks arrived lately, or too few requests are held out",
        function=f"{_TRAINING}.evaluation.evaluate:judged_gate",
    ),
    GateEntry(
        name="champion_log_loss",
        phase=Phase.CHAMPION,
        measures="log loss, compared with the serving bundle",
        limit=_OF_CHAMPION,
        failure=_WORSE,
        function=f"{_TRAINING}.evaluation.champion:compare_log_loss",
    ),
    GateEntry(
        name="champion_auc",
        phase=Phase.CHAMPION,
        measures="AUC, compared with the serving bundle",
        limit=_OF_CHAMPION,
        failure=_WORSE,
        function=f"{_TRAINING}.evaluation.champion:compare_auc",
    ),
    GateEntry(
        name="champion_gauc",
        phase=Phase.CHAMPION,
        measures="gAUC, compared with the serving bundle",
        limit=_OF_CHAMPION,
        failure=_WORSE,
        function=f"{_TRAINING}.evaluation.champion:compare_gauc",
    ),
    GateEntry(
        name="rule_of_thumb",
        phase=Phase.RULES,
        measures="gAUC, model less the best [one-line rule](#one-line-rules)",
        limit="the 95 % interval, corrected for the number of rules, reaches 0",
        failure="a column is missing that the rule has (the caller's order, a price, "
        "items' attributes), or too little data",
        function=f"{_TRAINING}.evaluation.rules:gate",
    ),
    GateEntry(
        name="exported",
        phase=Phase.EXPORT,
        measures="difference of ONNX's answers from torch's",
        limit=_SCORES,
        failure="a bug: the refresh stops with an error, and nothing is made",
        function=f"{_TRAINING}.export.bundle_writer:exported_gate",
    ),
    GateEntry(
        name="skew",
        phase=Phase.PROMOTION,
        measures="share of the store's sampled rows that differ from the log",
        limit="≤ `triton.max_wrong_features`",
        failure="`srp4ctr features check`, then `stream rebuild`",
        function="srp4ctr.ops.promotion_service:store_gate",
    ),
    GateEntry(
        name="golden",
        phase=Phase.PROMOTION,
        measures="difference of Triton's answers to the golden requests from torch's",
        limit=_SCORES,
        failure="another onnxruntime in the server, or a damaged file",
        function=f"{_PROMOTION}.validation:golden_gate",
    ),
    GateEntry(
        name="golden_ids",
        phase=Phase.PROMOTION,
        measures="difference of the native and the Python step's answers to "
        "[requests by ids](#requests-by-ids) from those of training's code",
        limit=_SCORES,
        failure="a bug in serving: report it; the native step does not load: Triton's log, "
        "or `triton.native = false`",
        function=f"{_PROMOTION}.golden_ids:GoldenIds.gate",
    ),
    GateEntry(
        name="latency",
        phase=Phase.PROMOTION,
        measures="CPU time of the golden requests, in the native step where both bundles "
        "have one, whatever else the machine does (on a GPU the time until the answer)",
        limit="≤ `triton.max_latency_ratio` times that of the serving bundle, or 0.1 ms "
        "more (on a GPU 1 ms)",
        failure="a larger model or L; raise the limit if that is meant",
        function=f"{_PROMOTION}.validation:latency_gate",
    ),
)


def gates_of(phase: Phase) -> tuple[GateEntry, ...]:
    """Return the gates of ``phase``, in the order of the table."""
    return tuple(entry for entry in GATES if entry.phase is phase)
