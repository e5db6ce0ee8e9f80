"""The experiment of a server's canary: which users are assigned to it.

The server says so, and no setting of a caller: all callers send the same users to the same
canary, and another canary gets other users.
"""

import threading
import time
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException

from srp4ctr.client.codec import infer_inputs
from srp4ctr.features.tensors import schema
from srp4ctr.streams.events.experiments import Experiment
from srp4ctr.triton_repo.model_names import CANARY_EXPERIMENT, EXPERIMENT

QUERY_EVERY_S = 10.0
_TIMEOUT_S = 0.25
# Of a server that runs and has no canary.
_NO_CANARY = ("unknown model", "has no available versions", "NOT_FOUND")


class Assignment:
    """Queries the experiment when a call needs it, at most every ten seconds."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._next_s = 0.0
        self._found: Experiment | None = None

    def current(self, left_s: float) -> Experiment | None:
        """Return the experiment, None while there is none; within ``left_s`` seconds.

        One caller sends a query; others wait only for the first answer. While the server
        does not answer the last one holds: a canary that fails keeps its users in the
        figures.
        """
        now_s = time.monotonic()
        if now_s >= self._next_s and self._lock.acquire(blocking=not self._next_s):
            try:
                if now_s >= self._next_s:
                    self._query(min(left_s, _TIMEOUT_S))
            finally:
                self._lock.release()
        return self._found

    def _query(self, timeout_s: float) -> None:
        nobody = {"user_id": np.array([[""]], dtype=object)}
        inputs = infer_inputs(schema.USER_INPUTS, nobody)
        try:
            answer = self._client.infer(CANARY_EXPERIMENT, inputs, client_timeout=timeout_s)
            name = answer.as_numpy(EXPERIMENT.name).item().decode()
            self._found = Experiment.named(name)
        except InferenceServerException as error:
            if any(each in str(error) for each in _NO_CANARY):
                self._found = None
        self._next_s = time.monotonic() + QUERY_EVERY_S
