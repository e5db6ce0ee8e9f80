"""What a call sent → whether it can be answered: shapes, types, and no number that is none.

Triton holds ranks and types to the configuration; values it lets through. A negative row
would read another item's, and one NaN would make probabilities that look like padding.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.tensors import schema
from srp4ctr.triton_repo.model_names import MODEL_INPUTS

_SPECS = {
    spec.name: spec
    for spec in (
        *schema.REQUEST_INPUTS,
        *schema.OPTIONAL_REQUEST_INPUTS,
        *MODEL_INPUTS,
    )
}
_OWN = {spec.name for spec in MODEL_INPUTS}
_KINDS = {"int64": "i", "float32": "f", "string": "OSU", "uint8": "u"}


def check_tensors(given: Mapping[str, NDArray[Any]]) -> None:
    """Raise ``ValueError`` for the first tensor that is not as the schema has it."""
    counts = set()
    for name, array in given.items():
        spec = _SPECS.get(name)
        if spec is None:
            raise ValueError(f"{name} is no input; known: {', '.join(sorted(_SPECS))}")
        if array.ndim != 1 + len(spec.shape) or array.dtype.kind not in _KINDS[spec.dtype]:
            raise ValueError(
                f"{name} is {array.dtype} {list(array.shape)}; expected {spec.dtype} "
                f"[R, {', '.join(map(str, spec.shape))}]"
            )
        fixed = zip(array.shape[1:], spec.shape, strict=True)
        if any(isinstance(want, int) and have != want for have, want in fixed):
            raise ValueError(f"{name} is {list(array.shape)}; expected [R, {spec.shape}]")
        counts.add(len(array))
        if name in _OWN:
            _check_values(name, array)
        elif spec.dtype == "string":
            _check_texts(name, array)
    if len(counts) > 1:
        raise ValueError(f"tensors of {sorted(counts)} requests in one call")


def _check_values(name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} has values that are not finite")
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise ValueError(f"{name} has negative values: rows and codes begin at 0")


def _check_texts(name: str, array: NDArray[Any]) -> None:
    if not all(isinstance(each, (bytes, str)) for each in array.ravel().tolist()):
        raise ValueError(f"{name} has values that are no texts")
