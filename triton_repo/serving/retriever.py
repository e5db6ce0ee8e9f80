"""A user's history → the items to rank: what comes next, what is popular, what is new.

In: B users as the store has them, and which items each may be shown. Out: up to K items of
each, the likeliest first, and the source of each. The model's are those whose output
vectors have the largest product with the state of a [MASK] behind the history.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from srp4ctr.errors import MistakeError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.candidates import Shares, blended
from srp4ctr.features.online.request_features import RequestFeatures
from srp4ctr.features.tensors import schema
from srp4ctr.features.tensors.arrays import FoundUsers, UserArrays
from srp4ctr.triton_repo.serving.catalogue import (
    Catalogue,
    ItemList,
    Offer,
    Where,
    have,
)
from srp4ctr.triton_repo.serving.onnx_scorer import Session, first_behavior
from srp4ctr.triton_repo.serving.serving_metrics import NEXT_PLACES

Int64s = NDArray[np.int64]
MODEL = "model"
POPULAR = "popular"
NEW = "new"
SOURCES = (MODEL, POPULAR, NEW)
_NAMES = np.array([name.encode() for name in SOURCES], dtype=object)
REMEMBERED = 4096  # users whose next item is awaited, to measure recall


class Filters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which items a request may get: the input ``filters`` as JSON."""

    where: dict[str, str | list[str]] = {}
    """An item has this value of each attribute, or one of these."""
    exclude: Literal["clicked", "shown", "nothing"] = "clicked"
    """What of the user's past is left out: ``clicked`` is everything in the history,
    ``shown`` also the last items shown."""

    @classmethod
    def parse(cls, text: str | bytes) -> "Filters":
        """Return the filters in ``text``; "" is none. Raises ``MistakeError``."""
        try:
            return msgspec.json.decode(text, type=cls) if text else cls()
        except msgspec.MsgspecError as error:
            raise MistakeError(f"filters: {error}") from None

    @property
    def key(self) -> Where:
        """``where`` as a key, the same for the same filters."""
        given = {n: [v] if isinstance(v, str) else v for n, v in self.where.items()}
        return tuple((name, tuple(sorted(given[name]))) for name in sorted(given))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """The items to rank for B users; "" pads."""

    users: FoundUsers
    item_keys: Int64s  # (B, N)
    item_ids: NDArray[np.object_]  # (B, N), bytes
    sources: NDArray[np.object_]  # (B, N), of SOURCES


