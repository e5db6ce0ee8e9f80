"""Item keys and attribute values → rows of the model's tables.

In: counts of a training window. Out: a frozen mapping that is part of the bundle: the
stream needs no vocabulary, and an unseen item has a row too.

Item rows: 0 pads, 1 is the mask, 2..1+num_oov are shared by unknown items (by their key),
then the known ones. Attribute rows are those of ``item_fields.py``; an unknown value has
none.
"""

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xxhash
from msgspec import MsgspecError
from numpy.typing import ArrayLike, NDArray

from srp4ctr.atomic_files import replace_text
from srp4ctr.errors import ArtifactError, MistakeError
from srp4ctr.features.columns import (
    MAX_MAIN_FIELDS,
    MAX_NUMBER,
    NUM_CONTEXT_NUMBERS,
    CandidateColumns,
)
from srp4ctr.features.tensors import item_fields
from srp4ctr.features.tensors.item_fields import (
    AttributeField,
    Attributes,
    FieldRows,
    number_of,
)
from srp4ctr.features.tensors.schema import (
    CONTEXT_SLOTS,
    NUM_CONTEXT_ROWS,
    UTC_OFFSET_FIELD,
    UTC_OFFSETS,
    Field,
)
from srp4ctr.streams.events.schema import MAX_CONTEXT_FIELDS, MAX_ID_LENGTH

Int64s = NDArray[np.int64]
Float32s = NDArray[np.float32]

