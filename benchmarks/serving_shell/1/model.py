"""A request's tensors → probabilities in one step: encoder and head one after the other.

For ``benchmarks/serving.py``: what the hop between the two steps costs, and, *tiled*, what
the request would cost if the history were encoded anew for each candidate.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

CANDIDATE = "candidate_"  # how the names of what is a candidate's begin


class TritonPythonModel:
    """Runs ``encoder.onnx`` and ``head.onnx`` of its version folder on one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load both files."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.tiled = parameters["tiled"]["string_value"] == "1"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        folder = Path(args["model_repository"]) / args["model_version"]
        self.encoder, self.head = (
            onnxruntime.InferenceSession(str(folder / file), options)
            for file in ("encoder.onnx", "head.onnx")
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; Triton wants exactly one response per request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        shape = given["candidate_item_rows"].shape
        if self.tiled:
            given = {name: _tiled(name, array, *shape) for name, array in given.items()}
        given |= _run(self.encoder, given)
        scores = _run(self.head, given)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, each.reshape(shape)) for name, each in scores.items()]
        )


def _tiled(name: str, array: np.ndarray, rows: int, candidates: int) -> np.ndarray:
    """Return a row for each candidate."""
    if name.startswith(CANDIDATE):
        return array.reshape(rows * candidates, 1, *array.shape[2:])
    return np.repeat(array, candidates, axis=0)


def _run(
    session: onnxruntime.InferenceSession, given: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    names = [tensor.name for tensor in session.get_outputs()]
    fed = {tensor.name: given[tensor.name] for tensor in session.get_inputs()}
    return dict(zip(names, session.run(names, fed), strict=True))