class Retriever:
    """Finds the candidates of one bundle."""

    def __init__(
        self,
        folder: Path,
        features: RequestFeatures,
        catalogue: Catalogue,
        shares: Shares,
        count_next: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Open the files in ``folder``; ``count_next`` counts a next item by its place."""
        sizes = bundle.read(folder).sizes
        self._features, self._catalogue, self._shares = features, catalogue, shares
        self._expect = Session(folder / bundle.RETRIEVER_FILE, schema.ENCODER_INPUTS, sizes)
        self._recall = Recall(count_next)

    def close(self) -> None:
        """Stop the background thread."""
        self._catalogue.stop()

    def find(
        self,
        user_ids: Sequence[bytes | str],
        times_ms: Sequence[int] | None,
        filters: Sequence[Filters],
    ) -> Candidates:
        """Return the candidates of B users. Raises ``MistakeError`` for a wrong filter."""
        users, offer = self._features.read(user_ids, times_ms), self._catalogue.offer
        found = []
        for row, each in enumerate(filters):
            behaviors = {n: array[row : row + 1] for n, array in users.history.items()}
            left_out = excluded(users.arrays, row, each)
            sources = self._of_user(behaviors, left_out, offer, each)
            is_cold = not behaviors["history_item_rows"].any()
            lists, shares = [source.keys for source in sources], self._shares.of(is_cold)
            places = blended(lists, shares, self._shares.candidates)
            keys = np.concatenate(lists)[places]
            self._recall.observe(user_ids[row], users, row, keys)
            ids = [item_id for source in sources for item_id in source.ids]
            names = _NAMES.repeat([len(source.ids) for source in sources])[places]
            found.append((keys, [ids[place] for place in places.tolist()], names))
        shape = len(found), max(1, *(len(keys) for keys, *_ in found))
        item_keys = np.zeros(shape, dtype=np.int64)
        item_ids, named = np.full((2, *shape), b"", dtype=object)
        for row, (keys, ids, names) in enumerate(found):
            item_keys[row, : len(keys)] = keys
            item_ids[row, : len(keys)], named[row, : len(keys)] = ids, names
        return Candidates(
            users=users, item_keys=item_keys, item_ids=item_ids, sources=named
        )

    def _of_user(
        self,
        history: Mapping[str, NDArray[Any]],
        left_out: Int64s,
        offer: Offer,
        filters: Filters,
    ) -> tuple["Listed", ...]:
        """Return what each of ``SOURCES`` has for a user, the best first."""
        catalogue, words = self._catalogue, self._features.vocabulary
        matching, wanted = catalogue.rows(offer, filters.key), catalogue.wanted(filters.key)
        start = int(first_behavior(history["history_item_rows"])[0])
        [state] = self._expect({n: each[:, start:] for n, each in history.items()}).values()
        rows = words.item_rows(left_out)
        own = rows[words.is_known(rows)] - words.first_known_row
        found = catalogue.items.nearest(
            state[0], self._shares.candidates, (offer.unavailable, own), matching
        )
        return (
            Listed(
                keys=catalogue.items.keys[found],
                ids=catalogue.items.ids_of(found),
            ),
            self._listed(offer.popular, wanted, left_out),
            self._listed(offer.new, wanted, left_out),
        )

    def _listed(
        self, items: ItemList, wanted: Sequence[tuple[slice, Int64s]], left_out: Int64s
    ) -> "Listed":
        """Return the first items that match and are not left out."""
        most = self._shares.candidates
        first = np.flatnonzero(have(items.attribute_rows, wanted))[: most + len(left_out)]
        keys = items.keys[first]
        places = left_out.searchsorted(keys)
        first = first[left_out.take(places, mode="clip") != keys][:most]
        return Listed(keys=items.keys[first], ids=[items.ids[i] for i in first.tolist()])


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Items of one source for one user, the best first."""

    keys: Int64s
    ids: list[bytes]


def excluded(users: UserArrays, row: int, filters: Filters) -> Int64s:
    """Return the keys of items that user ``row`` is not to get."""
    used, shown = users.sequences.item_keys[row], users.exposures.item_keys[row]
    parts = {"nothing": [], "clicked": [used], "shown": [used, shown]}[filters.exclude]
    return np.unique(np.concatenate([np.zeros(1, dtype=np.int64), *parts]))


class Recall:
    """Counts where a user's next new item was among the candidates of the last request.

    A process remembers its last ``REMEMBERED`` users. An item that the history had already
    is not counted: it is left out of the candidates on purpose.
    """

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count
        self._awaited: OrderedDict[bytes | str, tuple[int, Int64s]] = OrderedDict()

    def observe(
        self,
        user_id: bytes | str,
        users: FoundUsers,
        row: int,
        keys: Int64s,
    ) -> None:
        """Count the item that followed the user's last request; await the next one."""
        sequences = users.arrays.sequences
        at_ms, behaved = sequences.occurred_at_ms[row], sequences.item_keys[row]
        if (awaited := self._awaited.pop(user_id, None)) is not None:
            since_ms, offered = awaited
            later = (at_ms > since_ms) & (behaved != 0)
            if later.any():
                later &= ~np.isin(behaved, behaved[at_ms <= since_ms])
            if later.any():
                place = np.flatnonzero(offered == behaved[later.argmax()])
                self._count(next_place(int(place[0]) if len(place) else None))
        self._awaited[user_id] = int(users.times_ms[row]), keys
        if len(self._awaited) > REMEMBERED:
            self._awaited.popitem(last=False)


def next_place(place: int | None) -> str:
    """Return which of ``NEXT_PLACES`` a place among the candidates, from 0, is in."""
    if place is None:
        return NEXT_PLACES[3]
    return NEXT_PLACES[0 if place < 20 else 1 if place < 100 else 2]
