"""One-line rules on the judged requests, and the model: what it has to beat.

In: the judged slates, and per candidate what the slates do not say (clicks by window, what
the user did with it, when it was first seen). Out: scores of each rule that the log allows,
compared with the model by paired intervals over users, and the gate ``rule_of_thumb``.

A rule sees the events that the features see: those visible before the request's time, and
of the user's own the last L. Ties stay ties: they count one half in an AUC, and CTR at 1
averages over items that share the top.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.bundles.gates import Gate, failed, finite, skipped
from srp4ctr.features.bundles.rule_results import (
    GATE,
    SERVE_A_RULE,
    Contrast,
    RuleResult,
    best_first,
)
from srp4ctr.training.dataset.batches import Slates
from srp4ctr.training.evaluation import quality
from srp4ctr.training.evaluation.evaluate import Scored
from srp4ctr.training.evaluation.quality import Difference

Floats = NDArray[np.float64]
Int64s = NDArray[np.int64]
ORDER, PRICE = "order", "price"
"""Declared numbers of a candidate that a rule is made of."""
_ORDERED_PAIRS = 0.95  # of neighbours: the number orders items as they were shown
_ONE_ITEM_SHARE = 0.95
_UNTOUCHED = -1e18  # below every age in milliseconds, with a sign
_HELP = (
    "What usually helps: a column that the log lacks (a price, the caller's order, items' "
    "attributes), or more data"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RuleInputs:
    """Of R judged slates of up to N candidates: what rules need and slates do not have."""

    clicks_2h: Int64s  # (R, N)
    """Clicks of all users on the item in the two hours before the request."""
    clicks_24h: Int64s  # (R, N)
    clicks_all: Int64s  # (R, N)
    touched_ms: Int64s  # (R, N)
    """When the request's user last acted on the item; 0: not among the last L actions."""
    touches: Int64s  # (R, N)
    """How many of the user's last L actions were on the item."""
    first_seen_ms: Int64s  # (R, N)
    """When the item was first shown or clicked; 0: never before."""
    ranked: NDArray[np.bool_]  # (R,)
    """Whether a model ordered the request: an impression of it has a model_version."""

    def take(self, rows: slice) -> "RuleInputs":
        """Return those of the slates ``rows``."""
        return replace(self, **{n: getattr(self, n)[rows] for n in INPUTS})


INPUTS = tuple(field.name for field in fields(RuleInputs))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rule:
    """A rule's scores of the judged slates, higher first."""

    name: str
    meaning: str
    scores: Floats  # (R, N)
    slates: NDArray[np.bool_]  # (R,)
    """Which slates it is judged on."""
    gates: bool = True


def rules_of(
    slates: Slates, inputs: RuleInputs, numbers: Mapping[str, Floats] | None = None
) -> tuple[Rule, ...]:
    """Return each rule that says something of ``slates``.

    ``numbers`` are the declared numbers of the candidates (R, N), by name; NaN: missing.
    """
    made = (
        *_popularity(inputs),
        *_of_the_user(slates, inputs),
        *_in_order(slates, inputs, numbers or {}),
        *_of_the_item(slates, inputs, numbers or {}),
    )
    return tuple(rule for rule in made if _ranks(rule, slates.shown))


def numbers_of(slates: Slates, names: Sequence[str]) -> dict[str, Floats]:
    """Return the declared numbers of the candidates (R, N), by name; NaN: missing.

    ``names`` are those of the columns of ``candidate_features``: a number has one of its
    name, and one that says where it is missing.
    """
    features = slates.tensors["candidate_features"]
    found = {}
    for name in names:
        if (missing := f"{name}_missing") in names:
            values = features[..., names.index(name)].astype(np.float64)
            is_missing = features[..., names.index(missing)] != 0
            found[name] = np.where(is_missing, np.nan, values)
    return found


def _all(slates: NDArray[np.generic]) -> NDArray[np.bool_]:
    return np.ones(len(slates), dtype=np.bool_)


