"""Attributes → the fields of the item group, or of the user's, each with slots and rows.

In: the profiles of a training window's items, or users, and the fields that settings
declare. Out: the fields, with the values or bucket edges that a bundle carries for serving.

Rows of an attribute table: 0 pads, 1 is [MASK], then a contiguous range for each field.
All fields share one [MASK]: each has its own part of the projection.
"""

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from srp4ctr.features.config import DEFAULT_BUCKETS, AttributeKind, FieldConfig
from srp4ctr.features.tensors import vector_codes
from srp4ctr.features.tensors.schema import Field
from srp4ctr.streams.events.schema import AVAILABLE
from srp4ctr.streams.events.vectors import numbers_of, vector_text

Attributes = Mapping[str, str | tuple[str, ...]]

FIRST_ATTRIBUTE_ROW = 2
# A value of fewer items, or users, is closer to an id than to an attribute: titles are out.
MIN_ATTRIBUTE_ITEMS = 5
MAX_FOUND_FIELDS = 16  # the most widespread: each widens the model's input
_KEPT_ERROR = 1.1  # how much worse than new codebooks former ones may be, to be kept


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeField:
    """One field of the item group or of the user's, as a bundle knows it."""

    name: str
    kind: AttributeKind
    slots: int = 1
    """Of more known values only the commonest are kept."""
    values: tuple[str, ...] = ()
    """Known values, the commonest first; of a numeric field none."""
    edges: tuple[float, ...] = ()
    """Where one bucket of a numeric field ends and the next begins, ascending."""
    centroids: tuple[str, ...] = ()
    """Of a field of vectors: those of its levels' codes, one level after the other, in
    ``vector_text``; each slot is a level."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The meaning of each of its rows: a value, the number of a bucket, or a code."""
        if self.kind == "numeric":
            return tuple(map(str, range(len(self.edges) + 1)))
        if self.kind != "vector":
            return self.values
        # A code means something in its own codebooks alone.
        books = xxhash.xxh3_64_hexdigest("".join(self.centroids))
        return tuple(f"{books} {number}" for number in range(len(self.centroids)))

    @property
    def books(self) -> NDArray[np.float32]:
        """The codebooks (levels, codes, numbers) of a field of vectors."""
        vectors = _vectors([self.centroids])
        return vectors.reshape(self.slots, -1, vectors.shape[1])

    @property
    def shape(self) -> Field:
        """The field's sizes, for the model."""
        size = len(self.choices)
        return Field(name=self.name, kind=self.kind, size=size, slots=self.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldPlace:
    """A field's place: its slots of A, or of a user's U, and its rows of the table."""

    field: Field
    first_slot: int
    first_row: int

    @property
    def slots(self) -> slice:
        """Its part of the axis."""
        return slice(self.first_slot, self.first_slot + self.field.slots)


def places(fields: Sequence[Field]) -> tuple[FieldPlace, ...]:
    """Return the places of ``fields``, one after the other."""
    placed, slot, row = [], 0, FIRST_ATTRIBUTE_ROW
    for field in fields:
        placed.append(FieldPlace(field=field, first_slot=slot, first_row=row))
        slot, row = slot + field.slots, row + field.size
    return tuple(placed)


def num_slots(fields: Sequence[Field]) -> int:
    """Return A (or U), the slots of all ``fields``; at least 1: no tensor may be empty."""
    return max(1, sum(field.slots for field in fields))


def num_rows(fields: Sequence[Field]) -> int:
    """Return how many rows the attribute table of ``fields`` has."""
    return FIRST_ATTRIBUTE_ROW + sum(field.size for field in fields)


@dataclass(frozen=True, eq=False)
class FieldRows:
    """The rows of the values of ``fields``."""

    fields: tuple[AttributeField, ...]

    @functools.cached_property
    def shapes(self) -> tuple[Field, ...]:
        """The fields' sizes, for the model."""
        return tuple(field.shape for field in self.fields)

    def of(self, attributes: Attributes) -> NDArray[np.int64]:
        """Return the rows (A,) of the known values, 0 where a field has no more."""
        rows = np.zeros(num_slots(self.shapes), dtype=np.int64)
        for place, field in zip(self._places, self.fields, strict=True):
            found = sorted(self._indices(field, values_of(attributes, field.name)))
            kept = np.array(found[: field.slots], dtype=np.int64)
            rows[place.first_slot : place.first_slot + len(kept)] = place.first_row + kept
        return rows

    def _indices(self, field: AttributeField, values: tuple[str, ...]) -> set[int]:
        """Return the rows of ``values``, counted from the field's first."""
        if field.kind == "numeric":
            numbers = [n for value in values if (n := number_of(value)) is not None]
            return set(np.searchsorted(field.edges, numbers, side="right").tolist())
        if field.kind == "vector":
            return self._codes(self._books[field.name], values)
        index_of = self._index_of[field.name]
        return {index_of[value] for value in values if value in index_of}

    def _codes(self, books: NDArray[np.float32], values: tuple[str, ...]) -> set[int]:
        """Return the codes of the vector among ``values``, each level's own."""
        levels, codes, length = books.shape
        vectors = _vectors([values], length)
        if not vectors.any():  # there is none, or it has no direction
            return set()
        found = vector_codes.codes_of(vectors[:1], books)[0]
        return set((found + codes * np.arange(levels)).tolist())

    @functools.cached_property
    def _books(self) -> dict[str, NDArray[np.float32]]:
        return {f.name: f.books for f in self.fields if f.kind == "vector"}

    @functools.cached_property
    def _places(self) -> tuple[FieldPlace, ...]:
        return places(self.shapes)

    @functools.cached_property
    def _index_of(self) -> dict[str, dict[str, int]]:
        return {f.name: {v: i for i, v in enumerate(f.values)} for f in self.fields}


def values_of(attributes: Attributes, name: str) -> tuple[str, ...]:
    """Return the values that ``attributes`` have of the field ``name``."""
    values = attributes.get(name, ())
    return (values,) if isinstance(values, str) else tuple(values)


def number_of(text: str) -> float | None:
    """Return the finite number that ``text`` is, None if it is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def build(
    profiles: Iterable[Attributes],
    declared: Sequence[FieldConfig] = (),
    former: Sequence[AttributeField] = (),
) -> tuple[AttributeField, ...]:
    """Return the fields ``declared``, or if none is, those found in ``profiles``.

    Values of fewer than ``MIN_ATTRIBUTE_ITEMS`` are left out, and so are fields without
    values. The codebooks of ``former`` fields are kept while they describe the vectors, so
    that a refresh which starts from earlier weights finds the same codes.
    """
    known = list(profiles)
    codebooks = {each.name: each for each in former if each.kind == "vector"}
    fields = [
        _vector_field(known, each, codebooks.get(each.name))
        if each.kind == "vector"
        else _field(known, each)
        for each in declared or _found(known)
    ]
    return tuple(
        field for field in fields if field.values or field.edges or field.centroids
    )


def _found(profiles: list[Attributes]) -> list[FieldConfig]:
    """Return a declaration of each attribute, the most widespread few, by name."""
    spread = Counter(name for attributes in profiles for name in attributes)
    del spread[AVAILABLE]
    widest = sorted(spread, key=lambda name: (-spread[name], name))[:MAX_FOUND_FIELDS]
    return [FieldConfig(name=name, kind=_kind(profiles, name)) for name in sorted(widest)]


def _kind(profiles: list[Attributes], name: str) -> AttributeKind:
    """Return what kind a field looks like.

    Numbers are numeric if they are too many to be categories: whole ones that many items
    share (a year, a category's id) are not. Declare a field where this guess is wrong.
    """
    values = [values_of(attributes, name) for attributes in profiles]
    if any(len(value) > 1 for value in values):
        return "multi"
    if all(numbers_of(value) is not None for each in values for value in each):
        return "vector"
    counts = Counter(value for each in values for value in each)
    numbers = [number_of(value) for value in counts]
    if None in numbers or len(counts) <= DEFAULT_BUCKETS:
        return "categorical"
    shared = sum(count for count in counts.values() if count >= MIN_ATTRIBUTE_ITEMS)
    whole = all(number is not None and number.is_integer() for number in numbers)
    return "categorical" if whole and 2 * shared >= counts.total() else "numeric"


def _field(profiles: list[Attributes], declaration: FieldConfig) -> AttributeField:
    name, kind = declaration.name, declaration.kind
    values = [set(values_of(attributes, name)) for attributes in profiles]
    if kind == "numeric":
        numbers = [n for value in values for v in value if (n := number_of(v)) is not None]
        if len(numbers) < MIN_ATTRIBUTE_ITEMS:
            return AttributeField(name=name, kind=kind)
        edges = _edges(numbers, declaration.buckets)
        return AttributeField(name=name, kind=kind, edges=edges)
    counts = Counter(value for each in values for value in each)
    common = [value for value, count in counts.items() if count >= MIN_ATTRIBUTE_ITEMS]
    common.sort(key=lambda value: (-counts[value], value))
    most = max((len(value.intersection(common)) for value in values), default=1)
    slots = min(declaration.slots, max(most, 1)) if kind == "multi" else 1
    return AttributeField(name=name, kind=kind, slots=slots, values=tuple(common))


def _vector_field(
    profiles: list[Attributes], declaration: FieldConfig, former: AttributeField | None
) -> AttributeField:
    """Return a field of the vectors that have the commonest length."""
    name, levels = declaration.name, declaration.slots
    vectors = _vectors([values_of(attributes, name) for attributes in profiles])
    vectors = vectors[vectors.any(axis=1)]
    codes = min(declaration.buckets, len(vectors) // MIN_ATTRIBUTE_ITEMS)
    if codes < 2:
        return AttributeField(name=name, kind="vector")
    books = vector_codes.fit(vectors, levels, codes)
    texts = tuple(vector_text(each.tolist()) for each in books.reshape(-1, books.shape[-1]))
    found = AttributeField(name=name, kind="vector", slots=levels, centroids=texts)
    if former is None or former.slots != levels or former.books.shape != books.shape:
        return found
    most = _KEPT_ERROR * vector_codes.error(vectors, books)
    return former if vector_codes.error(vectors, former.books) <= most else found


def _vectors(values: Iterable[tuple[str, ...]], length: int = 0) -> NDArray[np.float32]:
    """Return the vectors (V, N) in ``values`` of this length; 0 is the commonest one."""
    found = [v for texts in values for text in texts if (v := numbers_of(text)) is not None]
    if not length and found:
        ((length, _),) = Counter(map(len, found)).most_common(1)
    fitting = [each for each in found if len(each) == length]
    return np.array(fitting, dtype=np.float32).reshape(len(fitting), length)


def _edges(numbers: list[float], buckets: int) -> tuple[float, ...]:
    """Return the distinct quantiles that part ``numbers`` into about equal buckets."""
    inner = np.linspace(0.0, 1.0, buckets + 1)[1:-1]
    return tuple(np.unique(np.quantile(numbers, inner)).tolist())
