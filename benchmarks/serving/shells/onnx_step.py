"""Tensors → tensors of one ONNX file: a Triton step that stands for Triton's own backend.

For ``benchmarks/serving/serving.py``, where there is no such backend: what three steps
cost.
"""

from pathlib import Path
from typing import Any

import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Runs ``model.onnx`` of its version folder on one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the file."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(path), options)
        self.outputs = [tensor.name for tensor in self.session.get_outputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; Triton wants exactly one response per request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        feeds = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        made = zip(self.outputs, self.session.run(self.outputs, feeds), strict=True)
        return pb_utils.InferenceResponse([pb_utils.Tensor(*each) for each in made])
