"""User and item ids → click probabilities: Triton's calls, answered by ``ranking.py``.

Rendered without the ONNX files it is the step ``fetch_features``, where Triton's own
backend runs the two others.
"""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from triton_repo import parts, ranking
from triton_repo.pbtxt import step_name


class TritonPythonModel:
    """Answers the calls of one bundle."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open store and files; Triton reports what this raises as why a load failed."""
        given = json.loads(args["model_config"])["parameters"]
        settings = {name: value["string_value"] for name, value in given.items()}
        self.families = {kind: _family(kind) for kind in parts.KINDS}  # Triton needs them
        self.counters = {
            (part, kind): self.families[kind].Metric(
                labels={"model": step_name(part, settings["model_version"])}
            )
            for part, kind in parts.KEYS
        }
        self.parts = parts.Parts({key: c.increment for key, c in self.counters.items()})
        folder = Path(args["model_repository"])
        self.ranker = ranking.opened(folder, settings, os.environ, self.parts.add)
        gc.freeze()  # measured: full collections made pauses of 130 ms
        # The table's refresh must not hold the interpreter for 5 ms: p99 19 → 13 ms.
        sys.setswitchinterval(0.0005)

    def finalize(self) -> None:
        """End the threads."""
        self.ranker.close()
        self.parts.stop()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; Triton wants exactly one response per request."""
        return list(map(_response, self.ranker.answer_all(list(map(_call, requests)))))


def _family(kind: str) -> Any:
    counter = pb_utils.MetricFamily.COUNTER
    return pb_utils.MetricFamily(
        name=f"srp4ctr_part_{kind}", description=f"Of a part: {kind}.", kind=counter
    )


def _call(request: Any) -> ranking.Call:
    given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
    return ranking.Call(given=given, wanted=frozenset(request.requested_output_names()))


def _response(answer: Any) -> Any:
    if isinstance(answer, ValueError):
        refusal = pb_utils.TritonError(str(answer), pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse(error=refusal)
    return pb_utils.InferenceResponse([pb_utils.Tensor(*each) for each in answer.items()])
