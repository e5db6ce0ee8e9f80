"""Item keys and attribute values → rows of the model's tables.

In: counts of a training window. Out: a frozen mapping that travels in the bundle, so that
the stream needs no vocabulary and an unseen item still has a row.

Item rows: 0 pads, 1 is the mask, 2..1+num_oov are shared by unknown items (by their key),
then the known ones. Attribute rows: 0 pads, 1 is the mask, then the known ``field=value``,
the commonest first; an unknown value is dropped.
"""

import functools
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from features.schema import ATTRIBUTE_SLOTS

Attributes = Mapping[str, str | tuple[str, ...]]
Int64s = NDArray[np.int64]

PAD_ROW = 0
MASK_ROW = 1
FIRST_OOV_ROW = 2
FIRST_ATTRIBUTE_ROW = 2
# A value of fewer items is closer to an id than to an attribute: titles fall out.
MIN_ATTRIBUTE_ITEMS = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """The rows that one bundle gives to items and attribute values."""

    item_keys: Int64s
    """Known items, ascending."""
    attribute_values: tuple[str, ...]
    """Known ``field=value``, the commonest first."""
    num_oov_rows: int

    def __post_init__(self) -> None:
        if self.num_oov_rows < 1:
            raise ValueError(f"{self.num_oov_rows=}; at least 1: an unknown item needs one")
        if np.any(np.diff(self.item_keys) <= 0):
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
    def num_attribute_rows(self) -> int:
        """Rows of the attribute table."""
        return FIRST_ATTRIBUTE_ROW + len(self.attribute_values)

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
        """Return the rows (A,) of an item's known values: the commonest A, 0 pads."""
        row_of = self._attribute_row_of
        found = sorted({row_of[v] for v in named_values(attributes) if v in row_of})
        rows = np.zeros(ATTRIBUTE_SLOTS, dtype=np.int64)
        rows[: len(found)] = found[:ATTRIBUTE_SLOTS]
        return rows

    @functools.cached_property
    def _attribute_row_of(self) -> dict[str, int]:
        return {v: FIRST_ATTRIBUTE_ROW + i for i, v in enumerate(self.attribute_values)}


def named_values(attributes: Attributes) -> list[str]:
    """Return each attribute value as ``field=value``."""
    return [
        f"{name}={value}"
        for name, values in attributes.items()
        for value in ((values,) if isinstance(values, str) else values)
    ]


def parse_attributes(text: str) -> dict[str, str | tuple[str, ...]]:
    """Return the attributes in JSON ``text`` ("": none); lists become tuples."""
    attributes: dict[str, str | list[str]] = json.loads(text) if text else {}
    return {k: v if isinstance(v, str) else tuple(v) for k, v in attributes.items()}


def build(
    item_counts: Mapping[int, int],
    profiles: Iterable[Attributes],
    *,
    num_oov_rows: int = 16,
    min_item_count: int = 1,
    min_attribute_items: int = MIN_ATTRIBUTE_ITEMS,
) -> Vocabulary:
    """Return the vocabulary of items seen often enough, and of their common attributes.

    ``item_counts`` counts events by item_key; ``profiles`` are the attributes of each item.
    """
    keys = sorted(key for key, count in item_counts.items() if count >= min_item_count)
    counts: Counter[str] = Counter()
    for attributes in profiles:
        counts.update(set(named_values(attributes)))
    common = [value for value, count in counts.items() if count >= min_attribute_items]
    return Vocabulary(
        item_keys=np.array(keys, dtype=np.int64),
        attribute_values=tuple(sorted(common, key=lambda value: (-counts[value], value))),
        num_oov_rows=num_oov_rows,
    )


def save(vocabulary: Vocabulary, path: Path) -> None:
    """Write ``vocabulary`` as JSON, whole or not at all."""
    content = {
        "num_oov_rows": vocabulary.num_oov_rows,
        "item_keys": vocabulary.item_keys.tolist(),
        "attribute_values": list(vocabulary.attribute_values),
    }
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(json.dumps(content) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def load(path: Path) -> Vocabulary:
    """Return the vocabulary in ``path``; ``ValueError`` names a file that is not one."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Vocabulary(
            item_keys=np.array(content["item_keys"], dtype=np.int64),
            attribute_values=tuple(content["attribute_values"]),
            num_oov_rows=content["num_oov_rows"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a vocabulary: {error!r}") from error
