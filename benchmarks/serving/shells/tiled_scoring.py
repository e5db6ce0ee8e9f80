"""Scores with the history encoded again for each candidate, as tiling the user does.

For ``benchmarks/serving/serving.py``, in the place of
``triton_repo/serving/onnx_scorer.py``, which is called ``served_scoring`` there.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import served_scoring

from srp4ctr.features.tensors.schema import RANKING_TENSORS, SCORE_TENSORS
from srp4ctr.triton_repo.model_names import CLICK_HEAD

Tensors, CountPart = served_scoring.Tensors, served_scoring.CountPart
# What else the step takes from there.
OWN_TENSORS, check_tensors = served_scoring.OWN_TENSORS, served_scoring.check_tensors
PROBABILITY, RANKING = served_scoring.PROBABILITY, served_scoring.RANKING
SCORED, alike = served_scoring.SCORED, served_scoring.alike
Session = served_scoring.Session
first_behavior = served_scoring.first_behavior
CANDIDATE = "candidate_"  # how the names of what is a candidate's begin


class Scorer(served_scoring.Scorer):
    """One row per candidate, all in one batch."""

    def __call__(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``SCORE_TENSORS`` and ``RANKING_TENSORS`` of B requests."""
        began, shape = time.perf_counter(), tensors["candidate_item_rows"].shape
        tiled = {name: _tiled(name, array, *shape) for name, array in tensors.items()}
        scores = self._score({**tiled, **self._encode(tiled)})
        self._count_part(CLICK_HEAD, shape[0], time.perf_counter() - began)
        names = [spec.name for spec in SCORE_TENSORS + RANKING_TENSORS]
        return {name: scores[name].reshape(shape) for name in names}


def _tiled(name: str, array: np.ndarray, rows: int, candidates: int) -> np.ndarray:
    """Return a row for each candidate."""
    if name.startswith(CANDIDATE):
        return array.reshape(rows * candidates, 1, *array.shape[2:])
    return np.repeat(array, candidates, axis=0)
