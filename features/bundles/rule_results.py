"""One-line rules and a model: what the report of a bundle says of each.

Training computes them on the judged requests (``training/evaluation/rules.py``); the
refresh report keeps them. Standard library only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

GATE = "rule_of_thumb"
"""The gate that holds a bundle to the best rule: among training's, on the card."""
LESS_BEST_RULE = "less_best_rule"
"""Among a bundle's metrics."""
HIT = "Hit@10"
"""The metric where negatives are sampled, over the whole catalogue."""
SERVE_A_RULE = "docs/callers.md#serve-a-rule-of-thumb"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A metric of the model less that of a rule, paired by user; None: undefined."""

    value: float | None = None
    low: float | None = None
    """``low`` to ``high`` is the 95 % interval over users."""
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "–"
        if self.low is None or self.high is None:
            return f"{self.value:+.4f} (of one user)"
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"

    @property
    def is_worse(self) -> bool:
        """Whether the model is worse: the whole interval is below zero."""
        return self.high is not None and self.high < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleResult:
    """One rule and the model, on the same judged requests."""

    rule: str
    """As ``popular_2h``."""
    meaning: str
    """The rule as a noun: "the clicks of the last two hours"."""
    requests: int
    """How many requests it was judged on: the shown order is not on those of a model."""
    metric: str = "gAUC"
    """What ``gauc`` is: AUC where each request has one item, and Hit@10 over the whole
    catalogue where negatives are sampled."""
    gauc: float | None = None
    model_gauc: float | None = None
    gauc_difference: Contrast = Contrast()
    ctr_at_1: float | None = None
    model_ctr_at_1: float | None = None
    ctr_difference: Contrast = Contrast()
    gates: bool = True
    """Whether the gate ``rule_of_thumb`` holds the model to it."""
    gate_high: float | None = None
    """The upper end of the interval of ``gauc_difference``, corrected for the number of
    rules that gate."""

    @property
    def wins(self) -> bool:
        """Whether the gate takes the model as worse than this rule."""
        return self.gates and self.gate_high is not None and self.gate_high < 0


def best_first(results: Sequence[RuleResult]) -> list[RuleResult]:
    """Return ``results``, the rule first to which the model loses most."""

    def lead(result: RuleResult) -> float:
        value = result.gauc_difference.value
        return math.inf if value is None else value

    return sorted(results, key=lead)


def metrics(results: Sequence[RuleResult]) -> dict[str, float]:
    """Return the model's ``metric`` less that of the best rule, for the bundle's card.

    Nothing where no rule was judged.
    """
    values = [each.gauc_difference.value for each in best_first(results)]
    if not values or values[0] is None:
        return {}
    return {LESS_BEST_RULE: values[0]}


def notes(results: Sequence[RuleResult]) -> tuple[str, ...]:
    """Return a sentence for each metric by which a rule is better than the model.

    By the 95 % interval of the best such rule, whether it gates or not.
    """
    sentences = []
    for metric, name in (("gAUC", "gauc_difference"), ("CTR at 1", "ctr_difference")):
        worse = [result for result in results if getattr(result, name).is_worse]
        if worse:
            best = min(worse, key=lambda each: getattr(each, name).value)
            metric = best.metric if metric == "gAUC" else metric
            sentences.append(
                f"the rule {best.rule} ({best.meaning}) is better than the model by "
                f"{metric}: {getattr(best, name)}; how to serve it meanwhile: "
                f"{SERVE_A_RULE}"
            )
    return tuple(sentences)
