"""Users' and items' columns, as the store or the log has them: what transforms read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.tensors.schema import ItemStatus

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]
Float32s = NDArray[np.float32]

# Of an item in the table that serving reads: where its attributes' text is, then what
# ``ActivityArrays`` has. All are eight bytes; the counts are float64.
TEXT = 0
COUNTED_AT_MS = 1
FIRST_SEEN_MS = 2
IMPRESSIONS = slice(3, 7)
CLICKS = slice(7, 11)
COUNTS = slice(3, 11)  # both
COLUMNS = 11
# What a bundle knows of it. A note has a bit for attributes, not for their absence, so
# that zeros are right of an item without any.
ITEM_ROW = 0
NOTES = 1
ATTRIBUTES = 2  # from here on


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrays:
    """Named arrays with the same leading axes."""

    def take(self, index: Any) -> Self:
        """Return the rows ``index`` (numbers, mask or slices) of each array."""
        return self._each(lambda array: array[index])

    def _each(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Self:
        """Return the same with each array changed, also in the arrays of its parts."""
        names: Sequence[str] = self.__slots__  # the fields, in order
        changed: dict[str, Any] = {}
        for name in names:
            value = getattr(self, name)
            is_part = isinstance(value, Arrays)
            changed[name] = value._each(change) if is_part else change(value)
        return type(self)(**changed)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SequenceArrays(Arrays):
    """Behaviours of shape (…, L), newest last; key 0 pads on the left."""

    item_keys: Int64s
    action_codes: Int64s
    occurred_at_ms: Int64s
    values: Floats
    """NaN: the behaviour has no value."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActivityArrays(Arrays):
    """Decayed counts as of ``counted_at_ms`` (…)."""

    counts: Floats
    """(…, 2, 4): impressions and clicks, each by half-life."""
    counted_at_ms: Int64s
    first_seen_ms: Int64s
    """0: never seen."""

    @property
    def impressions(self) -> Floats:
        """Those of ``counts`` (…, 4)."""
        return self.counts[..., 0, :]

    @property
    def clicks(self) -> Floats:
        """Those of ``counts`` (…, 4)."""
        return self.counts[..., 1, :]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExposureArrays(Arrays):
    """The last items shown to users, of shape (…, W), newest last; key 0 pads."""

    item_keys: Int64s
    shown_at_ms: Int64s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemExposures(Arrays):
    """How often and when items were shown to the user before, of shape (…, N)."""

    counts: Int64s
    """Among the kept exposures."""
    last_shown_ms: Int64s
    """0: never."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CandidateArrays(Arrays):
    """The N candidates of requests, and what their users did, as of the requests' times.

    The leading axes are those of the requests.
    """

    request_time_ms: Int64s
    """(…)"""
    item_keys: Int64s
    """(…, N); key 0 pads."""
    attribute_rows: NDArray[Any]
    """(…, N, A)"""
    activity: ActivityArrays
    """(…, N)"""
    total: ActivityArrays
    """(…): of all items together."""
    exposures: ItemExposures
    """(…, N), to the request's user."""
    sequences: SequenceArrays
    """(…, L)"""
    history_attribute_rows: NDArray[Any]
    """(…, L, A), of the items in ``sequences``."""
    number_columns: Float32s
    """(…, N, J): what ``candidate_numbers`` makes of the callers' numbers, or an answer
    returned; FROM_LAST is NaN where it is to be computed of ``sequences``."""

    def flattened(self) -> "CandidateArrays":
        """Return the same with one leading axis."""
        axes, count = self.request_time_ms.ndim, self.request_time_ms.size
        return self._each(lambda array: array.reshape(count, *array.shape[axes:]))


def empty_sequences(count: int, length: int) -> SequenceArrays:
    """Return ``count`` empty sequences (count, L)."""
    return SequenceArrays(
        item_keys=np.zeros((count, length), dtype=np.int64),
        action_codes=np.zeros((count, length), dtype=np.int64),
        occurred_at_ms=np.zeros((count, length), dtype=np.int64),
        values=np.full((count, length), np.nan),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UserArrays:
    """B users as the store has them; an unknown one is empty."""

    sequences: SequenceArrays
    activity: ActivityArrays
    exposures: ExposureArrays
    attributes: tuple[str, ...]
    """JSON, "" for none."""
    statuses: tuple[str, ...]
    """B of ``schema.RequestStatus``."""
    versions: tuple[str, ...]
    """``user=V@O``, or "" where there is no row: its version in us and the last offset
    folded into it, enough to recompute it from the log."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TableArrays:
    """One generation of the table of items: ``item_map.py`` says how it is read."""

    buckets: Int64s
    """(buckets, 8): the items' keys; 0 is free."""
    bucket_rows: NDArray[np.int32]
    """(buckets, 8): their rows."""
    versions: Int64s
    """(rows,)"""
    halves: Int64s
    """(2 rows, COLUMNS)"""
    shift: int
    """Of a key's hash of 64 bits, which leaves a number of a bucket."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemRows:
    """Rows, attributes and counters of items; arrays begin with the shape of their keys."""

    known: Int64s
    """(…, 2 + A): the bundle's row of the item, its notes, and its attributes' rows."""
    columns: Int64s
    """(…, COLUMNS)"""
    version: int
    """When the table was last up to date, UTC ms: it holds what was stored then. 0 before
    all items are read."""

    def take(self, index: Any) -> "ItemRows":
        """Return the items ``index`` (numbers, mask or slices)."""
        return ItemRows(
            known=self.known[index], columns=self.columns[index], version=self.version
        )

    @property
    def item_rows(self) -> Int64s:
        """The items' rows (…): see ``Vocabulary.item_rows``."""
        return self.known[..., ITEM_ROW]

    @property
    def attribute_rows(self) -> Int64s:
        """Their attributes' rows (…, A)."""
        return self.known[..., ATTRIBUTES:]

    @property
    def status(self) -> Int64s:
        """What is unknown of the items' attributes (…), as bits of ``ItemStatus``."""
        return self.known[..., NOTES] ^ ItemStatus.NO_ATTRIBUTES

    @property
    def is_available(self) -> NDArray[np.bool_]:
        """Whether (…) the last update of an item does not say that it is gone."""
        found: NDArray[np.bool_] = (self.status & ItemStatus.UNAVAILABLE) == 0
        return found

    @property
    def activity(self) -> ActivityArrays:
        """Their counters."""
        counts = self.columns[..., COUNTS].view(np.float64)
        return ActivityArrays(
            counts=counts.reshape(*self.columns.shape[:-1], 2, -1),
            counted_at_ms=self.columns[..., COUNTED_AT_MS],
            first_seen_ms=self.columns[..., FIRST_SEEN_MS],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoundUsers:
    """B users as of their requests, with the items of their histories."""

    arrays: UserArrays
    times_ms: Int64s
    """(B,): the requests' times, or the clock's."""
    history: Mapping[str, NDArray[Any]]
    """HISTORY_TENSORS"""
