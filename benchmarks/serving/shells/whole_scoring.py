"""Scores by a model that is one ONNX file: DIN.

For ``benchmarks/serving/serving.py``, in the place of
``triton_repo/serving/onnx_scorer.py``, which is called ``served_scoring`` there.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import served_scoring

from srp4ctr.features.bundles import bundle
from srp4ctr.triton_repo.model_names import CLICK_HEAD, MODEL_INPUTS

Tensors, CountPart = served_scoring.Tensors, served_scoring.CountPart


class Scorer:
    """Runs ``whole.onnx`` on one thread."""

    def __init__(
        self, folder: Path, _: int, count_part: Callable[[str, int, float], None]
    ) -> None:
        """Open the file in ``folder``."""
        sizes = bundle.read(folder).sizes
        self._score = served_scoring._Session(folder / "whole.onnx", MODEL_INPUTS, sizes)
        self._count_part = count_part

    def __call__(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return ``SCORE_TENSORS`` of B requests."""
        began = time.perf_counter()
        scores = self._score(tensors)
        self._count_part(
            CLICK_HEAD, len(tensors["context_rows"]), time.perf_counter() - began
        )
        return scores
