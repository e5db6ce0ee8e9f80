"""Scores by a model that is one ONNX file: DIN, or trees.

For ``benchmarks/serving/serving.py``, in the place of
``triton_repo/serving/onnx_scorer.py``, which is called ``served_scoring`` there.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import served_scoring

from srp4ctr.triton_repo.model_names import CLICK_HEAD

Tensors, CountPart = served_scoring.Tensors, served_scoring.CountPart
# What else the step takes from there.
OWN_TENSORS, check_tensors = served_scoring.OWN_TENSORS, served_scoring.check_tensors
PROBABILITY, RANKING = served_scoring.PROBABILITY, served_scoring.RANKING
SCORED, alike = served_scoring.SCORED, served_scoring.alike
Session = served_scoring.Session
first_behavior = served_scoring.first_behavior
_LEAST = np.float32(1e-7)  # of a probability whose log-odds are taken


class Scorer:
    """Runs ``whole.onnx`` on one thread."""

    def __init__(
        self, folder: Path, _: int, count_part: Callable[[str, int, float], None]
    ) -> None:
        """Open the file in ``folder``."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(str(folder / "whole.onnx"), options)
        self._inputs = [tensor.name for tensor in session.get_inputs()]
        self._outputs = [tensor.name for tensor in session.get_outputs()]
        self._run, self._count_part = session.run, count_part

    def __call__(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return ``SCORE_TENSORS`` of B requests; ranking scores are their log-odds."""
        began = time.perf_counter()
        scores = self._run(self._outputs, {name: tensors[name] for name in self._inputs})
        self._count_part(
            CLICK_HEAD, len(tensors["candidate_features"]), time.perf_counter() - began
        )
        made = dict(zip(self._outputs, scores, strict=True))
        clipped = np.clip(made[PROBABILITY], _LEAST, 1.0 - _LEAST)
        return {**made, RANKING: np.log(clipped / (1.0 - clipped))}
