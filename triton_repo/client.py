"""A user and candidate items → their click probabilities, from a running Triton.

What a caller of the project needs and no more; any plain Triton client can do the same.
"""

import itertools
import math
import operator
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Histogram
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from features import schema
from features.schema import TensorSpec
from streams.events import Impression
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
RETRIES = Counter(
    "srp4ctr_rank_retries",
    "Calls that were made again because the server was away or a step of it had died.",
)
_PASSING = ("StatusCode.UNAVAILABLE", "StatusCode.INTERNAL", "StatusCode.UNKNOWN")
_PAUSES_S = (0.01, 0.03, 0.1, 0.25)  # before each try but the first; the last goes on
_TRITON_DTYPES = {
    "int64": "INT64",
    "float32": "FP32",
    "uint8": "UINT8",
    "string": "BYTES",
}

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRequest:
    """Which items one user may be shown."""

    user_id: str
    item_ids: Sequence[str]
    request_time_ms: int | None = None
    """None: the server's clock."""
    context: str | None = None
    """A flat JSON object as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The answer to one request; the items keep the caller's order."""

    user_id: str
    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    """Calibrated click probability of each item."""
    item_statuses: tuple[int, ...]
    """Bits of ``features.schema.ItemStatus``."""
    propensities: tuple[float, ...]
    positions: tuple[int, ...]
    """Where to show each item, 0 at the top."""
    model_version: str
    status: str
    """``ok``, ``cold_user``, ``empty_sequence``, ``stale_sequence``, …"""
    feature_version: str

    def to_show(self) -> tuple[str, ...]:
        """Return the items from the top: by descending score, unless the server explores.

        Equal scores keep the caller's order; padding, whose score is NaN, is left out.
        """
        scored = [i for i, score in enumerate(self.scores) if not math.isnan(score)]
        return tuple(
            self.item_ids[i] for i in sorted(scored, key=self.positions.__getitem__)
        )

    def impressions(
        self,
        request_id: str,
        shown_at_ms: int,
        shown: Sequence[str] | None = None,
        context: Mapping[str, str] | None = None,
    ) -> tuple[Impression, ...]:
        """Return the events of what the user saw, to be published: labels need them.

        ``shown`` are the items from the top, if not those ``to_show``; all must have been
        asked for. From where they differ there is no propensity: it was not our policy.
        """
        place = {item_id: i for i, item_id in enumerate(self.item_ids)}
        ours = self.to_show()
        items = ours if shown is None else tuple(shown)
        as_ours = sum(itertools.takewhile(bool, map(operator.eq, ours, items)))
        return tuple(
            Impression(
                event_id=f"i-{request_id}-{position}",
                request_id=request_id,
                user_id=self.user_id,
                item_id=item_id,
                position=position,
                occurred_at=shown_at_ms,
                score=self.scores[place[item_id]],
                propensity=(
                    self.propensities[place[item_id]] if position < as_ours else None
                ),
                model_version=self.model_version,
                context=dict(context) if context else None,
            )
            for position, item_id in enumerate(items)
        )


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
        """Return the scores of ``item_ids`` for ``user_id``: see ``rank_many``."""
        request = RankRequest(
            user_id=user_id,
            item_ids=item_ids,
            request_time_ms=request_time_ms,
            context=context,
        )
        return self.rank_many([request], deadline_s=deadline_s)[0]

    def rank_many(
        self, requests: Sequence[RankRequest], *, deadline_s: float = 1.0
    ) -> tuple[Ranking, ...]:
        """Return the answers of all ``requests``, in their order, by one call.

        Raises ValueError for what the caller can fix, ConnectionError if there was no
        answer by the deadline. What failed for no fault of the request's is tried again
        until then: to read twice is harmless.
        """
        inputs = _inputs(requests)
        started = time.perf_counter()
        try:
            answer = self._infer(inputs, deadline_s)
        except InferenceServerException as error:
            invalid = error.status() == "StatusCode.INVALID_ARGUMENT"
            outcome = "refused" if invalid else "failed"
            REQUESTS.labels("", outcome).inc(len(requests))
            raise _as_builtin(error) from error
        finally:
            REQUEST_SECONDS.observe(time.perf_counter() - started)
        rankings = _rankings(requests, answer)
        for ranking in rankings:
            REQUESTS.labels(ranking.model_version, ranking.status).inc()
        return rankings

    def _infer(self, inputs: Sequence[Any], deadline_s: float) -> Any:
        ends = time.monotonic() + deadline_s
        pauses_s = itertools.chain(_PAUSES_S, itertools.repeat(_PAUSES_S[-1]))
        while True:
            left_s = max(ends - time.monotonic(), _PAUSES_S[0])
            try:
                return self._client.infer(RANK_CLICKS, inputs, client_timeout=left_s)
            except InferenceServerException as error:
                pause_s = next(pauses_s)
                # Not the slow: a server with too much to do must not get more of it.
                is_passing = error.status() in _PASSING
                if not is_passing or time.monotonic() + pause_s >= ends:
                    raise
            RETRIES.inc()
            time.sleep(pause_s)


