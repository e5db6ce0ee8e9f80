"""Scores of a model and of rules on the same requests → figures with paired intervals.

gAUC is the mean AUC of the requests that have both a click and a non-click, each with the
same weight; where nearly all requests have one item, the AUC of all impressions. CTR at 1
is the share of requests whose top item was clicked: items that share the top count in part.
An interval is of 95 % over users, of the model less the rule; of several seeds, their mean.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.training.evaluation import quality
from srp4ctr.training.evaluation.evaluate import Scored
from srp4ctr.training.evaluation.quality import Difference

Floats = NDArray[np.float64]
GAUC, AUC, CTR = "gAUC", "AUC", "CTR at 1"
FEED_SHARE = 0.95  # of requests with one item: a few of a feed share a millisecond


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The model's figure less that of a rule, 95 % over users."""

    value: float
    low: float
    high: float

    @classmethod
    def around(cls, differences: Sequence[Difference]) -> "Interval":
        """Return the interval around the mean of the ``differences`` of seeds."""
        value = float(np.mean([difference.value for difference in differences]))
        spread = float(np.mean([difference.spread() for difference in differences]))
        return cls(value=value, low=value - spread, high=value + spread)


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
    _, sizes = np.unique(models[0].requests, return_counts=True)
    is_feed = np.mean(sizes == 1) > FEED_SHARE
    return [
        _figure(metric, rule, models, scores)
        for metric in ((AUC,) if is_feed else (GAUC, CTR))
        for rule, scores in rules.items()
    ]


def of_hits(
    metric: str, rule: str, models: Sequence[Floats], hits: Floats, users: NDArray[Any]
) -> Figure:
    """Return the share of clicks found by a rule, ``hits`` (Q,), beside the ``models``."""
    differences = [quality.mean_difference(model, hits, users) for model in models]
    return Figure(
        metric=metric,
        rule=rule,
        value=float(hits.mean()),
        model=float(np.mean(models)),
        difference=Interval.around(differences),
    )


def best(rows: Sequence[Figure], metric: str) -> Figure:
    """Return the figure of the best rule by ``metric``."""
    return max((row for row in rows if row.metric == metric), key=lambda row: row.value)


def shown(rows: Sequence[Figure], metric: str) -> list[dict[str, Any]]:
    """Return the rows of a table by ``metric``: the model, then rules, the best first."""
    of_metric = sorted(
        (row for row in rows if row.metric == metric), key=lambda row: -row.value
    )
    table: list[dict[str, Any]] = [{"who": "the model", "value": of_metric[0].model}]
    for row in of_metric:
        apart = row.difference
        interval = f"{apart.low:+.4f} to {apart.high:+.4f}"
        table.append(
            {"who": row.rule, "value": row.value, "less": apart.value, "interval": interval}
        )
    return table


def value(metric: str, judged: Scored, scores: Floats) -> float:
    """Return the ``metric`` of the ``scores`` of what was judged."""
    if metric == AUC:
        return quality.auc(judged.clicked, scores)
    return float(np.nanmean(_by_request(metric, judged, scores)))


def difference(metric: str, judged: Scored, model: Floats, rule: Floats) -> Difference:
    """Return the ``metric`` of the scores ``model`` less that of the scores ``rule``."""
    if metric == AUC:
        return quality.auc_difference(judged.clicked, model, rule, judged.users)
    one, other = (_by_request(metric, judged, each) for each in (model, rule))
    defined = np.isfinite(one)
    _, first = np.unique(judged.requests, return_index=True)
    users = judged.users[first[defined]]
    return quality.mean_difference(one[defined], other[defined], users)


def _by_request(metric: str, judged: Scored, scores: Floats) -> Floats:
    """Return the ``metric`` of each request; NaN where it is undefined."""
    measure: Callable[..., Floats] = {
        GAUC: quality.group_aucs,
        CTR: quality.top_clicks,
    }[metric]
    return measure(judged.clicked, scores, judged.requests)


def _figure(metric: str, rule: str, models: Sequence[Scored], scores: Floats) -> Figure:
    pairs = [(model, model_scores(metric, model)) for model in models]
    apart = [difference(metric, judged, own, scores) for judged, own in pairs]
    return Figure(
        metric=metric,
        rule=rule,
        value=value(metric, models[0], scores),
        model=float(np.mean([value(metric, judged, own) for judged, own in pairs])),
        difference=Interval.around(apart),
    )


def model_scores(metric: str, judged: Scored) -> Floats:
    """Return a model's probabilities for an AUC, for requests what orders them."""
    return judged.probabilities if metric == AUC else judged.ranking
