"""Items' attributes and counters in mapped memory, which a process of its own refreshes.

In: a request's item keys and a bundle's vocabulary. Out: arrays, a second old at most. All
serving processes of a host map one table (``item_map.py``) and read nothing from the store:
``item_refresher.py`` writes it.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import item_map
from srp4ctr.features.online.item_map import IS_DOWN, UP_TO_DATE_MS, ItemMap, ItemMemory
from srp4ctr.features.online.item_refresher import RefresherWatch
from srp4ctr.features.tensors import compiled
from srp4ctr.features.tensors.arrays import (
    ATTRIBUTES,
    COLUMNS,
    ITEM_ROW,
    NOTES,
    TEXT,
    ActivityArrays,
    ItemRows,
)
from srp4ctr.features.tensors.compiled import Assembler
from srp4ctr.features.tensors.parsed_cache import ParsedCache, ParsedCachePlan
from srp4ctr.features.tensors.schema import ItemStatus
from srp4ctr.features.tensors.vocabulary import PAD_ROW, Vocabulary, parse_attributes
from srp4ctr.streams.events.schema import AVAILABLE, NOT_AVAILABLE, TOTAL_KEY

LOG = logging.getLogger(__name__)
Int64s = NDArray[np.int64]
# A first table of half a million items takes half a minute.
FILLED_WITHIN_S = 60.0
_TOTAL = np.array([TOTAL_KEY])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Known:
    """What a bundle knows of the items in one generation of the table."""

    items: ItemMap | None
    texts: Int64s
    """(items,): of which text the notes and the attributes' rows are."""
    rows: NDArray[np.int32]
    """(items, 2 + A): see ``ItemRows.known``. The item's own is 0 until it is needed."""
    assembler: Assembler | None
    """None: numpy makes the tensors."""
    shared: ParsedCache | None = None  # the native step reads it, too


class ChangedItems:
    """Which items of a table have changed since the last look; for one thread."""

    def __init__(self, memory: ItemMemory) -> None:
        self._memory = memory
        self._items: ItemMap | None = None
        self._count = 1  # rows whose keys are known; row 0 is of no item
        self._versions = self._keys = np.zeros(0, dtype=np.int64)

    def take(self) -> Int64s:
        """Return the keys of the items that changed since the last call.

        None at the first call, nor at the first of a new generation of the table.
        """
        items = self._memory.current()
        if items is None or items is not self._items:
            capacity = 0 if items is None else items.capacity
            self._items = items
            self._versions, self._keys = np.zeros((2, capacity), dtype=np.int64)
            self._count = 1
            if items is not None:
                items.changed(self._versions)
            return np.zeros(0, dtype=np.int64)
        rows = items.changed(self._versions)
        if len(rows) and rows[-1] >= self._count:
            added, new_keys = items.added(self._count)
            self._keys[added] = new_keys
            self._count = int(added.max(initial=self._count - 1)) + 1
        keys = self._keys[rows]
        of_items: Int64s = keys[(keys != 0) & (keys != TOTAL_KEY)]
        return of_items


