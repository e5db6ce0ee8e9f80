"""Scores of a model and of rules on the same requests → rows with paired intervals.

gAUC is the mean AUC of the requests that have both a click and a non-click, each with the
same weight; where every request has one item, the AUC of all impressions. CTR at 1 is the
share of requests whose top item was clicked: items that share the top count in part. An
interval is of 95 % over users, of the model less the rule; of several seeds, their mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.training.evaluation import metrics
from srp4ctr.training.evaluation.evaluate import Scored
from srp4ctr.training.evaluation.metrics import Difference

Floats = NDArray[np.float64]
GAUC, AUC, CTR = "gAUC", "AUC", "CTR at 1"
SURE = 1.96  # standard errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The model's figure less that of a rule, 95 % over users."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One metric of a rule, beside the model's."""

    metric: str
    rule: str
    value: float
    model: float
    difference: Interval


def figures(models: Sequence[Scored], rules: Mapping[str, Floats]) -> list[Figure]:
    """Return each metric of each of ``rules``: name → scores (M,), as the models' (M,)."""
    has_one_item = len(np.unique(models[0].requests)) == len(models[0].requests)
    measures = [_Auc()] if has_one_item else [_Gauc(), _Ctr()]
    return [
        _figure(measure, name, scores, models)
        for measure in measures
        for name, scores in rules.items()
    ]


def best(rows: Sequence[Figure], metric: str) -> Figure:
    """Return the figure of the best rule by ``metric``."""
    return max((row for row in rows if row.metric == metric), key=lambda row: row.value)


def interval(differences: Sequence[Difference]) -> Interval:
    """Return the interval around the mean of seeds' ``differences``."""
    value = float(np.mean([each.value for each in differences]))
    spread = SURE * float(np.mean([each.standard_error for each in differences]))
    return Interval(value=value, low=value - spread, high=value + spread)


def shown(rows: Sequence[Figure]) -> list[dict[str, Any]]:
    """Return the rows of a table: the model of each metric, then its rules."""
    table: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda each: (each.metric, -each.value)):
        if not table or table[-1]["metric"] != row.metric:
            table.append({"metric": row.metric, "who": "the model", "value": row.model})
        difference = row.difference
        table.append(
            {
                "metric": row.metric,
                "who": row.rule,
                "value": row.value,
                "less": difference.value,
                "interval": f"{difference.low:+.4f} to {difference.high:+.4f}",
            }
        )
    return table


class _Gauc:
    name = GAUC

    def of(self, judged: Scored, scores: Floats) -> Floats:
        """Return the figure of each request; NaN where it is undefined."""
        return metrics.group_aucs(judged.clicked, scores, judged.requests)

    def value(self, judged: Scored, scores: Floats) -> float:
        return float(np.nanmean(self.of(judged, scores)))

    def difference(self, judged: Scored, model: Floats, rule: Floats) -> Difference:
        one, other = self.of(judged, model), self.of(judged, rule)
        defined = np.isfinite(one)
        _, first = np.unique(judged.requests, return_index=True)
        users = judged.users[first[defined]]
        return metrics.mean_difference(one[defined], other[defined], users)


class _Ctr(_Gauc):
    name = CTR

    def of(self, judged: Scored, scores: Floats) -> Floats:
        return top_clicks(judged.clicked, scores, judged.requests)


class _Auc(_Gauc):
    name = AUC

    def value(self, judged: Scored, scores: Floats) -> float:
        return metrics.auc(judged.clicked, scores)

    def difference(self, judged: Scored, model: Floats, rule: Floats) -> Difference:
        return metrics.auc_difference(judged.clicked, model, rule, judged.users)


def top_clicks(
    clicked: Floats, scores: Floats, requests: NDArray[np.int64]
) -> Floats:
    """Return of each request, ascending, the clicked share of the items on top.

    NaN for a request without a click.
    """
    _, request = np.unique(requests, return_inverse=True)
    tops = np.full(request.max() + 1, -np.inf)
    np.maximum.at(tops, request, scores)
    is_top = scores == tops[request]
    share = np.bincount(request, weights=clicked * is_top)
    share /= np.bincount(request, weights=is_top)
    share[np.bincount(request, weights=clicked) == 0] = np.nan
    return share


def _figure(
    measure: _Gauc, rule: str, scores: Floats, models: Sequence[Scored]
) -> Figure:
    # An AUC over all impressions compares probabilities; a request's order is the ranking.
    by_model = [
        each.probabilities if isinstance(measure, _Auc) else each.ranking
        for each in models
    ]
    pairs = list(zip(models, by_model, strict=True))
    return Figure(
        metric=measure.name,
        rule=rule,
        value=measure.value(models[0], scores),
        model=float(np.mean([measure.value(judged, own) for judged, own in pairs])),
        difference=interval([measure.difference(j, own, scores) for j, own in pairs]),
    )
