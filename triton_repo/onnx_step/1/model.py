"""Tensors → tensors of one ONNX file: the encoder or the head, where Triton has no backend.

Rendered into both steps; which one it is, the file's own inputs and outputs say.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

CANDIDATES = "candidate_item_rows"


class TritonPythonModel:
    """Runs ``model.onnx`` of its version folder on one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the file; Triton reports what this raises as the reason of a failed load."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.max_candidates = int(parameters["max_candidates"]["string_value"])
        options = onnxruntime.SessionOptions()
        # Measured: two threads a step are slower, and spinning steals the next step's core.
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [tensor.name for tensor in self.session.get_inputs()]
        self.outputs = [tensor.name for tensor in self.session.get_outputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; Triton wants exactly one response per request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        feeds = {
            name: pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            for name in self.inputs
        }
        try:
            self._check_candidates(feeds)
            results = self.session.run(self.outputs, feeds)
        except Exception as error:  # a row outside the tables is the caller's mistake
            refusal = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=refusal)
        named = zip(self.outputs, results, strict=True)
        return pb_utils.InferenceResponse([pb_utils.Tensor(n, r) for n, r in named])

    def _check_candidates(self, feeds: dict[str, np.ndarray]) -> None:
        """Raise ValueError where a caller sends no candidates or too many."""
        count = feeds[CANDIDATES].shape[1] if CANDIDATES in feeds else 1
        if not 1 <= count <= self.max_candidates:
            raise ValueError(f"{count} candidates; send 1 to {self.max_candidates}")
