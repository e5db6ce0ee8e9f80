"""LightGBM on the same columns, with the item and the context as categories.

In: slates. Out: a booster, stopped early by the calibrating slates' log loss. With the
objective ``lambdarank`` it learns each slate's order, as the slate loss does elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.clicks.click_examples import Part
from srp4ctr.features.tensors import vocabulary

MAX_ROUNDS, PATIENCE = 1000, 50
# Untuned but for what the variant's grid names: what one would begin with.
PARAMETERS: Mapping[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 50,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.8,
    "num_threads": 1,
    "deterministic": True,
    "verbose": -1,
}
_Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """How slates become a table; from the training slates' contexts."""

    contexts: Mapping[str, Mapping[str, float]]
    """Of each context field its values' numbers, or none where all are numbers."""
    with_items: bool

    @property
    def categories(self) -> list[int]:
        """The columns that are categories, counted from the last."""
        names = [*self.contexts.values()]
        found = [-len(names) + i for i, values in enumerate(names) if values]
        return [-len(names) - 1, *found] if self.with_items else found

    def table(self, part: Part) -> _Floats:
        """Return a row per shown candidate."""
        slates, shown = part.slates, part.slates.shown
        request = np.nonzero(shown)[0]
        columns = [slates.tensors["request_features"][request]]
        columns += [slates.tensors["candidate_features"][shown]]
        if self.with_items:
            columns += [slates.tensors["candidate_item_rows"][shown][:, None]]
        fields = [self._context(text) for text in part.contexts]
        columns += [np.array(fields, dtype=np.float32).reshape(len(part), -1)[request]]
        return np.concatenate(columns, axis=1).astype(np.float32)

    def _context(self, text: str) -> list[float]:
        context = vocabulary.parse_context(text)
        return [
            _number(context.get(name, ""), values) for name, values in self.contexts.items()
        ]


def columns_of(part: Part, with_items: bool) -> Columns:
    """Return the columns that ``part`` has; a field of only numbers stays a number."""
    values: dict[str, set[str]] = {}
    for text in set(part.contexts.tolist()):
        for name, value in vocabulary.parse_context(text).items():
            values.setdefault(name, set()).add(value)
    numbered = {
        name: {} if _all_numbers(found) else _numbered(found)
        for name, found in sorted(values.items())
    }
    return Columns(contexts=numbered, with_items=with_items)


def learn(
    train: Part, stop: Part, columns: Columns, changes: Mapping[str, Any]
) -> lightgbm.Booster:
    """Return the booster of ``train``, with the rounds that serve ``stop`` best."""
    parameters = {**PARAMETERS, **changes}
    is_ranking = parameters["objective"] == "lambdarank"
    parameters["metric"] = "ndcg" if is_ranking else "binary_logloss"
    sets = [_dataset(part, columns) for part in (train, stop)]
    return lightgbm.train(
        parameters,
        sets[0],
        num_boost_round=MAX_ROUNDS,
        valid_sets=[sets[1]],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )


def logits(booster: lightgbm.Booster, columns: Columns, part: Part) -> _Floats:
    """Return raw scores (R, N) of ``part``; 0 where nothing is shown."""
    scores = np.zeros(part.slates.clicked.shape, dtype=np.float32)
    found = booster.predict(columns.table(part), raw_score=True, num_threads=1)
    scores[part.slates.shown] = np.asarray(found)
    return scores


def _dataset(part: Part, columns: Columns) -> lightgbm.Dataset:
    table = columns.table(part)
    width = table.shape[1]
    return lightgbm.Dataset(
        table,
        part.slates.clicked[part.slates.shown],
        group=part.slates.shown.sum(axis=1),
        categorical_feature=[width + place for place in columns.categories],
    )


def _all_numbers(values: set[str]) -> bool:
    try:
        return bool(np.isfinite([float(value) for value in values]).all())
    except ValueError:
        return False


def _numbered(values: Sequence[str] | set[str]) -> dict[str, float]:
    return {value: float(number) for number, value in enumerate(sorted(values))}


def _number(value: str, numbers: Mapping[str, float]) -> float:
    """Return the number of ``value``; what training never met is missing."""
    if numbers:
        return numbers.get(value, float("nan"))
    try:
        return float(value)
    except ValueError:
        return float("nan")
