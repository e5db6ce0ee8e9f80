"""A user and candidate items → their click probabilities, from a running Triton.

What a caller of the project needs and no more; any plain Triton client can do the same.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Histogram
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from features import schema
from features.schema import TensorSpec
from triton_repo.pbtxt import RANK_CLICKS

# Fine around 10 ms: a request of 100 candidates takes 2–5 ms on two cores.
_BUCKETS_S = (
    *(0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.010, 0.012, 0.015),
    *(0.020, 0.030, 0.050, 0.100, 0.250, 0.500, 1.0),
)
REQUEST_SECONDS = Histogram(
    "srp4ctr_rank_request_seconds",
    "Time of a rank request as its caller sees it, retries included.",
    buckets=_BUCKETS_S,
)
REQUESTS = Counter(
    "srp4ctr_rank_requests",
    "Rank requests by the bundle that answered and how they ended.",
    ["model_version", "outcome"],
)
_UNAVAILABLE = "StatusCode.UNAVAILABLE"
_TRITON_DTYPES = {
    "int64": "INT64",
    "float32": "FP32",
    "uint8": "UINT8",
    "string": "BYTES",
}

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The answer to one request; the items keep the caller's order."""

    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    """Calibrated click probability of each item."""
    item_statuses: tuple[int, ...]
    """Bits of ``features.schema.ItemStatus``."""
    propensities: tuple[float, ...]
    model_version: str
    status: str
    """``ok``, ``cold_user``, ``empty_sequence``, ``stale_sequence``, …"""
    feature_version: str

    def best_first(self) -> tuple[str, ...]:
        """Return the items by descending score; equal scores keep the caller's order.

        Padding, whose score is NaN, is left out.
        """
        scored = [i for i, score in enumerate(self.scores) if not math.isnan(score)]
        best = sorted(scored, key=lambda i: -self.scores[i])
        return tuple(self.item_ids[i] for i in best)


class RankClient:
    """Asks ``rank_clicks`` over gRPC; one connection, safe to keep open."""

    def __init__(self, address: str) -> None:
        self._client = InferenceServerClient(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def rank(
        self,
        user_id: str,
        item_ids: Sequence[str],
        *,
        request_time_ms: int | None = None,
        context: str | None = None,
        deadline_s: float = 1.0,
    ) -> Ranking:
        """Return the scores of ``item_ids`` for ``user_id``.

        ``context`` is a flat JSON object as text. Raises ValueError for what the caller
        can fix, ConnectionError if the server did not answer; it is tried twice when the
        server was not reachable at all.
        """
        request = _request(user_id, item_ids, request_time_ms, context)
        started = time.perf_counter()
        try:
            answer = self._infer(request, deadline_s)
        except InferenceServerException as error:
            invalid = error.status() == "StatusCode.INVALID_ARGUMENT"
            REQUESTS.labels("", "refused" if invalid else "failed").inc()
            raise _as_builtin(error) from error
        finally:
            REQUEST_SECONDS.observe(time.perf_counter() - started)
        ranking = _ranking(item_ids, answer)
        REQUESTS.labels(ranking.model_version, ranking.status).inc()
        return ranking

    def _infer(self, inputs: Sequence[Any], deadline_s: float) -> Any:
        try:
            return self._client.infer(RANK_CLICKS, inputs, client_timeout=deadline_s)
        except InferenceServerException as error:
            if error.status() != _UNAVAILABLE:
                raise
            # Reading twice is harmless; a server that just restarted answers the second.
            return self._client.infer(RANK_CLICKS, inputs, client_timeout=deadline_s)


def infer_inputs(specs: Sequence[TensorSpec], tensors: Tensors) -> list[Any]:
    """Return Triton's inputs for those ``specs`` that ``tensors`` has."""
    inputs = []
    for spec in specs:
        if spec.name in tensors:
            array = tensors[spec.name]
            wanted = InferInput(spec.name, list(array.shape), _TRITON_DTYPES[spec.dtype])
            inputs.append(wanted.set_data_from_numpy(array))
    return inputs


def _request(
    user_id: str, item_ids: Sequence[str], request_time_ms: int | None, context: str | None
) -> list[Any]:
    """Return Triton's inputs for one request."""
    tensors = {
        "user_id": np.array([[user_id]], dtype=object),
        "item_ids": np.array([list(item_ids)], dtype=object).reshape(1, len(item_ids)),
    }
    if request_time_ms is not None:
        tensors["request_time_ms"] = np.array([[request_time_ms]], dtype=np.int64)
    if context is not None:
        tensors["context"] = np.array([[context]], dtype=object)
    specs = schema.REQUEST_INPUTS + schema.OPTIONAL_REQUEST_INPUTS
    return infer_inputs(specs, tensors)


def _ranking(item_ids: Sequence[str], answer: Any) -> Ranking:
    def row(name: str) -> Any:
        return tuple(answer.as_numpy(name)[0].tolist())

    def note(name: str) -> str:
        return str(answer.as_numpy(name).item().decode())

    return Ranking(
        item_ids=tuple(item_ids),
        scores=row("click_probability"),
        item_statuses=row("item_status"),
        propensities=row("propensity"),
        model_version=note("model_version"),
        status=note("status"),
        feature_version=note("feature_version"),
    )


def _as_builtin(error: InferenceServerException) -> Exception:
    """Return a ValueError for a refused request, a ConnectionError for any other."""
    message = error.message()
    if error.status() == "StatusCode.INVALID_ARGUMENT":
        return ValueError(f"Triton refused the request: {message}")
    return ConnectionError(f"Triton did not answer: {message} ({error.status()})")
