"""The schema's tensors → scores: a bundle's encoder and head, one after the other.

In: ``MODEL_INPUTS`` of B requests, and the bundle's ``user_tensors``. Out:
``SCORE_TENSORS`` and ``RANKING_TENSORS``. A history is encoded once for all its
candidates, and not again while its states are cached. Their key is all that they depend
on, the history's tensors: a new behaviour or a changed attribute has another key. The
cache ends with the step, and so with the model.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from srp4ctr import tracing
from srp4ctr.errors import ArtifactError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.tensors import schema
from srp4ctr.features.tensors.schema import Size, TensorSpec
from srp4ctr.triton_repo.model_names import BEHAVIOR_ENCODER, CLICK_HEAD, MODEL_INPUTS

Tensors = Mapping[str, NDArray[Any]]
OWN_TENSORS = {spec.name for spec in MODEL_INPUTS}
_OF_MODELS = OWN_TENSORS | {spec.name for spec in schema.USER_TENSORS}
_SPECS = {
    spec.name: spec
    for spec in schema.REQUEST_INPUTS
    + schema.OPTIONAL_REQUEST_INPUTS
    + schema.NUMBER_INPUTS
    + schema.RECOMMEND_INPUTS
    + MODEL_INPUTS
    + schema.USER_TENSORS
}
SCORED = {spec.name for spec in schema.HEAD_OUTPUTS + schema.RANKING_TENSORS}
_BY_ITEM = SCORED - {spec.name for spec in schema.USER_EMBEDDINGS}
PROBABILITY = "click_probability"
RANKING = "ranking_score"
_KINDS = {"int64": "i", "float32": "f", "string": "OSU", "uint8": "u"}
_NO_MEMORY = ("Failed to allocate memory", "bad_alloc")  # in messages of onnxruntime
_ONNX_TYPES = {"int64": "tensor(int64)", "float32": "tensor(float)"}
# Counts a part's requests and seconds.
CountPart = Callable[[str, int, float], None]


class Scorer:
    """Runs the two ONNX files of a bundle on one thread."""

    def __init__(self, folder: Path, cache_bytes: int, count_part: CountPart) -> None:
        """Open the files in ``folder``; cache at most ``cache_bytes`` of states."""
        sizes = bundle.read(folder).sizes
        self._encode = Session(folder / bundle.ENCODER_FILE, schema.ENCODER_INPUTS, sizes)
        read = schema.HEAD_INPUTS + schema.user_tensors(sizes)
        self._score = Session(folder / bundle.HEAD_FILE, read, sizes)
        self._cache = StateCache(cache_bytes) if cache_bytes else None
        self._count_part = count_part

    def __call__(self, tensors: Tensors) -> Tensors:
        """Return ``SCORE_TENSORS`` and ``RANKING_TENSORS`` of B requests.

        Raises ``ValueError`` for values outside the model's tables, ``MemoryError``, or
        what else onnxruntime raises.
        """
        began = time.perf_counter()
        with tracing.part("encode"):
            states, encoded = self.states(tensors)
        between = time.perf_counter()
        with tracing.part("score"):
            scores = self._score({**tensors, **states})
        self._count_part(BEHAVIOR_ENCODER, encoded, between - began)
        self._count_part(
            CLICK_HEAD, len(states["state_mask"]), time.perf_counter() - between
        )
        return scores

    def states(self, tensors: Tensors) -> tuple[Tensors, int]:
        """Return ``STATE_TENSORS`` of B requests, and how many of them were encoded.

        One by one, so that no user's states depend on the other users of the call, and
        each history at its own length: a short one costs less.
        """
        first = first_behavior(tensors["history_item_rows"]).tolist()
        rows, encoded = [], 0
        for row, start in enumerate(first):
            history = {
                name: tensors[name][row : row + 1, start:] for name in self._encode.inputs
            }
            key = b""
            if self._cache is not None:
                key = b"".join(each.tobytes() for each in history.values())
                if (states := self._cache.get(key)) is not None:
                    rows.append(states)
                    continue
            rows.append(self._encode(history))
            encoded += 1
            if self._cache is not None:
                self._cache.put(key, rows[-1])
        return _stacked(rows), encoded


def first_behavior(item_rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where the histories (B, L) begin; an empty one keeps its last place."""
    return np.where(item_rows.any(axis=1), (item_rows != 0).argmax(axis=1), -1)