PAD_ROW = 0
MASK_ROW = 1
FIRST_OOV_ROW = 2
NUM_OOV_ROWS = 16  # that unknown items share
FIRST_KNOWN_ROW = FIRST_OOV_ROW + NUM_OOV_ROWS
_NUMBERS_SHARE = 0.9  # of a context field's values, where it is one of numbers


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """The rows that one bundle gives to items and attribute values."""

    item_keys: Int64s
    """Known items, ascending."""
    item_fields: tuple[AttributeField, ...]
    """The item group of side information."""
    num_oov_rows: int
    user_fields: tuple[AttributeField, ...] = ()
    """Users' attributes; a bundle without any has no ``schema.USER_TENSORS``."""
    context_numbers: tuple[str, ...] = ()
    """The context's fields that are numbers, one ``context_number`` column each."""
    candidate_numbers: tuple[str, ...] = ()
    """Numbers that callers send of a candidate, of each some columns of its own."""
    utc_offset_minutes: int = 0
    """Of users whose context does not have it: ``features.utc_offset_minutes``."""
    actions: tuple[tuple[str, int], ...] = ()
    """Names and codes of the actions with columns of their own, by code; none where all
    behaviours are of one action."""
    visit_gap_ms: int = 1_800_000
    """A visit ends after so long without a behaviour: ``features.visit_gap_minutes``."""
    context_fields: tuple[str, ...] = ()
    """Names of the context's fields in the training window."""

    def __post_init__(self) -> None:
        if self.num_oov_rows < 1:
            raise ValueError(f"{self.num_oov_rows=}; at least 1: an unknown item needs one")
        if self.item_keys.ndim != 1 or np.any(np.diff(self.item_keys) <= 0):
            raise ValueError("item_keys are not ascending and distinct")

    @property
    def first_known_row(self) -> int:
        """The row of the first known item."""
        return FIRST_OOV_ROW + self.num_oov_rows

    @property
    def num_item_rows(self) -> int:
        """Rows of the item table."""
        return self.first_known_row + len(self.item_keys)

    @property
    def field_shapes(self) -> tuple[Field, ...]:
        """The sizes of the item fields, for the model."""
        return self._of_items.shapes

    @property
    def user_field_shapes(self) -> tuple[Field, ...]:
        """The sizes of the user fields."""
        return self._of_users.shapes

    @functools.cached_property
    def candidate_columns(self) -> CandidateColumns:
        """The columns of candidate_features.

        The main fields are those with one value per item that have the most values: a
        brand or a category rather than a flag.
        """
        places = item_fields.places(self.field_shapes)
        single = [p for p in places if p.field.kind == "categorical"]
        main = sorted(single, key=lambda place: -place.field.size)[:MAX_MAIN_FIELDS]
        return CandidateColumns(
            actions=self.actions,
            main_fields=tuple((p.field.name, p.first_slot) for p in single if p in main),
            numbers=self.candidate_numbers,
            visit_gap_ms=self.visit_gap_ms,
        )

    @property
    def num_attribute_slots(self) -> int:
        """Number of attribute slots per item (A)."""
        return item_fields.num_slots(self.field_shapes)

    @property
    def num_user_slots(self) -> int:
        """U; 0 where users have no attributes."""
        return item_fields.num_slots(self.user_field_shapes) if self.user_fields else 0

    def item_rows(self, keys: ArrayLike) -> Int64s:
        """Return the rows of ``keys`` (any shape, int64); key 0 is padding: row 0."""
        wanted = np.asarray(keys, dtype=np.int64)
        hashed = wanted.astype(np.uint64) % np.uint64(self.num_oov_rows)
        rows = FIRST_OOV_ROW + hashed.astype(np.int64)
        if len(self.item_keys):
            index = np.searchsorted(self.item_keys, wanted)
            index = np.minimum(index, len(self.item_keys) - 1)
            known = self.item_keys[index] == wanted
            rows = np.where(known, self.first_known_row + index, rows)
        return np.where(wanted == 0, PAD_ROW, rows)

    def is_known(self, rows: ArrayLike) -> NDArray[np.bool_]:
        """Return where item ``rows`` are an item's own, not padding, mask or shared."""
        return np.asarray(rows) >= self.first_known_row

    def attribute_rows(self, attributes: Attributes) -> Int64s:
        """Return the rows (A,) of an item's known values, 0 where a field has no more."""
        return self._of_items.of(attributes)

    def user_attribute_rows(self, text: str) -> Int64s:
        """Return the rows (U,) of a user's attributes in JSON ``text``; "": none."""
        return self._of_users.of(parse_attributes(text))

    def unknown_fields(self, context: Mapping[str, str]) -> list[str]:
        """Return the names of a context's fields that training never saw."""
        return sorted(context.keys() - {UTC_OFFSET_FIELD, *self.context_fields})

    def utc_offset_ms(self, context: Mapping[str, str]) -> int:
        """Return how far the clock of the request's user is ahead of UTC.

        Raises ``MistakeError`` for a field that is none of ``UTC_OFFSETS``.
        """
        text = context.get(UTC_OFFSET_FIELD)
        if text is None:
            return self.utc_offset_minutes * 60_000
        minutes = int(text) if re.fullmatch("-?[0-9]{1,3}", text) else None
        if minutes is None or minutes not in UTC_OFFSETS:
            raise MistakeError(
                f"context field {UTC_OFFSET_FIELD} is {text!r:.40}: whole minutes from "
                f"{UTC_OFFSETS[0]} to {UTC_OFFSETS[-1]}, as text"
            )
        return minutes * 60_000

    def utc_offsets_ms(self, contexts: Sequence[str | None]) -> Int64s:
        """Return the offsets (R,) of logged contexts; of a wrong one, the default."""
        known: dict[str | None, int] = {}
        for text in set(contexts):
            try:
                known[text] = self.utc_offset_ms(parse_context(text))
            except MistakeError:  # no caller was served with it
                known[text] = self.utc_offset_ms({})
        return np.array([known[text] for text in contexts], dtype=np.int64)

    @functools.cached_property
    def _of_items(self) -> FieldRows:
        return FieldRows(self.item_fields)

    @functools.cached_property
    def _of_users(self) -> FieldRows:
        return FieldRows(self.user_fields)


def parse_attributes(text: str) -> dict[str, str | tuple[str, ...]]:
    """Return the attributes in JSON ``text`` ("": none); lists become tuples."""
    attributes: dict[str, str | list[str]] = json.loads(text) if text else {}
    return {k: v if isinstance(v, str) else tuple(v) for k, v in attributes.items()}


def build(
    item_counts: Mapping[int, int],
    profiles: Iterable[Attributes],
    *,
    num_oov_rows: int = NUM_OOV_ROWS,
    min_item_count: int = 1,
) -> Vocabulary:
    """Return the vocabulary of items seen often enough, and of their fields.

    ``item_counts`` counts events by item_key; ``profiles`` are the attributes of each item,
    in which the fields are found.
    """
    keys = sorted(key for key, count in item_counts.items() if count >= min_item_count)
    return Vocabulary(
        item_keys=np.array(keys, dtype=np.int64),
        item_fields=item_fields.build(profiles),
        num_oov_rows=num_oov_rows,
    )


