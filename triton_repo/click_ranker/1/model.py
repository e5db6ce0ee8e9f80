"""User and item ids → click probabilities: Triton's calls, answered by ``ranker.py``.

Without ONNX files it is the step ``fetch_features``: Triton's backend runs the others.
"""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from srp4ctr.triton_repo.serving import byte_tensors, ranker_loader, serving_metrics
from srp4ctr.triton_repo.serving.ranker import Call
from srp4ctr.triton_repo.serving.refusals import triton_error


class TritonPythonModel:
    """Answers the calls of one bundle."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open store and files; Triton reports an exception as why the load failed."""
        byte_tensors.install(pb_utils)
        given = json.loads(args["model_config"])["parameters"]
        settings = {name: value["string_value"] for name, value in given.items()}
        counter = pb_utils.MetricFamily.COUNTER
        self.families = {  # Triton needs them alive
            name: pb_utils.MetricFamily(name=name, description=spec.help, kind=counter)
            for name, spec in serving_metrics.FAMILIES.items()
        }
        folder, model = Path(args["model_repository"]), args["model_name"]
        keys = serving_metrics.keys(model, settings["model_version"], folder)
        self.counters = {key: self._counter(key) for key in keys}
        serving_metrics.keep_for_ever(self.families, self.counters)
        increments = {key: each.increment for key, each in self.counters.items()}
        self.metrics = serving_metrics.ServingMetrics(increments, model)
        self.ranker = ranker_loader.load_ranker(folder, settings, os.environ, self.metrics)
        gc.freeze()  # measured: full collections made pauses of 130 ms
        # A background thread (the metrics') must not hold the GIL for 5 ms.
        sys.setswitchinterval(0.0005)
        self.metrics.start()

    def finalize(self) -> None:
        """Stop the threads."""
        self.ranker.close()
        self.metrics.stop()

    def _counter(self, key: serving_metrics.Key) -> Any:
        family, model, value = key
        names = serving_metrics.FAMILIES[family].labels  # the model's, and perhaps another
        labels = dict(zip(names, (model, value), strict=False))
        return self.families[family].Metric(labels=labels)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; Triton wants exactly one response per request."""
        return list(map(_response, self.ranker.answer_all(list(map(_call, requests)))))


def _call(request: Any) -> Call:
    return Call(
        given={each.name(): each.as_numpy() for each in request.inputs()},
        wanted=frozenset(request.requested_output_names()),
        parameters=request.parameters(),
        max_wait_s=request.timeout() / 1e6,
    )


def _response(answer: Any) -> Any:
    if isinstance(answer, Exception):
        code, text = triton_error(answer)
        error = pb_utils.TritonError(text, getattr(pb_utils.TritonError, code))
        return pb_utils.InferenceResponse(error=error)
    return pb_utils.InferenceResponse([pb_utils.Tensor(*item) for item in answer.items()])
