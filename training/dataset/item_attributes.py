"""Items' updates → their attributes' rows in a vocabulary, as of any request.

In: what ``features.offline.profiles`` read from the event log. Out: a table that is
searched by item and time, so that training sees what serving saw.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from srp4ctr.features.tensors.item_fields import Attributes
from srp4ctr.features.tensors.vocabulary import Vocabulary, parse_attributes

_Int64s = NDArray[np.int64]
_NEWEST = np.int64(np.iinfo(np.int64).max)


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemAttributes:
    """Attribute rows of items over time: K updates, by item, and by time within it."""

    keys: _Int64s  # (K,), ascending
    visible_at_ms: _Int64s
    """(K,): requests after it see the update, until the item's next one."""
    index: _Int64s
    """(K,): which of ``rows`` is the update's."""
    rows: NDArray[np.int32]  # (D, A), of distinct attributes

    def of(
        self, item_keys: _Int64s, at_ms: _Int64s | np.int64 = _NEWEST
    ) -> NDArray[np.int32]:
        """Return the rows (…, A) of ``item_keys`` (…) as of ``at_ms``; zeros for none.

        What was shown before there was any update at all was served by something else, and
        is imported: there an item has its first attributes.
        """
        if len(self.keys) == 0:
            return np.zeros((*item_keys.shape, self.rows.shape[1]), dtype=np.int32)
        first = np.minimum(np.searchsorted(self.keys, item_keys), len(self.keys) - 1)
        instants = np.searchsorted(self._instants, at_ms)  # that had passed by then
        width = len(self._instants) + 1
        at = np.searchsorted(self._places, first * width + instants, "right") - 1
        at = np.where(instants == 0, first, at)
        known = (self.keys[first] == item_keys) & (at >= first)
        return np.where(known[..., None], self.rows[self.index[at]], np.int32(0))

    @functools.cached_property
    def _instants(self) -> _Int64s:
        """The distinct times of updates, ascending."""
        return np.unique(self.visible_at_ms)

    @functools.cached_property
    def _places(self) -> _Int64s:
        """Each update's item (by its first update) and instant, as one ascending number."""
        first = np.searchsorted(self.keys, self.keys)
        instants = np.searchsorted(self._instants, self.visible_at_ms, "right")
        places: _Int64s = first * (len(self._instants) + 1) + instants
        return places


def of_profiles(profiles: Mapping[int, Attributes], words: Vocabulary) -> ItemAttributes:
    """Return the attributes of every item in ``profiles``, the same at all times."""
    keys = np.array(sorted(profiles), dtype=np.int64)
    return ItemAttributes(
        keys=keys,
        visible_at_ms=np.zeros(len(keys), dtype=np.int64),
        index=np.arange(len(keys)),
        rows=_rows([profiles[key] for key in keys.tolist()], words),
    )


def of_updates(updates: pa.Table, words: Vocabulary) -> ItemAttributes:
    """Return the attributes of ``profiles.item_updates``; each text is parsed once."""
    texts = updates["attributes"].dictionary_encode().combine_chunks()
    parsed = [parse_attributes(text) for text in texts.dictionary.to_pylist()]
    return ItemAttributes(
        keys=updates["item_key"].to_numpy(),
        visible_at_ms=updates["visible_at"].to_numpy(),
        index=texts.indices.to_numpy(zero_copy_only=False).astype(np.int64),
        rows=_rows(parsed, words),
    )


def _rows(attributes: Sequence[Attributes], words: Vocabulary) -> NDArray[np.int32]:
    rows = [words.attribute_rows(attribute) for attribute in attributes]
    return np.array(rows, np.int32).reshape(len(rows), words.num_attribute_slots)
