"""LightGBM on Trivago's lists, for comparison: LambdaRank, untuned, some twenty columns.

In: the file's rows, by time. Out: scores of the newest fifth of the click-outs. It reads
the file itself, not the log, and owes the product's columns nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.quality.one_line_rules.trivago import ACTIONS, CLICK_OUT
from srp4ctr.training.evaluation.evaluate import Scored

JUDGED_SHARE = 0.2
ROUNDS = 200
PARAMETERS: Mapping[str, Any] = {
    "objective": "lambdarank",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 50,
    "num_threads": 1,
    "deterministic": True,
    "verbose": -1,
}
ORDER_COLUMNS = ("order", "order_share", "places_from_last", "place_of_last")
_NEVER = -1.0
_NAMES: Mapping[str, str] = {**ACTIONS, CLICK_OUT: "click_outs"}


@dataclass(slots=True)
class _Visit:
    """What a visitor has done so far."""

    touches: dict[str, dict[str, int]] = field(default_factory=dict)
    """Hotel → action → how often."""
    touched: dict[str, int] = field(default_factory=dict)
    """Hotel → the step of its last touch: in the order of the last touches."""
    at_ms: dict[str, int] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        hotel, action = row["reference"], _NAMES[row["action_type"]]
        counts = self.touches.setdefault(hotel, {})
        counts[action] = counts.get(action, 0) + 1
        self.touched.pop(hotel, None)
        self.touched[hotel] = row["step"]
        self.at_ms[hotel] = row["timestamp"]


def candidates(rows: pd.DataFrame, user: str) -> pd.DataFrame:
    """Return a row of columns per hotel of each list, with request, user and clicked."""
    visits: dict[str, _Visit] = {}
    lists: list[pd.DataFrame] = []
    for row in rows.to_dict("records"):
        visit = visits.setdefault(row[user], _Visit())
        if row["action_type"] == CLICK_OUT:
            columns = pd.DataFrame(_columns(row, visit))
            lists.append(columns.assign(request=len(lists), user=row[user]))
        if row["action_type"] in _NAMES:
            visit.add(row)
    return pd.concat(lists, ignore_index=True)


def _columns(row: Mapping[str, Any], visit: _Visit) -> Iterator[dict[str, float]]:
    hotels = [str(each) for each in row["impressions"]]
    prices = np.asarray(row["prices"], dtype=np.float64)
    ranks = pd.Series(prices).rank().to_numpy()
    newest_first = list(reversed(visit.touched))
    last_place = next((hotels.index(h) for h in newest_first if h in hotels), None)
    for place, hotel in enumerate(hotels):
        counts = visit.touches.get(hotel, {})
        yield {
            "clicked": float(hotel == row["reference"]),
            "order": float(place),
            "order_share": place / len(hotels),
            "price": prices[place],
            "price_rank": ranks[place] / len(hotels),
            "price_difference": prices[place] - prices.mean(),
            "list": float(len(hotels)),
            **{name: float(counts.get(name, 0)) for name in _NAMES.values()},
            "touches": float(sum(counts.values())),
            "is_last": float(newest_first[:1] == [hotel]),
            "recency": _rank(newest_first, hotel),
            "steps_ago": float(row["step"] - visit.touched.get(hotel, row["step"])),
            "seconds_ago": float(row["timestamp"] - visit.at_ms.get(hotel, 0)),
            "place_of_last": _NEVER if last_place is None else float(last_place),
            "places_from_last": np.nan if last_place is None else float(place - last_place),
            "step": float(row["step"]),
        }


def _rank(newest_first: list[str], hotel: str) -> float:
    return float(newest_first.index(hotel)) if hotel in newest_first else 999.0


def scores(table: pd.DataFrame, *, with_order: bool) -> Scored:
    """Return what trees that learned from older lists make of the newest fifth."""
    named = ("clicked", "request", "user", *(() if with_order else ORDER_COLUMNS))
    columns = [each for each in table.columns if each not in named]
    lists = int(table["request"].max()) + 1
    first = lists - int(lists * JUDGED_SHARE)
    older = table[table["request"] < first]
    groups = older.groupby("request").size().to_numpy()
    data = lightgbm.Dataset(older[columns], older["clicked"], group=groups)
    booster = lightgbm.train(dict(PARAMETERS), data, num_boost_round=ROUNDS)
    newer = table[table["request"] >= first]
    predicted: NDArray[np.float64] = np.asarray(booster.predict(newer[columns]))
    return Scored(
        clicked=newer["clicked"].to_numpy(),
        probabilities=predicted,
        ranking=predicted,
        requests=newer["request"].to_numpy(),
        users=pd.factorize(newer["user"])[0],
    )
