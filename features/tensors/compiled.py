"""A request's tensors, by ``compiled.c``: its user's row and the table of items → arrays.

What is computed is defined with numpy, in ``transforms.py``, ``packing.py`` and
``item_map.py``, which training, the checks and recommendations use. Each call of numpy
between two runs of a model runs code that the processor's caches no longer have: compiled,
a request costs a ninth less. Without the library, which ``hatch_build.py`` makes when the
package is installed, serving computes with numpy.
"""

import ctypes
import logging
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features import columns
from srp4ctr.features.columns import (
    MAX_ACTION_CODES,
    MAX_MAIN_FIELDS,
    CandidateColumns,
)
from srp4ctr.features.tensors import transforms
from srp4ctr.features.tensors.arrays import ATTRIBUTES, Float32s, Int64s, TableArrays
from srp4ctr.features.tensors.schema import (
    BEHAVIOR_FIELDS,
    NUM_GAP_BUCKETS,
    NUM_VALUE_BUCKETS,
    ItemStatus,
)
from srp4ctr.features.tensors.vocabulary import FIRST_OOV_ROW, Vocabulary
from srp4ctr.streams.events.schema import TOTAL_KEY
from srp4ctr.streams.state.sequences import BehaviorSequence
from srp4ctr.streams.state.user_state import UserState

LOG = logging.getLogger(__name__)

SOURCE = Path(__file__).with_suffix(".c")
# In the order of hatch_build.py, which numbers them.
_HEADERS = ("columns.h", "compiled.h", "key_map.h")
SOURCES = (SOURCE, *(SOURCE.with_name(name) for name in _HEADERS))
LIBRARY = SOURCE.with_name("libcompiled.so")
_FIELDS, _R, _C = len(BEHAVIOR_FIELDS), columns.REQUEST.width, columns.CANDIDATE.width
_TO_PARSE, _NO_MEMORY = -1, -2
# ``Fixed`` and ``Request`` of compiled.c, whose members have eight bytes each.
_FIXED = struct.Struct(f"<10d{20 + MAX_MAIN_FIELDS + MAX_ACTION_CODES}q7Q")
_REQUEST = struct.Struct("<3q8d11q9Q")
FIXED_BYTES = _FIXED.size
OF_TABLE = ("buckets", "bucket_rows", "versions", "halves")
_CONSTANTS = (
    *transforms.DECAY_PER_MS,
    transforms.PRIOR_IMPRESSIONS * transforms.PRIOR_RATE,
    transforms.PRIOR_IMPRESSIONS,
    transforms.AFFINITY_DECAY_PER_MS,
    transforms.PRIOR_RATE,
    transforms.NEVER_S / 3600.0,
    transforms.SHARE_SCALE,
    transforms.CLICK,
    NUM_GAP_BUCKETS,
    NUM_VALUE_BUCKETS,
)
_STATUSES = (
    ItemStatus.UNKNOWN_ITEM,
    ItemStatus.NO_ACTIVITY,
    ItemStatus.NO_ATTRIBUTES,
    ItemStatus.PADDING,
)


def _loaded(path: Path) -> Any:
    """Return the library's function; None if it is missing, or of another source."""
    try:
        # It keeps the interpreter's lock, whose return takes longer than what is computed.
        library = ctypes.PyDLL(str(path))
        library.srp4ctr_source.restype = ctypes.c_uint32
        content = b"".join(source.read_bytes() for source in SOURCES)
        if library.srp4ctr_source() != zlib.crc32(content):
            raise OSError(f"{path} is of another {SOURCE.name}: install the package again")
        widths = (ctypes.c_int32 * 3).in_dll(library, "srp4ctr_widths")
        if tuple(widths) != (_FIELDS, _R, _C):
            raise OSError(f"{SOURCE.name} has other columns than columns.py")
    except (AttributeError, OSError, ValueError) as error:
        LOG.warning("features are computed by numpy, which takes more CPU: %s", error)
        return None
    function = library.srp4ctr_assemble
    texts, addresses = [ctypes.c_char_p], [ctypes.c_void_p]
    function.argtypes = [*texts * 2, *addresses * 2, *texts * 6]
    function.restype = ctypes.c_int64
    return function


def fixed(
    vocabulary: Vocabulary, table: TableArrays, width: int, places: Mapping[str, int]
) -> bytes:
    """Return ``Fixed`` of compiled.c; ``places`` are where its arrays are."""
    made = vocabulary.candidate_columns
    return _FIXED.pack(
        *_CONSTANTS,
        made.layout.width,
        *_STATUSES,
        FIRST_OOV_ROW,
        vocabulary.num_oov_rows,
        vocabulary.first_known_row,
        len(vocabulary.item_keys),
        table.shift,
        len(table.buckets) // 2,
        width,
        TOTAL_KEY,
        len(made.numbers),
        *_own_history(made),
        *(places[name] for name in ("item_keys", *OF_TABLE, "texts", "known")),
    )


