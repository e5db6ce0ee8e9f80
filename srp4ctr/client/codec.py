"""Rank requests → Triton's input tensors, and its output tensors → rankings."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput

from srp4ctr.client.messages import Ranking, RankRequest
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
    longest = max((len(each.item_ids) for each in requests), default=0)
    items = [[*each.item_ids, *[""] * (longest - len(each.item_ids))] for each in requests]
    tensors = {
        "user_id": np.array([[each.user_id] for each in requests], dtype=object),
        "item_ids": np.array(items, dtype=object).reshape(len(requests), longest),
    }
    if any(each.request_time_ms is not None for each in requests):
        times = [[each.request_time_ms or 0] for each in requests]  # 0: the server's clock
        tensors["request_time_ms"] = np.array(times, dtype=np.int64)
    contexts = [_context(each) for each in requests]
    if any(contexts):
        tensors["context"] = np.array([[each] for each in contexts], dtype=object)
    if any(each.request_id for each in requests):
        names = [[each.request_id or ""] for each in requests]
        tensors["request_id"] = np.array(names, dtype=object)
    return tensors


def rankings(
    requests: Sequence[RankRequest], read: Callable[[str], Any]
) -> tuple[Ranking, ...]:
    """Return the ranking of each request; ``read`` returns an output by name, or None."""
    by_item = {name: read(name) for name in _BY_ITEM}
    if by_item["position"] is None:  # only the one step for a CPU explores
        order = np.argsort(-by_item["click_probability"], kind="stable")
        by_item["position"] = np.argsort(order, kind="stable")
    notes = {
        name: [value.decode() for (value,) in read(name).tolist()]
        for name in ("model_version", "status", "feature_version")
    }

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
            **{name: each[row] for name, each in notes.items()},
        )

    return tuple(ranking(row, request) for row, request in enumerate(requests))


def _context(request: RankRequest) -> str:
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
