"""A user's history → the items to rank: what comes next, what is popular, what is new.

In: B users as the store has them, and which items each may be shown. Out: up to K items of
each, the likeliest first, and the source of each. The model's are those whose output
vectors have the greatest product with the state of a [MASK] behind the history: exact, by
one product of matrices, or by an index for a large catalogue (``nearest.py``).
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from srp4ctr.errors import MistakeError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.online.request_features import RequestFeatures, UserArrays
from srp4ctr.features.tensors import schema
from srp4ctr.triton_repo.serving.catalogue import Catalogue, ItemList, Offer, Where, have
from srp4ctr.triton_repo.serving.onnx_scorer import Session, first_behavior
from srp4ctr.triton_repo.serving.serving_metrics import NEXT_PLACES

Int64s = NDArray[np.int64]
MODEL, POPULAR, NEW = "model", "popular", "new"
SOURCES = (MODEL, POPULAR, NEW)
# Of a user without a history: the model knows only what is popular in training.
_COLD_SHARES = (1e-9, 0.95, 0.05)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How many candidates are ranked, and the share of each source."""

    candidates: int = 200
    popular: float = 0.1
    new: float = 0.05

    def of(self, is_cold: bool) -> tuple[float, float, float]:
        """Return the shares of ``SOURCES``; without a history the popular have most."""
        if is_cold:
            return _COLD_SHARES
        return (1.0 - self.popular - self.new, self.popular, self.new)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """The items to rank for B users; "" pads."""

    users: UserArrays
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
        history = self._features.history(users)
        found = []
        for row, each in enumerate(filters):
            behaviors = {name: array[row : row + 1] for name, array in history.items()}
            sources = self._of_user(behaviors, excluded(users, row, each), offer, each)
            is_cold = not behaviors["history_item_rows"].any()
            blend = blended(sources, self._shares.of(is_cold), self._shares.candidates)
            now = times_ms[row] if times_ms and times_ms[row] else time.time_ns() // 10**6
            keys = [sources[s].keys[i] for s, i in blend]
            self._recall.observe(user_ids[row], users, row, keys, now)
            found.append([(sources[s].ids[i], SOURCES[s]) for s, i in blend])
        longest = max(1, *map(len, found))
        item_ids, names = np.full((2, len(found), longest), b"", dtype=object)
        for row, pairs in enumerate(found):
            for place, (item_id, source) in enumerate(pairs):
                item_ids[row, place], names[row, place] = item_id, source.encode()
        return Candidates(users=users, item_ids=item_ids, sources=names)

    def _of_user(
        self,
        history: Mapping[str, NDArray[Any]],
        left_out: Int64s,
        offer: Offer,
        filters: Filters,
    ) -> tuple["Listed", ...]:
        """Return what each of ``SOURCES`` has for a user, the best first."""
        items, most = self._catalogue.items, self._shares.candidates
        mask = self._catalogue.mask(offer, filters.key)
        start = int(first_behavior(history["history_item_rows"])[0])
        start = start if self._expect.is_any_length else 0
        [state] = self._expect({n: each[:, start:] for n, each in history.items()}).values()
        rows = items.nearest(state[0], most, mask, self._rows_of(left_out))
        by_model = Listed(
            keys=items.keys[rows].tolist(), ids=list(map(items.id_of, rows.tolist()))
        )
        wanted = self._catalogue.rows_of(filters.key)
        chosen = set(left_out.tolist())
        lists = (self._listed(each, wanted, chosen) for each in (offer.popular, offer.new))
        return (by_model, *lists)

    def _listed(
        self, items: ItemList, wanted: Sequence[tuple[slice, Int64s]], left_out: set[int]
    ) -> "Listed":
        """Return the first items that match and are not left out."""
        matches = np.flatnonzero(have(items.attribute_rows, wanted)).tolist()
        kept = (i for i in matches if int(items.keys[i]) not in left_out)
        first = list(islice(kept, self._shares.candidates))
        return Listed(
            keys=items.keys[first].tolist() if first else [],
            ids=[items.ids[i] for i in first],
        )

    def _rows_of(self, keys: Int64s) -> Int64s:
        """Return the rows of those ``keys`` that the bundle knows."""
        known = self._catalogue.items.keys
        if not len(known):
            return np.zeros(0, dtype=np.int64)
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        rows: Int64s = at[known[at] == keys]
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Items of one source for one user, the best first."""

    keys: list[int]
    ids: list[bytes]


def excluded(users: UserArrays, row: int, filters: Filters) -> Int64s:
    """Return the keys of items that user ``row`` is not to get."""
    used, shown = users.sequences.item_keys[row], users.exposures.item_keys[row]
    parts = {"nothing": [], "clicked": [used], "shown": [used, shown]}[filters.exclude]
    return np.unique(np.concatenate([np.zeros(1, dtype=np.int64), *parts]))


def blended(
    sources: Sequence[Listed], shares: Sequence[float], most: int
) -> list[tuple[int, int]]:
    """Return (source, place in it) of the first ``most`` distinct items.

    At any depth each source has about its share of the items, for as long as it has any.
    """
    places = sorted(
        ((place + 0.5) / share, source, place)
        for source, (each, share) in enumerate(zip(sources, shares, strict=True))
        for place in range(len(each.keys))
        if share > 0.0
    )
    found: dict[int, tuple[int, int]] = {}
    for _, source, place in places:
        found.setdefault(sources[source].keys[place], (source, place))
        if len(found) >= most:
            break
    return list(found.values())


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
        users: UserArrays,
        row: int,
        keys: Sequence[int],
        now_ms: int,
    ) -> None:
        """Count the item that followed the user's last request; await the next one."""
        at_ms, behaved = users.sequences.occurred_at_ms[row], users.sequences.item_keys[row]
        if (awaited := self._awaited.pop(user_id, None)) is not None:
            since_ms, offered = awaited
            later = (at_ms > since_ms) & (behaved != 0)
            later &= ~np.isin(behaved, behaved[at_ms <= since_ms])
            if later.any():
                place = np.flatnonzero(offered == behaved[later.argmax()])
                self._count(next_place(int(place[0]) if len(place) else None))
        self._awaited[user_id] = now_ms, np.array(keys, dtype=np.int64)
        if len(self._awaited) > REMEMBERED:
            self._awaited.popitem(last=False)


def next_place(place: int | None) -> str:
    """Return which of ``NEXT_PLACES`` a place among the candidates, from 0, is in."""
    if place is None:
        return NEXT_PLACES[3]
    return NEXT_PLACES[0 if place < 20 else 1 if place < 100 else 2]