def _popularity(inputs: RuleInputs) -> Iterator[Rule]:
    for name, meaning in (
        ("2h", "clicks of the last two hours"),
        ("24h", "clicks of the last day"),
        ("all", "clicks of all time"),
    ):
        counts = getattr(inputs, f"clicks_{name}").astype(np.float64)
        yield Rule(
            name=f"popular_{name}", meaning=meaning, scores=counts, slates=_all(counts)
        )


def _of_the_user(slates: Slates, inputs: RuleInputs) -> Iterator[Rule]:
    yield Rule(
        name="touched_last",
        meaning="what the user acted on last",
        scores=_recency(slates, inputs),
        slates=_all(inputs.ranked),
    )
    yield Rule(
        name="touched_most",
        meaning="what the user acted on most often",
        scores=inputs.touches.astype(np.float64),
        slates=_all(inputs.ranked),
    )


def _recency(slates: Slates, inputs: RuleInputs) -> Floats:
    """Return how long ago each item was touched, negated: comparable across requests."""
    ago = np.asarray(inputs.touched_ms) - np.asarray(slates.request_at_ms)[:, None]
    recency: Floats = np.where(inputs.touched_ms > 0, ago, _UNTOUCHED).astype(np.float64)
    return recency


def _in_order(
    slates: Slates, inputs: RuleInputs, numbers: Mapping[str, Floats]
) -> Iterator[Rule]:
    """Yield the caller's order, and what was touched, then that order.

    A declared number is the order; without one, the positions of requests that no model
    ordered, which a model does not read: that order gates nothing.
    """
    by_caller = ~np.asarray(inputs.ranked)
    if not by_caller.any() or slates.shown.shape[1] < 2:
        return
    name, order = _order(slates, by_caller, numbers)
    meaning = f"the caller's order ({name})" if name else "the order in which it was shown"
    yield Rule(
        name="callers_order" if name else "shown_order",
        meaning=meaning,
        scores=order,
        slates=by_caller,
        gates=bool(name),
    )
    if not np.any(inputs.touched_ms[by_caller]):
        return  # it would be the order again
    yield Rule(
        name="touched_then_order",
        meaning=f"what the user acted on last, then {meaning}",
        scores=_then(_recency(slates, inputs), order),
        slates=by_caller,
        gates=bool(name),
    )


def _order(
    slates: Slates, by_caller: NDArray[np.bool_], numbers: Mapping[str, Floats]
) -> tuple[str, Floats]:
    """Return the declared number that is the caller's order, and scores by it.

    The one named ``order``, else the one by which at least 95 % of neighbours stand in the
    slates ``by_caller``; "" and the positions where there is none. A number that falls with
    the position, a score of the caller's, is an order too.
    """
    shares = {name: _risen(slates, by_caller, values) for name, values in numbers.items()}
    name = max(shares, key=lambda each: abs(shares[each] - 0.5), default="")
    if ORDER in shares:
        name = ORDER
    elif name and max(shares[name], 1 - shares[name]) < _ORDERED_PAIRS:
        name = ""
    if not name:
        return "", -slates.positions.astype(np.float64)
    rises = shares[name] >= 0.5
    return name, -_filled(numbers[name] if rises else -numbers[name])


def _risen(slates: Slates, by_caller: NDArray[np.bool_], values: Floats) -> float:
    """Return for which share of neighbours a number rises; equal ones count one half."""
    positions = np.asarray(slates.positions[by_caller], dtype=np.float64)
    places = np.where(slates.shown[by_caller], positions, np.nan)
    in_place = np.argsort(places, axis=1, kind="stable")  # NaN, padding, comes last
    ordered = np.take_along_axis(values[by_caller], in_place, axis=1)
    has_next = np.isfinite(np.take_along_axis(places, in_place, axis=1)[:, 1:])
    steps = np.diff(ordered, axis=1)[has_next]
    if not len(steps):
        return 0.5
    # A missing number is at neither side.
    return float(np.mean((np.sign(np.nan_to_num(steps)) + 1) / 2))


