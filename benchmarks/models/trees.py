"""LightGBM on the same columns, with context and attributes as categories.

In: slates. Out: a booster, stopped early by the calibrating slates' log loss. With the
objective ``lambdarank`` it learns each slate's order, as the slate loss does elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.models.history_columns import HistoryColumns
from benchmarks.quality.clicks.click_examples import Part
from srp4ctr.features.tensors import vocabulary

MAX_ROUNDS, PATIENCE = 1000, 50
# Untuned: what one would begin with.
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
ATTRIBUTES = ("candidate_attribute_rows", "user_attribute_rows")
_Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """How slates become a table; from the training slates' contexts."""

    contexts: Mapping[str, pd.CategoricalDtype | None]
    """Of each context field its values, None where all are numbers."""
    attributes: Mapping[tuple[str, int], pd.CategoricalDtype] = field(default_factory=dict)
    """Of each slot of ``ATTRIBUTES`` that has several values in training, those."""
    histories: HistoryColumns | None = None
    """What histories say; None: trees without them."""

    def table(self, part: Part) -> pd.DataFrame:
        """Return a row per shown candidate; a value that training never met is missing."""
        request = np.nonzero(part.slates.shown)[0]
        table = pd.DataFrame(part.columns)
        fields = _fields(part).reindex(columns=[*self.contexts])
        for name, kind in self.contexts.items():
            values = fields[name].iloc[request].reset_index(drop=True)
            if kind is None:
                table[name] = pd.to_numeric(values, errors="coerce")
            else:
                table[name] = values.astype(kind)
        for (name, slot), kind in self.attributes.items():
            values = pd.Series(_slots(part, name)[:, slot])
            table[f"{name} {slot}"] = values.astype(kind)
        if self.histories is not None:
            table = pd.concat([table, pd.DataFrame(self.histories.of(part))], axis=1)
        return table.set_axis([str(n) for n in range(table.shape[1])], axis=1)


def columns_of(part: Part, histories: HistoryColumns | None = None) -> Columns:
    """Return the columns that ``part`` has; a field of only numbers stays a number."""
    fields, kinds = _fields(part), dict[str, pd.CategoricalDtype | None]()
    for name in sorted(fields):
        values = fields[name].dropna()
        is_number = np.isfinite(pd.to_numeric(values, errors="coerce")).all()
        kinds[name] = None if is_number else pd.CategoricalDtype(sorted(values.unique()))
    attributes = {
        (name, slot): pd.CategoricalDtype(known)
        for name in ATTRIBUTES
        for slot, rows in enumerate(_slots(part, name).T)
        if len(known := np.unique(rows)) > 1
    }
    return Columns(contexts=kinds, attributes=attributes, histories=histories)


def _slots(part: Part, name: str) -> NDArray[np.int64]:
    """Return the attribute rows of each shown candidate, or of its user (M, slots)."""
    shown, tensors = part.slates.shown, part.slates.tensors
    if name.startswith("candidate_"):
        return np.asarray(tensors[name][shown])
    rows = tensors.get(name, np.zeros((len(part), 0), dtype=np.int64))
    return np.asarray(rows[np.nonzero(shown)[0]])


def _fields(part: Part) -> pd.DataFrame:
    return pd.DataFrame([vocabulary.parse_context(text) for text in part.contexts])


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
    group = part.slates.shown.sum(axis=1)
    return lightgbm.Dataset(columns.table(part), part.clicked, group=group)
