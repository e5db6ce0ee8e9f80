"""Items' attributes → the fields of the item group, each with its slots and rows.

In: the profiles of a training window, and the fields that settings declare. Out: the
fields, with the values or bucket edges that a bundle carries for serving.

Rows of the attribute table: 0 pads, 1 is [MASK], then a contiguous range for each field.
All fields share one [MASK]: each has its own part of the projection.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from srp4ctr.features.config import DEFAULT_BUCKETS, ItemFieldConfig, ItemFieldKind
from srp4ctr.features.tensors.schema import Field
from srp4ctr.streams.events.schema import AVAILABLE

Attributes = Mapping[str, str | tuple[str, ...]]

FIRST_ATTRIBUTE_ROW = 2
# A value of fewer items is closer to an id than to an attribute: titles fall out.
MIN_ATTRIBUTE_ITEMS = 5
MAX_FOUND_FIELDS = 16  # the most widespread: each widens the model's input


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemField:
    """One field of the item group, as a bundle knows it."""

    name: str
    kind: ItemFieldKind
    slots: int = 1
    """An item with more known values keeps only the commonest."""
    values: tuple[str, ...] = ()
    """Known values, the commonest first; of a numeric field none."""
    edges: tuple[float, ...] = ()
    """Where one bucket of a numeric field ends and the next begins, ascending."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The meaning of each of its rows: a value, or the number of a bucket."""
        buckets = range(len(self.edges) + 1)
        return tuple(map(str, buckets)) if self.kind == "numeric" else self.values

    @property
    def shape(self) -> Field:
        """The field's sizes, for the model."""
        size = len(self.choices)
        return Field(name=self.name, kind=self.kind, size=size, slots=self.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldPlace:
    """A field's place: its slots of an item's A, and its rows of the table."""

    field: Field
    first_slot: int
    first_row: int

    @property
    def slots(self) -> slice:
        """Its part of the axis A."""
        return slice(self.first_slot, self.first_slot + self.field.slots)


def places(fields: Sequence[Field]) -> tuple[FieldPlace, ...]:
    """Return the places of ``fields``, one after the other."""
    placed, slot, row = [], 0, FIRST_ATTRIBUTE_ROW
    for field in fields:
        placed.append(FieldPlace(field=field, first_slot=slot, first_row=row))
        slot, row = slot + field.slots, row + field.size
    return tuple(placed)


def num_slots(fields: Sequence[Field]) -> int:
    """Return A, the slots of all ``fields``; at least 1, for no tensor may be empty."""
    return max(1, sum(field.slots for field in fields))


def num_rows(fields: Sequence[Field]) -> int:
    """Return how many rows the attribute table of ``fields`` has."""
    return FIRST_ATTRIBUTE_ROW + sum(field.size for field in fields)


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
    profiles: Iterable[Attributes], declared: Sequence[ItemFieldConfig] = ()
) -> tuple[ItemField, ...]:
    """Return the fields ``declared``, or if none is, those found in ``profiles``.

    Values of fewer than ``MIN_ATTRIBUTE_ITEMS`` are left out, and so are fields without
    values.
    """
    known = list(profiles)
    fields = [_field(known, each) for each in declared or _found(known)]
    return tuple(field for field in fields if field.values or field.edges)


def _found(profiles: list[Attributes]) -> list[ItemFieldConfig]:
    """Return a declaration of each attribute, the most widespread few, by name."""
    spread = Counter(name for attributes in profiles for name in attributes)
    del spread[AVAILABLE]
    widest = sorted(spread, key=lambda name: (-spread[name], name))[:MAX_FOUND_FIELDS]
    return [
        ItemFieldConfig(name=name, kind=_kind(profiles, name)) for name in sorted(widest)
    ]


def _kind(profiles: list[Attributes], name: str) -> ItemFieldKind:
    """Return what kind a field looks like.

    Numbers are numeric if they are too many to be categories: whole ones that many items
    share (a year, a category's id) are not. Declare a field where this guess is wrong.
    """
    values = [values_of(attributes, name) for attributes in profiles]
    if any(len(each) > 1 for each in values):
        return "multi"
    counts = Counter(value for each in values for value in each)
    numbers = [number_of(value) for value in counts]
    if None in numbers or len(counts) <= DEFAULT_BUCKETS:
        return "categorical"
    shared = sum(count for count in counts.values() if count >= MIN_ATTRIBUTE_ITEMS)
    whole = all(number is not None and number.is_integer() for number in numbers)
    return "categorical" if whole and 2 * shared >= counts.total() else "numeric"


def _field(profiles: list[Attributes], declaration: ItemFieldConfig) -> ItemField:
    name, kind = declaration.name, declaration.kind
    values = [set(values_of(attributes, name)) for attributes in profiles]
    if kind == "numeric":
        numbers = [n for each in values for v in each if (n := number_of(v)) is not None]
        if len(numbers) < MIN_ATTRIBUTE_ITEMS:
            return ItemField(name=name, kind=kind)
        edges = _edges(numbers, declaration.buckets)
        return ItemField(name=name, kind=kind, edges=edges)
    counts = Counter(value for each in values for value in each)
    common = [value for value, count in counts.items() if count >= MIN_ATTRIBUTE_ITEMS]
    common.sort(key=lambda value: (-counts[value], value))
    most = max((len(each.intersection(common)) for each in values), default=1)
    slots = min(declaration.slots, max(most, 1)) if kind == "multi" else 1
    return ItemField(name=name, kind=kind, slots=slots, values=tuple(common))


def _edges(numbers: list[float], buckets: int) -> tuple[float, ...]:
    """Return the distinct quantiles that part ``numbers`` into about equal buckets."""
    inner = np.linspace(0.0, 1.0, buckets + 1)[1:-1]
    return tuple(np.unique(np.quantile(numbers, inner)).tolist())