def _of_the_item(
    slates: Slates, inputs: RuleInputs, numbers: Mapping[str, Floats]
) -> Iterator[Rule]:
    if PRICE in numbers:
        yield Rule(
            name="cheapest",
            meaning="the lowest price",
            scores=-_filled(numbers[PRICE]),
            slates=_all(inputs.ranked),
        )
    # An item that no user has seen before is the newest.
    at_ms = np.asarray(slates.request_at_ms)[:, None]
    first_ms = np.where(inputs.first_seen_ms > 0, inputs.first_seen_ms, at_ms)
    yield Rule(
        name="newest",
        meaning="the item that was first seen last",
        scores=(first_ms - at_ms).astype(np.float64),
        slates=_all(inputs.ranked),
    )


def _filled(numbers: Floats) -> Floats:
    """Return ``numbers`` with missing ones last in ascending order, equal."""
    last = float(np.nanmax(numbers, initial=0.0)) + 1.0
    return np.where(np.isnan(numbers), last, numbers)


def _then(first: Floats, second: Floats) -> Floats:
    """Return places by ``first`` and, where it ties, by ``second``; both tied tie."""
    pairs = np.stack([first.ravel(), second.ravel()], axis=1)
    _, place = np.unique(pairs, axis=0, return_inverse=True)
    return place.reshape(first.shape).astype(np.float64)


def _ranks(rule: Rule, shown: NDArray[np.bool_]) -> bool:
    """Return whether the rule has two scores in a slate, or with one item each at all."""
    rows = rule.slates
    low = np.where(shown[rows], rule.scores[rows], np.inf)
    high = np.where(shown[rows], rule.scores[rows], -np.inf)
    if _has_one_item(shown):
        return bool(low.min(initial=np.inf) < high.max(initial=-np.inf))
    lows, highs = low.min(axis=1, initial=np.inf), high.max(axis=1, initial=-np.inf)
    return bool((lows < highs).any())


def _has_one_item(shown: NDArray[np.bool_]) -> bool:
    """Return whether nearly all requests have one item, as in a feed.

    A few impressions that share a millisecond are one request of a log without request
    ids: their order alone would say nothing.
    """
    alone = np.count_nonzero(shown.sum(axis=1) <= 1)
    return bool(alone >= _ONE_ITEM_SHARE * len(shown))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pair:
    """A model's and a rule's scores of the same impressions."""

    judged: Scored
    model: Floats
    rule: Floats
    has_one_item: bool
    """Each request has: then all impressions are compared with one another."""

    def gauc(self, scores: Floats) -> float:
        clicked, requests = self.judged.clicked, self.judged.requests
        if self.has_one_item:
            return quality.auc(clicked, scores)
        return quality.gauc(clicked, scores, requests)

    def gauc_difference(self) -> Difference:
        both, judged = (self.model, self.rule), self.judged
        if self.has_one_item:
            return quality.auc_difference(judged.clicked, *both, judged.users)
        return quality.gauc_difference(judged.clicked, *both, judged.requests, judged.users)

    def ctr_at_1(self, scores: Floats) -> float:
        if self.has_one_item:  # it is on top, whatever the score
            return float("nan")
        return quality.ctr_at_1(self.judged.clicked, scores, self.judged.requests)

    def ctr_difference(self) -> Difference:
        judged = self.judged
        if self.has_one_item:
            return Difference(value=float("nan"), standard_error=float("nan"))
        return quality.ctr_at_1_difference(
            judged.clicked, self.model, self.rule, judged.requests, judged.users
        )


def compare(
    rules: Sequence[Rule], shown: NDArray[np.bool_], judged: Scored
) -> tuple[RuleResult, ...]:
    """Return each rule and the model, of whose ``shown`` (R, N) ``judged`` has scores.

    The rule first to which the model loses most.
    """
    gating = sum(rule.gates for rule in rules)
    results = [_result(rule, _pair(rule, shown, judged), gating) for rule in rules]
    return tuple(best_first(results))