def numbers_of(contexts: Iterable[str | None]) -> tuple[str, ...]:
    """Return the names of the context's fields that are numbers, the first by name.

    Those with more than two values, of which nine in ten are finite numbers: a yes or no
    is none, and a few broken values change nothing.
    """
    values: dict[str, set[str]] = {}
    for text in set(contexts):
        for name, value in parse_context(text).items():
            values.setdefault(name, set()).add(value)
    values.pop(UTC_OFFSET_FIELD, None)
    names = [
        name
        for name, given in sorted(values.items())
        if sum(number_of(value) is not None for value in given)
        > max(_NUMBERS_SHARE * len(given), 2)
    ]
    return tuple(names[:NUM_CONTEXT_NUMBERS])


def context_rows(context: Mapping[str, str]) -> Int64s:
    """Return context_rows (X,): hashes of ``name=value`` by name, 0 pads."""
    rows = np.zeros(CONTEXT_SLOTS, dtype=np.int64)
    names = sorted(context.keys() - {UTC_OFFSET_FIELD})
    for slot, name in enumerate(names[:CONTEXT_SLOTS]):
        hashed = xxhash.xxh3_64_intdigest(f"{name}={context[name]}")
        rows[slot] = 1 + hashed % (NUM_CONTEXT_ROWS - 1)
    return rows


def context_numbers(context: Mapping[str, str], names: Sequence[str]) -> Float32s:
    """Return the last columns (NUM_CONTEXT_NUMBERS,) of request_features.

    The ``names`` that are numbers in ``context``, in their order; 0 for what is not given
    or no number.
    """
    numbers = np.zeros(NUM_CONTEXT_NUMBERS, dtype=np.float32)
    for place, name in enumerate(names):
        number = number_of(context.get(name, "")) or 0.0
        numbers[place] = np.clip(number, -MAX_NUMBER, MAX_NUMBER)
    return numbers


def fields_of(contexts: Iterable[str | None]) -> tuple[str, ...]:
    """Return the names of all fields of ``contexts``, in order."""
    names = {name for text in set(contexts) for name in parse_context(text)}
    return tuple(sorted(names - {UTC_OFFSET_FIELD}))


def parse_context(text: str | None) -> dict[str, str]:
    """Return the flat map in ``text`` (JSON; empty or None: no context).

    Raises ``MistakeError`` with a sentence for the caller.
    """
    if not text:
        return {}
    try:
        context = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MistakeError(f"context is not JSON: {error}") from None
    if not isinstance(context, dict):
        kind = type(context).__name__
        raise MistakeError(f"context is a JSON {kind}; expected an object")
    if (count := len(context)) > MAX_CONTEXT_FIELDS:
        raise MistakeError(f"context has {count} fields; at most {MAX_CONTEXT_FIELDS}")
    for name, value in context.items():
        field = f"context field {name[:40]!r}"
        if not isinstance(value, str):
            raise MistakeError(f"{field} is not a string: {value!r:.100}")
        if max(len(name), len(value)) > MAX_ID_LENGTH:
            raise MistakeError(f"{field} is over {MAX_ID_LENGTH} letters")
    return context


def save(vocabulary: Vocabulary, path: Path) -> None:
    """Write ``vocabulary`` as JSON, whole or not at all."""
    content = msgspec.json.encode(vocabulary, enc_hook=np.ndarray.tolist)
    replace_text(path, content.decode() + "\n")


def load(path: Path) -> Vocabulary:
    """Return the vocabulary in ``path``; ``ArtifactError`` names a file that is not one."""

    def item_keys(_: Any, keys: Any) -> Int64s:
        return np.array(keys, dtype=np.int64)

    try:
        return msgspec.json.decode(path.read_bytes(), type=Vocabulary, dec_hook=item_keys)
    except (OSError, ValueError, OverflowError, RecursionError, MsgspecError) as error:
        raise ArtifactError(f"{path} is not a vocabulary: {error!r}") from error
