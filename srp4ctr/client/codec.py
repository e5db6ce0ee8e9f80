"""Rank requests → Triton's input tensors, and its output tensors → rankings."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput

from srp4ctr.client.messages import Ranking, RankRequest, RecommendRequest
from srp4ctr.features.columns import NUMBER_WIDTH
from srp4ctr.features.tensors import schema
from srp4ctr.features.tensors.caller_numbers import MISSING
from srp4ctr.features.tensors.schema import UTC_OFFSET_FIELD, TensorSpec

Tensors = Mapping[str, NDArray[Any]]
_BY_ITEM = ("click_probability", "item_status", "propensity", "position")
_TRITON_DTYPES = {
    "int64": "INT64",
    "float32": "FP32",
    "uint8": "UINT8",
    "string": "BYTES",
}


def request_tensors(requests: Sequence[RankRequest]) -> dict[str, NDArray[Any]]:
    """Return the inputs of one call; shorter requests are padded with empty ids."""
    longest = max((len(request.item_ids) for request in requests), default=0)
    items = [
        [*request.item_ids, *[""] * (longest - len(request.item_ids))]
        for request in requests
    ]
    of_items = np.array(items, dtype=object).reshape(len(requests), longest)
    return {**_user_tensors(requests), "item_ids": of_items, **_numbers(requests, longest)}


def _numbers(requests: Sequence[RankRequest], longest: int) -> dict[str, NDArray[Any]]:
    """Return NUMBER_INPUTS; {} where no request has numbers."""
    names = sorted({name for each in requests for name in each.numbers})
    if not names:
        return {}
    numbers = np.full((len(requests), longest, len(names)), np.nan, dtype=np.float32)
    for row, request in enumerate(requests):
        for place, name in enumerate(names):
            if (values := request.numbers.get(name)) is not None:
                numbers[row, : len(values), place] = values  # None becomes NaN
    of_names = np.array([names] * len(requests), dtype=object)
    return {"candidate_numbers": numbers, "candidate_number_names": of_names}


def recommend_tensors(request: RecommendRequest) -> dict[str, NDArray[Any]]:
    """Return the inputs of one call of ``recommend_items``."""
    filters = {"where": dict(request.where), "exclude": request.exclude}
    return {
        **_user_tensors([request]),
        "count": np.array([[request.count]], dtype=np.int64),
        "filters": np.array([[json.dumps(filters)]], dtype=object),
    }


def _user_tensors(
    requests: Sequence[RankRequest | RecommendRequest],
) -> dict[str, NDArray[Any]]:
    """Return the inputs of all but the items."""
    users = np.array([[request.user_id] for request in requests], dtype=object)
    tensors = {"user_id": users}
    if any(request.request_time_ms is not None for request in requests):
        times = [
            [request.request_time_ms or 0] for request in requests
        ]  # 0: the server's clock
        tensors["request_time_ms"] = np.array(times, dtype=np.int64)
    contexts = [_context(request) for request in requests]
    if any(contexts):
        tensors["context"] = np.array([[context] for context in contexts], dtype=object)
    if any(request.request_id for request in requests):
        names = [[request.request_id or ""] for request in requests]
        tensors["request_id"] = np.array(names, dtype=object)
    return tensors


def rankings(
    requests: Sequence[RankRequest], read: Callable[[str], Any]
) -> tuple[Ranking, ...]:
    """Return the ranking of each request; ``read`` returns an output by name, or None."""
    by_item = {name: read(name) for name in _BY_ITEM}
    if by_item["position"] is None:  # only the one step for a CPU explores
        order = np.argsort(-read("ranking_score"), kind="stable")
        by_item["position"] = np.argsort(order, kind="stable")
    names, columns = (read(spec.name) for spec in reversed(schema.NUMBER_OUTPUTS))
    notes, calibrated = _notes(read), _calibrated(read)

    def ranking(row: int, request: RankRequest) -> Ranking:
        scores, statuses, propensities, positions = (
            tuple(by_item[name][row, : len(request.item_ids)].tolist()) for name in _BY_ITEM
        )
        return Ranking(
            user_id=request.user_id,
            item_ids=tuple(request.item_ids),
            scores=scores,
            item_statuses=statuses,
            propensities=propensities,
            positions=positions,
            utc_offset_minutes=request.utc_offset_minutes,
            model_version=notes["model_version"][row],
            status=notes["status"][row],
            feature_version=notes["feature_version"][row],
            numbers=_relative(names, columns, row) | _sent(request),
            calibrated=calibrated,
        )

    return tuple(ranking(row, request) for row, request in enumerate(requests))


def _sent(request: RankRequest) -> dict[str, tuple[float, ...]]:
    """Return the numbers that ``request`` sent; NaN for None."""
    return {
        name: tuple(math.nan if value is None else float(value) for value in values)
        for name, values in request.numbers.items()
    }


def _relative(names: Any, columns: Any, row: int) -> dict[str, tuple[float, ...]]:
    """Return the columns of request ``row`` by name, NaN where a number is missing.

    {} without NUMBER_OUTPUTS: the bundle reads no numbers.
    """
    found: dict[str, tuple[float, ...]] = {}
    if columns is None:
        return found
    for first in range(0, names.shape[1], NUMBER_WIDTH):
        missing = columns[row, :, first + MISSING] != 0
        for place in range(MISSING):
            values = np.where(missing, np.nan, columns[row, :, first + place])
            found[names[row, first + place].decode()] = tuple(values.tolist())
    return found


def recommendation(request: RecommendRequest, read: Callable[[str], Any]) -> Ranking:
    """Return the answer of ``recommend_items``; ``read`` returns an output by name."""
    ids, sources = (
        [each.decode() for each in read(spec.name)[0].tolist()]
        for spec in schema.RECOMMENDED_TENSORS
    )
    count, notes = len([each for each in ids if each]), _notes(read)
    scores, statuses, propensities, _ = (
        tuple(read(name)[0, :count].tolist()) for name in _BY_ITEM
    )
    return Ranking(
        user_id=request.user_id,
        item_ids=tuple(ids[:count]),
        scores=scores,
        item_statuses=statuses,
        propensities=propensities,
        positions=tuple(range(count)),
        utc_offset_minutes=request.utc_offset_minutes,
        sources=tuple(sources[:count]),
        model_version=notes["model_version"][0],
        status=notes["status"][0],
        feature_version=notes["feature_version"][0],
        calibrated=_calibrated(read),
    )


def _notes(read: Callable[[str], Any]) -> dict[str, list[str]]:
    return {
        name: [value.decode() for (value,) in read(name).tolist()]
        for name in ("model_version", "status", "feature_version")
    }


def _calibrated(read: Callable[[str], Any]) -> bool:
    """Return whether the bundle's scores are probabilities."""
    return bool(read("calibrated").all())


def _context(request: RankRequest | RecommendRequest) -> str:
    if request.utc_offset_minutes is None:
        return request.context or ""
    offset = {UTC_OFFSET_FIELD: str(request.utc_offset_minutes)}
    return json.dumps({**json.loads(request.context or "{}"), **offset})


def infer_inputs(specs: Sequence[TensorSpec], tensors: Tensors) -> list[Any]:
    """Return Triton's inputs for those ``specs`` that ``tensors`` has."""
    inputs = []
    for spec in specs:
        if spec.name in tensors:
            array = tensors[spec.name]
            tensor = InferInput(spec.name, list(array.shape), _TRITON_DTYPES[spec.dtype])
            inputs.append(tensor.set_data_from_numpy(array))
    return inputs


def wanted_outputs(specs: Sequence[TensorSpec]) -> list[Any]:
    """Return the outputs to request where a model has more than ``specs``."""
    return [InferRequestedOutput(spec.name) for spec in specs]