def _pair(rule: Rule, shown: NDArray[np.bool_], judged: Scored) -> _Pair:
    used = rule.slates[judged.requests]
    kept = {field.name: getattr(judged, field.name)[used] for field in fields(Scored)}
    has_one_item = _has_one_item(shown)
    model = judged.probabilities if has_one_item else judged.ranking
    return _Pair(
        judged=Scored(**kept),
        model=model[used],
        rule=rule.scores[shown][used],
        has_one_item=has_one_item,
    )


def _result(rule: Rule, pair: _Pair, gating: int) -> RuleResult:
    difference = pair.gauc_difference()
    high = difference.value + difference.spread(gating) if rule.gates else float("nan")
    return RuleResult(
        rule=rule.name,
        meaning=rule.meaning,
        requests=len(np.unique(pair.judged.requests)),
        metric="AUC" if pair.has_one_item else "gAUC",
        gauc=finite(pair.gauc(pair.rule)),
        model_gauc=finite(pair.gauc(pair.model)),
        gauc_difference=_contrast(difference),
        ctr_at_1=finite(pair.ctr_at_1(pair.rule)),
        model_ctr_at_1=finite(pair.ctr_at_1(pair.model)),
        ctr_difference=_contrast(pair.ctr_difference()),
        gates=rule.gates,
        gate_high=finite(high),
    )


def _contrast(difference: Difference) -> Contrast:
    value, spread = difference.value, difference.spread()
    return Contrast(
        value=finite(value), low=finite(value - spread), high=finite(value + spread)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """The bundle that serves, on the same requests."""

    version: str
    results: Sequence[RuleResult]
    gates: Sequence[Gate]
    """Of the new bundle against it."""


def gate(
    version: str, results: Sequence[RuleResult], champion: Champion | None = None
) -> Gate:
    """Return whether bundle ``version`` is no worse than the best rule.

    Worse: the whole paired 95 % interval of gAUC over users, model less rule, is below
    zero. With K rules that gate, each has the interval of 1 - 0.05 / K (Bonferroni), so
    that a model as good as the best rule is refused in at most 2.5 % of the cases. Where
    the ``champion`` is also worse than the rule that wins, a bundle that failed no gate
    against it passes with a warning: what serves is no better.
    """
    measured = [
        result for result in results if result.gates and result.gate_high is not None
    ]
    if not measured:
        return skipped(GATE, _unmeasured(results))
    number = sum(result.gates for result in results)
    lost = [each for each in measured if each.wins]
    if not lost:
        best = measured[0]
        return _gate(best, passed=True, note=_comparison(best, number))
    winner = lost[0]
    note = f"{_comparison(winner, number)}. {_HELP}. To serve the rule meanwhile: "
    note += SERVE_A_RULE
    if champion is not None and _is_no_better(champion, winner):
        note = f"worse than a rule, as {champion.version}, which serves, is: {note}"
        return replace(_gate(winner, passed=True, note=note), warning=True)
    note += f". `srp4ctr model promote {version} --accept-worse` serves the model"
    return _gate(winner, passed=False, note=note)


def _gate(result: RuleResult, *, passed: bool, note: str) -> Gate:
    value, high = result.gauc_difference.value, result.gate_high
    assert value is not None
    assert high is not None
    return Gate(gate=GATE, passed=passed, value=value, limit=value - high, note=note)


def _comparison(result: RuleResult, rules: int) -> str:
    return (
        f"of {rules} rules {result.rule} ({result.meaning}) ranks best: "
        f"{result.metric} {result.gauc:.4f}, the model's {result.model_gauc:.4f}; the "
        f"difference {result.gauc_difference.value:+.4f} is at most "
        f"{result.gate_high:+.4f} (95 % over users, corrected for {rules} rules)"
    )


def _unmeasured(results: Sequence[RuleResult]) -> str:
    gating = [result for result in results if result.gates]
    if not gating:
        return "the judged requests allow no rule"
    if all(each.gauc_difference.value is None for each in gating):
        return "undefined: no judged request has both a click and a non-click"
    return "of one user: the margin of error is unknown"


def _is_no_better(champion: Champion, winner: RuleResult) -> bool:
    if failed(champion.gates):
        return False
    return any(result.rule == winner.rule and result.wins for result in champion.results)
