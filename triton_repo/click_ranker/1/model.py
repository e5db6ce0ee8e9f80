"""User and item ids → click probabilities: features, encoder and head in one step.

Rendered without the ONNX files it is the step ``fetch_features``, where Triton's own
backend runs the two others. A call may bring the model's tensors itself, in place of ids,
and may ask for the tensors that its ids became.
"""

import collections
import gc
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from features import bundle
from features.config import FeatureConfig
from features.requests import open_bundle
from triton_repo.pbtxt import BEHAVIOR_ENCODER, CLICK_HEAD, FETCH_FEATURES, step_name
from triton_repo.scoring import Scorer

TOLD_EVERY_S = 1.0
PROBABILITY = "click_probability"
PROBE = {"user_id": np.array([[b""]], object), "item_ids": np.array([[b""]], object)}


class TritonPythonModel:
    """Answers requests of one bundle."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open store and files; Triton reports what this raises as why a load failed."""
        parameters = json.loads(args["model_config"])["parameters"]
        values = {name: value["string_value"] for name, value in parameters.items()}
        self.max_candidates = int(values["max_candidates"])
        self.version = values["model_version"].encode()
        config = FeatureConfig(**json.loads(values["features"]))
        # The store may have moved since the promotion: the server's environment knows.
        config = config.relocated(os.environ)
        folder = Path(args["model_repository"])
        self.features = open_bundle(config, folder)
        self.parts = Parts(values["model_version"])
        self.scorer = None
        if (folder / bundle.ENCODER_FILE).is_file():
            kept_bytes = int(values["kept_states_bytes"])
            self.scorer = Scorer(folder, kept_bytes, self.parts.add)
        # Feast's first read takes 33 ms.
        self.answer(PROBE, {PROBABILITY} if self.scorer else {"status"})
        gc.freeze()  # measured: full collections made pauses of 130 ms
        # The table's refresh must not hold the interpreter for 5 ms: p99 19 → 13 ms.
        sys.setswitchinterval(0.0005)

    def finalize(self) -> None:
        """End the threads."""
        self.features.close()
        self.parts.stop()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; Triton wants exactly one response per request."""
        return [self._response(request) for request in requests]

    def _response(self, request: Any) -> Any:
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            made = self.answer(given, set(request.requested_output_names()))
        except ValueError as error:
            refusal = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=refusal)
        return pb_utils.InferenceResponse([pb_utils.Tensor(*each) for each in made.items()])

    def answer(self, given: dict[str, np.ndarray], wanted: set[str]) -> dict[str, Any]:
        """Return what is ``wanted`` of B requests, given as ids or as tensors.

        Raises ``ValueError`` for what the caller can fix.
        """
        began = time.perf_counter()
        name = "item_ids" if "item_ids" in given else "candidate_item_rows"
        if not 1 <= (count := given[name].shape[1]) <= self.max_candidates:
            raise ValueError(f"{count} {name}; send 1 to {self.max_candidates}")
        made = self._features(given) if name == "item_ids" else given
        self.parts.add(FETCH_FEATURES, len(given[name]), time.perf_counter() - began)
        if self.scorer and PROBABILITY in wanted:
            try:
                made = {**made, **self.scorer(made)}
            except Exception as error:  # a row outside the tables is the caller's mistake
                raise ValueError(str(error)) from error
        return {name: made[name] for name in wanted}

    def _features(self, given: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return the model's tensors and the notes of what they know."""
        users, items = given["user_id"][:, 0].tolist(), given["item_ids"].tolist()
        times, contexts = (
            given[name][:, 0].tolist() if name in given else None
            for name in ("request_time_ms", "context")
        )
        batch = self.features.assemble(users, items, times, contexts)
        texts = {"status": batch.statuses, "feature_version": batch.feature_versions}
        texts["model_version"] = (self.version,) * len(users)
        notes = {name: np.array([text], object).T for name, text in texts.items()}
        return {**notes, "item_status": batch.item_status, **batch.tensors}


class Parts:
    """Triton's counters of what this step did, by the names of the steps it stands for.

    One increment took 0.1–0.2 ms, so they are told once a second, by a thread.
    """

    def __init__(self, version: str) -> None:
        self._done: collections.Counter[tuple[str, str]] = collections.Counter()
        self._counters, self._families = {}, []  # Triton wants the families kept
        kinds = {"runs": "Requests that a part worked on.", "us": "Its microseconds."}
        for kind, meaning in kinds.items():
            family = pb_utils.MetricFamily(
                name=f"srp4ctr_part_{kind}",
                description=meaning,
                kind=pb_utils.MetricFamily.COUNTER,
            )
            self._families.append(family)
            for part in (FETCH_FEATURES, BEHAVIOR_ENCODER, CLICK_HEAD):
                labels = {"model": step_name(part, version)}
                self._counters[part, kind] = family.Metric(labels=labels)
        self._stopped = threading.Event()
        self._teller = threading.Thread(target=self._tell, name="parts", daemon=True)
        self._teller.start()

    def add(self, part: str, runs: int, seconds: float) -> None:
        """Count ``runs`` of ``part`` that took ``seconds`` together."""
        self._done[part, "runs"] += runs
        self._done[part, "us"] += seconds * 1e6

    def stop(self) -> None:
        """Tell the rest."""
        self._stopped.set()
        self._teller.join()

    def _tell(self) -> None:
        told: collections.Counter[tuple[str, str]] = collections.Counter()
        is_last = False
        while not is_last:
            is_last = self._stopped.wait(TOLD_EVERY_S)
            for key, counter in self._counters.items():
                if new := (now := self._done[key]) - told[key]:
                    counter.increment(new)
                    told[key] = now