def infer_inputs(specs: Sequence[TensorSpec], tensors: Tensors) -> list[Any]:
    """Return Triton's inputs for those ``specs`` that ``tensors`` has."""
    inputs = []
    for spec in specs:
        if spec.name in tensors:
            array = tensors[spec.name]
            wanted = InferInput(spec.name, list(array.shape), _TRITON_DTYPES[spec.dtype])
            inputs.append(wanted.set_data_from_numpy(array))
    return inputs


def wanted_outputs(specs: Sequence[TensorSpec]) -> list[Any]:
    """Return what to ask Triton for, where a model has more outputs than ``specs``."""
    return [InferRequestedOutput(spec.name) for spec in specs]


def _inputs(requests: Sequence[RankRequest]) -> list[Any]:
    """Return Triton's inputs; the shorter ones are padded with empty ids."""
    longest = max((len(each.item_ids) for each in requests), default=0)
    items = [[*each.item_ids, *[""] * (longest - len(each.item_ids))] for each in requests]
    tensors = {
        "user_id": np.array([[each.user_id] for each in requests], dtype=object),
        "item_ids": np.array(items, dtype=object).reshape(len(requests), longest),
    }
    if any(each.request_time_ms is not None for each in requests):
        times = [[each.request_time_ms or 0] for each in requests]  # 0: the server's clock
        tensors["request_time_ms"] = np.array(times, dtype=np.int64)
    if any(each.context is not None for each in requests):
        texts = [[each.context or ""] for each in requests]
        tensors["context"] = np.array(texts, dtype=object)
    specs = schema.REQUEST_INPUTS + schema.OPTIONAL_REQUEST_INPUTS
    return infer_inputs(specs, tensors)


def _rankings(requests: Sequence[RankRequest], answer: Any) -> tuple[Ranking, ...]:
    names = ("click_probability", "item_status", "propensity", "position")
    by_item = {name: answer.as_numpy(name) for name in names}
    if by_item["position"] is None:  # a server whose steps are apart does not explore
        order = np.argsort(-by_item["click_probability"], kind="stable")
        by_item["position"] = np.argsort(order, kind="stable")
    notes = {
        name: [value.decode() for (value,) in answer.as_numpy(name).tolist()]
        for name in ("model_version", "status", "feature_version")
    }

    def ranking(row: int, asked: RankRequest) -> Ranking:
        scores, statuses, propensities, positions = (
            tuple(by_item[name][row, : len(asked.item_ids)].tolist()) for name in names
        )
        return Ranking(
            user_id=asked.user_id,
            item_ids=tuple(asked.item_ids),
            scores=scores,
            item_statuses=statuses,
            propensities=propensities,
            positions=positions,
            **{name: each[row] for name, each in notes.items()},
        )

    return tuple(ranking(row, asked) for row, asked in enumerate(requests))


def _as_builtin(error: InferenceServerException) -> Exception:
    """Return a ValueError for a refused request, a ConnectionError for any other."""
    message = error.message()
    if error.status() == "StatusCode.INVALID_ARGUMENT":
        return ValueError(f"Triton refused the request: {message}")
    return ConnectionError(f"Triton did not answer: {message} ({error.status()})")