class StateCache:
    """The states of recent histories, up to a size; the least recently used are evicted."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._states: OrderedDict[bytes, Tensors] = OrderedDict()

    def get(self, history: bytes) -> Tensors | None:
        """Return the states of ``history``, None if they are not cached."""
        if (states := self._states.get(history)) is not None:
            self._states.move_to_end(history)
        return states

    def put(self, history: bytes, states: Tensors) -> None:
        """Cache the ``states`` of a history that is not cached."""
        self._states[history] = states
        self._bytes += _size(history, states)
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._states.popitem(last=False))


class Session:
    """One ONNX file, whose inputs are the tensors of a table.

    Raises ``ValueError`` for a file with other inputs, or of other types or shapes.
    """

    def __init__(
        self, path: Path, table: Sequence[TensorSpec], sizes: Mapping[str, int]
    ) -> None:
        options = onnxruntime.SessionOptions()
        # Measured: two threads are slower, and spinning steals the other instance's core.
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [spec.name for spec in table]
        _check_inputs(path, self._session.get_inputs(), table, sizes)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, tensors: Tensors) -> Tensors:
        """Return the file's outputs of its inputs among ``tensors``."""
        inputs = {name: tensors[name] for name in self.inputs}
        try:
            made = self._session.run(self._outputs, inputs)
        except InvalidArgument as error:
            raise ValueError(str(error)) from error
        except Exception as error:
            if any(each in str(error) for each in _NO_MEMORY):
                raise MemoryError(str(error)) from error
            raise
        return dict(zip(self._outputs, made, strict=True))


def _check_inputs(
    path: Path, found: Sequence[Any], table: Sequence[TensorSpec], sizes: Mapping[str, int]
) -> None:
    specs = {spec.name: spec for spec in table}
    for each in found:
        spec = specs.get(each.name)
        if spec is None:
            raise ArtifactError(f"{path} reads {each.name}; known: {', '.join(specs)}")
        wanted, shape = spec.dims(sizes), tuple(each.shape[1:])
        is_alike = len(shape) == len(wanted) and all(
            isinstance(have, str | None) or have == want
            for have, want in zip(shape, wanted, strict=True)
        )
        if each.type != _ONNX_TYPES[spec.dtype] or not is_alike:
            raise ArtifactError(
                f"{path}: {each.name} is {each.type} {each.shape}; the bundle's card and "
                f"the schema have {spec.dtype} (B, {', '.join(map(str, wanted))})"
            )


def _stacked(rows: Sequence[Tensors]) -> Tensors:
    """Return states of one history each as one batch: short ones are padded with zeros."""
    if len(rows) == 1:
        return rows[0]
    longest = max(row["state_mask"].shape[1] for row in rows)
    return {
        spec.name: np.concatenate(
            [_padded(row[spec.name], spec.shape.index("S") + 1, longest) for row in rows]
        )
        for spec in schema.STATE_TENSORS
    }


def _padded(states: NDArray[Any], axis: int, length: int) -> NDArray[Any]:
    if (missing := length - states.shape[axis]) == 0:
        return states
    before = np.zeros(states.ndim, dtype=int)
    before[axis] = missing
    return np.pad(states, [(each, 0) for each in before])


def _size(history: bytes, states: Tensors) -> int:
    return len(history) + sum(state.nbytes for state in states.values())


def alike(items: NDArray[Any], scores: Tensors) -> Tensors:
    """Give each further place of an item in its request (B, N) its first place's scores.

    A product of matrices rounds its last rows by another kernel: one step of float32.
    """
    for row, ids in enumerate(items.tolist()):
        if len(set(ids)) < len(ids):  # seldom, and looked for in every request
            first: dict[bytes | str, int] = {}
            places = [first.setdefault(each, place) for place, each in enumerate(ids)]
            for name in _BY_ITEM & scores.keys():
                scores[name][row] = scores[name][row, places]
    return scores


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
        if name in _OF_MODELS:
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
    kinds = set(map(type, array.ravel().tolist()))
    if not all(issubclass(kind, (bytes, str)) for kind in kinds):
        raise ValueError(f"{name} has values that are no texts")