def _own_history(made: CandidateColumns) -> list[int]:
    """Return what ``Fixed`` of compiled.c has of a user's own history."""
    slots = [slot for _, slot in made.main_fields]
    places = [-1] * MAX_ACTION_CODES
    for place, (_, code) in enumerate(made.actions):
        places[code] = place
    padding = [0] * (MAX_MAIN_FIELDS - len(slots))
    sizes = (made.visit_gap_ms, len(made.actions), len(slots))
    return [*sizes, *slots, *padding, *places]


@cache
def _function() -> Any:
    return _loaded(LIBRARY)


def is_loaded() -> bool:
    """Return whether there is a library: if not, numpy computes."""
    return _function() is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRequest:
    """A user's row, and what of the request is not of an item."""

    user: UserState
    at_ms: int
    after_ms: int
    """Behaviours until then are not read."""
    numbers: NDArray[Any]
    """(NUM_CONTEXT_NUMBERS,): of the context."""
    utc_offset_ms: int
    """How far the user's clock is ahead."""
    candidate_numbers: Float32s | None = None
    """(N, K), NaN where one is missing; None: all are."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assembled:
    """B requests as tensors."""

    tensors: Mapping[str, NDArray[Any]]
    """HISTORY_TENSORS and CANDIDATE_TENSORS of the schema, and request_features."""
    item_status: NDArray[np.uint8]
    """(B, N): bits of ``ItemStatus``."""
    behaviors: Sequence[int]
    """B: how many behaviours were read."""


class Assembler:
    """Makes tensors from one generation of the table of items, as one bundle knows it."""

    def __init__(
        self,
        table: TableArrays,
        texts: Int64s,
        known: NDArray[np.int32],
        vocabulary: Vocabulary,
    ) -> None:
        """``known`` (rows, 2 + A) is of the numbers in ``texts`` (rows,)."""
        self._function, self._slots = _function(), known.shape[1] - ATTRIBUTES
        # Kept as long as their addresses.
        self._arrays: dict[str, NDArray[Any]] = {
            "item_keys": np.ascontiguousarray(vocabulary.item_keys, dtype=np.int64),
            **{name: getattr(table, name) for name in OF_TABLE},
            "texts": texts,
            "known": known,
        }
        places = {name: address(each) for name, each in self._arrays.items()}
        self._fixed = fixed(vocabulary, table, known.shape[1], places)
        self._width = vocabulary.candidate_columns.layout.width

    def __call__(
        self, requests: Sequence[UserRequest], item_keys: Int64s, sizes: tuple[int, int]
    ) -> Assembled | None:
        """Return the tensors of B requests and their items (B, N), by L and W.

        None if the attributes of an item are to be parsed first.
        """
        batch, count = item_keys.shape
        length, slots = sizes[0], self._slots
        keys = np.ascontiguousarray(item_keys, dtype=np.int64)
        tensors = {
            "history_item_rows": np.empty((batch, length), np.int64),
            "history_attribute_rows": np.empty((batch, length, slots), np.int64),
            "history_behavior_codes": np.empty((batch, length, _FIELDS), np.int64),
            "request_features": np.empty((batch, _R), np.float32),
            "candidate_item_rows": np.empty((batch, count), np.int64),
            "candidate_attribute_rows": np.empty((batch, count, slots), np.int64),
            "candidate_features": np.empty((batch, count, self._width), np.float32),
        }
        status = np.empty((batch, count), np.uint8)
        behaviors = []
        for place, request in enumerate(requests):
            into = [address(each[place]) for each in (*tensors.values(), status)]
            found = self._assemble(request, keys[place], sizes, into)
            if found == _TO_PARSE:
                return None
            behaviors.append(found)
        return Assembled(tensors=tensors, item_status=status, behaviors=behaviors)

    def _assemble(
        self, request: UserRequest, keys: Int64s, sizes: tuple[int, int], into: list[int]
    ) -> int:
        """Write the tensors of ``request`` to the addresses ``into``."""
        user, numbers = request.user, np.ascontiguousarray(request.numbers, np.float64)
        done, shown = user.sequence, user.exposures
        of_items = request.candidate_numbers
        if of_items is not None:
            of_items = np.ascontiguousarray(of_items, np.float32)
        packed = _REQUEST.pack(
            request.at_ms,
            request.after_ms,
            request.utc_offset_ms,
            *user.impressions,
            *user.clicks,
            user.counted_at_ms,
            *_sizes(done),
            len(done.values) // 8,
            *_sizes(shown),
            *sizes,
            len(keys),
            *into,
            0 if of_items is None else address(of_items),
        )
        columns = done.times, done.keys, done.codes, done.values, shown.times, shown.keys
        found: int = self._function(
            self._fixed, packed, address(keys), address(numbers), *columns
        )
        if found == _NO_MEMORY:
            raise MemoryError("no memory for the features of a request")
        return found


def _sizes(sequence: BehaviorSequence) -> tuple[int, int, int]:
    """Return the number of elements, the bytes of a time, and what times count from."""
    return len(sequence), 4 if sequence.is_narrow else 8, sequence.base_ms


def address(array: NDArray[Any]) -> int:
    """Return where the memory of ``array`` begins."""
    found: int = array.__array_interface__["data"][0]
    return found
