"""Calls of the step: what one holds, whether its tensors are valid, and its errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.tensors import schema
from srp4ctr.features.tensors.schema import Size
from srp4ctr.triton_repo.model_names import MODEL_INPUTS, NO_MEMORY, STEP_FAILED
from srp4ctr.triton_repo.serving.onnx_scorer import Tensors

OWN_TENSORS = {spec.name for spec in MODEL_INPUTS}
_SPECS = {
    spec.name: spec
    for spec in schema.REQUEST_INPUTS + schema.OPTIONAL_REQUEST_INPUTS + MODEL_INPUTS
}
_KINDS = {"int64": "i", "float32": "f", "string": "OSU", "uint8": "u"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """B requests that one caller sent, and the outputs that it wants."""

    given: Tensors
    wanted: frozenset[str]
    parameters: str = ""
    """JSON; with ``traceparent`` where the caller's trace is recorded."""

    @property
    def shape(self) -> tuple[object, ...]:
        """Equal for calls that can be one batch."""
        shapes = ((name, *each.shape[1:]) for name, each in sorted(self.given.items()))
        return (self.wanted, *shapes)


class RefusedError(ValueError):
    """A call that its caller can fix."""

    def __init__(self, message: str, reason: str) -> None:
        """``reason`` is one of ``REFUSALS``: a metric's label."""
        super().__init__(message)
        self.reason = reason


def triton_error(error: Exception) -> tuple[str, str]:
    """Return the name of Triton's code, and what the caller is to read."""
    if isinstance(error, RefusedError):
        return "INVALID_ARG", str(error)
    if isinstance(error, MemoryError):
        return "UNAVAILABLE", f"{NO_MEMORY}: {error}"
    return "INTERNAL", f"{STEP_FAILED}: {error!r}"


@contextmanager
def refusing(reason: str, *mistakes: type[ValueError]) -> Iterator[None]:
    """Refuse a call that raises one of ``mistakes``; ``reason``: what it is counted as."""
    try:
        yield
    except mistakes as error:
        raise RefusedError(str(error), reason) from error


def check_tensors(given: Tensors) -> None:
    """Raise ``ValueError`` for the first tensor that is not as the schema has it.

    Triton checks ranks and types, but no values: a negative row would read another item's,
    and one NaN would make probabilities that look like padding.
    """
    sizes: dict[Size, set[int]] = {}
    for name, array in given.items():
        spec = _SPECS.get(name)
        if spec is None:
            raise ValueError(f"{name} is no input; known: {', '.join(sorted(_SPECS))}")
        shape = ("R", *spec.shape)
        is_alike = array.ndim == len(shape) and all(
            size == axis or isinstance(axis, str)
            for axis, size in zip(shape, array.shape, strict=True)
        )
        if not is_alike or array.dtype.kind not in _KINDS[spec.dtype]:
            raise ValueError(
                f"{name} is {array.dtype} {list(array.shape)}; expected {spec.dtype} "
                f"[{', '.join(map(str, shape))}]"
            )
        for axis, size in zip(shape, array.shape, strict=True):
            sizes.setdefault(axis, set()).add(size)
        if name in OWN_TENSORS:
            _check_values(name, array)
        elif spec.dtype == "string":
            _check_texts(name, array)
    if unlike := {axis: sorted(found) for axis, found in sizes.items() if len(found) > 1}:
        raise ValueError(f"the tensors differ in their sizes: {unlike}")


def _check_values(name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} has values that are not finite")
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise ValueError(f"{name} has negative values: rows and codes begin at 0")


def _check_texts(name: str, array: NDArray[Any]) -> None:
    if not all(isinstance(each, (bytes, str)) for each in array.ravel().tolist()):
        raise ValueError(f"{name} has values that are no texts")