class ItemTable:
    """A table of items as one bundle sees them; requests take no lock."""

    def __init__(
        self,
        memory: ItemMemory,
        vocabulary: Vocabulary,
        refreshing: RefresherWatch | None = None,
        plan: ParsedCachePlan | None = None,
    ) -> None:
        self._memory = memory
        self._vocabulary = vocabulary
        self._refreshing = refreshing
        self._plan = plan  # what is known of items is shared with a native step
        self._changes = threading.Lock()
        self._known = self._blank(None)

    def lookup(self, item_keys: Int64s) -> ItemRows:
        """Return the rows of ``item_keys`` (any shape); key 0 is padding."""
        known = self._current()
        items = known.items
        version, shape = int(self._memory.head[UP_TO_DATE_MS]), item_keys.shape
        keys = item_keys.ravel()
        if items is None:
            rows = np.zeros(len(keys), dtype=np.int64)
            columns = np.zeros((len(keys), COLUMNS), dtype=np.int64)
        else:
            rows = items.find(keys)
            columns = items.read(rows)
            self._parse(items, known, rows, columns[:, TEXT])
        found = known.rows.take(rows, axis=0).astype(np.int64)
        new = keys * (found[:, ITEM_ROW] == PAD_ROW)  # 0 pads
        if np.count_nonzero(new):
            self._add_item_rows(known, new, rows, found)
        return ItemRows(
            known=found.reshape(*shape, found.shape[-1]),
            columns=columns.reshape(*shape, COLUMNS),
            version=version,
        )

    def assembler(self) -> tuple[Assembler, int] | None:
        """Return what makes tensors of the table, and its version; None: numpy does."""
        version, known = int(self._memory.head[UP_TO_DATE_MS]), self._current()
        return None if known.assembler is None else (known.assembler, version)

    def _current(self) -> _Known:
        """Return what is known of the published generation."""
        if self._known.items is not self._memory.current():
            with self._changes:  # requests and the catalogue's thread
                known, items = self._known, self._memory.current()
                if known.items is not items:
                    self._known = self._blank(items)
                    if known.shared is not None:
                        known.shared.close()
        return self._known

    @property
    def shared(self) -> ParsedCache | None:
        """What a native step reads; None where there is none, or no table yet."""
        return self._current().shared

    def keys(self) -> Int64s:
        """Return the keys of all items, in the order in which they came."""
        items = self._memory.current()
        keys = np.zeros(0, dtype=np.int64) if items is None else items.keys()
        of_items: Int64s = keys[keys != TOTAL_KEY]
        return of_items

    def changes(self) -> ChangedItems:
        """Return a watch that names the items that change after its first look."""
        return ChangedItems(self._memory)

    def total(self) -> ActivityArrays:
        """Return the counters (1,) of all items together; zeros before the first event."""
        return self.lookup(_TOTAL).activity

    def stop(self) -> None:
        """End the thread that looks after the refresher, if there is one."""
        if self._known.shared is not None:
            self._known.shared.close()
        if self._refreshing is not None:
            self._refreshing.stop()

    def _blank(self, items: ItemMap | None) -> _Known:
        slots, size = self._vocabulary.num_attribute_slots, items.capacity if items else 1
        texts = np.zeros(size, dtype=np.int64)
        rows = np.zeros((size, ATTRIBUTES + slots), dtype=np.int32)
        if items is None or not compiled.is_loaded():
            return _Known(items=items, texts=texts, rows=rows, assembler=None)
        if (shared := self._shared(items)) is not None:
            texts, rows = shared.texts, shared.rows
        made = Assembler(items.table, texts, rows, self._vocabulary)
        return _Known(items=items, texts=texts, rows=rows, assembler=made, shared=shared)

    def _shared(self, items: ItemMap) -> ParsedCache | None:
        """Return what a native step reads; None without one, or without memory for it."""
        try:
            if self._plan is not None:
                return self._plan.open(self._memory.file_of(items), items, self._vocabulary)
        except OSError as error:
            LOG.warning("the native step answers nothing: no shared memory: %s", error)
        return None

    def _parse(self, items: ItemMap, known: _Known, rows: Int64s, texts: Int64s) -> None:
        """Bring ``known`` up to date for ``rows``: each text is parsed once."""
        if not np.count_nonzero(is_other := known.texts.take(rows) != texts):
            return
        with known.shared.writing() if known.shared else nullcontext():
            for place in np.flatnonzero(is_other).tolist():
                row, number = int(rows[place]), int(texts[place])
                attributes = parse_attributes(items.text(number))
                of_attributes = self._vocabulary.attribute_rows(attributes)
                has_any = of_attributes.any() * ItemStatus.NO_ATTRIBUTES
                is_gone = attributes.get(AVAILABLE) == NOT_AVAILABLE
                known.texts[row] = -1  # of no text: no reader uses the rows meanwhile
                known.rows[row, NOTES] = has_any | is_gone * ItemStatus.UNAVAILABLE
                known.rows[row, ATTRIBUTES:] = of_attributes
                known.texts[row] = number

    def _add_item_rows(
        self, known: _Known, new: Int64s, rows: Int64s, found: Int64s
    ) -> None:
        """Put the items' own rows of the keys ``new`` into ``found``, and keep them."""
        places = np.flatnonzero(new)
        item_rows = self._vocabulary.item_rows(new[places])
        found[places, ITEM_ROW] = item_rows
        is_stored = rows[places] > 0  # row 0 is that of all others
        known.rows[rows[places[is_stored]], ITEM_ROW] = item_rows[is_stored]


def open_table(
    config: FeatureConfig,
    vocabulary: Vocabulary,
    plan: Callable[[Path], ParsedCachePlan] | None = None,  # of a native step
) -> ItemTable:
    """Return the table of this host and store, which stays fresh until ``stop``.

    Waits for a first table, unless the store does not answer: then it fills later.
    """
    folder = item_map.folder_of(config)
    refreshing = RefresherWatch(config, folder)
    memory = ItemMemory(folder)
    refreshing.start()
    until = time.monotonic() + FILLED_WITHIN_S
    while not memory.head[[UP_TO_DATE_MS, IS_DOWN]].any():
        if time.monotonic() > until:
            LOG.warning("the table of items is not filled yet: serving begins without it")
            break
        time.sleep(0.02)
    return ItemTable(memory, vocabulary, refreshing, plan(folder) if plan else None)
