"""A request's ids → the model's tensors: all that Triton's ``fetch_features`` does.

In: user ids, item ids, times and contexts of B requests. Out: the schema's tensors with a
status. The store may be down: requests are then answered with empty histories and say so.
Only a malformed request raises, ``ValueError`` with a sentence for its caller.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.bundles import bundle
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.item_cache import ItemRows, ItemTable
from srp4ctr.features.online.reader import FeatureReader, StoreReader, UserArrays
from srp4ctr.features.tensors import exposures, transforms, vocabulary
from srp4ctr.features.tensors.affinity import attribute_affinity
from srp4ctr.features.tensors.schema import ItemStatus
from srp4ctr.features.tensors.transforms import SequenceArrays
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.events.codec import MIN_OCCURRED_AT_MS
from srp4ctr.streams.events.schema import MAX_ID_LENGTH, item_key
from srp4ctr.streams.state.state_store import FatalStoreError

Int64s = NDArray[np.int64]
Text = str | bytes
Texts = Sequence[Text] | NDArray[Any]  # Triton gives object arrays of bytes

_MS_PER_DAY = 86_400_000
_MAX_CONTEXT_LETTERS = 1 << 16
MAX_REQUEST_TIME_MS = 4_102_444_800_000  # in 2100; of microseconds it is February 1970
# A catalogue's ids and then some; callers may make ids up, which must not fill the memory.
MAX_REMEMBERED_IDS = 200_000
# After so many failed reads in a row the store is left alone for a while: with a store
# that hangs, every request would otherwise wait half a second for nothing.
STORE_FAILURES = 3
STORE_REST_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestBatch:
    """B requests as tensors, and what the answer must say of them."""

    tensors: Mapping[str, NDArray[Any]]
    """HISTORY_TENSORS, REQUEST_TENSORS and CANDIDATE_TENSORS, by their names."""
    item_status: NDArray[np.uint8]
    """(B, N): bits of ``ItemStatus``."""
    statuses: tuple[str, ...]
    """B of: ok, cold_user, empty_sequence, stale_sequence, store_unavailable."""
    feature_versions: tuple[str, ...]
    """B times the versions of the sequence and the item table that were used."""
    times_ms: Int64s
    """(B,): the times that were asked for, else the clock's."""


class RequestFeatures:
    """Makes tensors of requests, by a bundle's vocabulary and sizes (L and W)."""

    def __init__(
        self,
        reader: FeatureReader,
        vocabulary: Vocabulary,
        item_table: ItemTable,
        *,
        sizes: Mapping[str, int],
        ttl_days: float = 90.0,
    ) -> None:
        self._store = CircuitBreaker(reader, (sizes["L"], sizes["W"]), time.monotonic)
        self._vocabulary = vocabulary
        self._items = item_table
        self._ttl_ms = round(ttl_days * _MS_PER_DAY)
        self._keys = ItemKeyCache()

    def assemble(
        self,
        user_ids: Texts,
        item_ids: Sequence[Texts] | NDArray[Any],
        times_ms: Sequence[int] | NDArray[Any] | None = None,
        contexts: Texts | None = None,
    ) -> RequestBatch:
        """Return the tensors of B requests of N items each; "" pads the items.

        A time of 0, or none, is the server's clock. Raises ``ValueError`` for ids that are
        not UTF-8 or too long, for times in seconds and for a context that is no flat map.
        """
        users = [_text(user_id, "user_id") for user_id in user_ids]
        key_of = self._keys.__getitem__
        keys = np.array([list(map(key_of, row)) for row in item_ids], dtype=np.int64)
        times = _times(times_ms, len(users))
        texts = [""] * len(users) if contexts is None else contexts
        found, is_up = self._store.read(users)
        sequences = transforms.unexpired(found.sequences, times - self._ttl_ms)
        # Candidates and history at once: half the searches.
        every = np.concatenate([keys, sequences.item_keys], axis=1)
        items, asked = self._items.lookup(every), np.s_[:, : keys.shape[1]]
        told = [_context(text) for text in texts]
        tensors = self._of_user(found, sequences, times, told)
        tensors |= self._of_items(found, sequences, items, (every, times))
        known = self._vocabulary.is_known(tensors["candidate_item_rows"])
        return RequestBatch(
            tensors=tensors,
            item_status=_item_status(keys, known, items.take(asked)),
            statuses=_statuses(found, sequences) if is_up else _unavailable(len(users)),
            feature_versions=_versions(found, items),
            times_ms=times,
        )

    def close(self) -> None:
        """Stop refreshing the item table."""
        self._items.stop()

    def _of_user(
        self,
        found: UserArrays,
        sequences: SequenceArrays,
        times: Int64s,
        told: list[dict[str, str]],
    ) -> dict[str, NDArray[Any]]:
        """Return the tensors that no item is asked for."""
        names = self._vocabulary.context_numbers
        numbers = np.stack([transforms.context_numbers(each, names) for each in told])
        return {
            "history_behavior_codes": transforms.behavior_codes(sequences),
            "request_features": transforms.request_features(
                sequences, found.activity, times, numbers
            ),
            "context_rows": np.stack([transforms.context_rows(each) for each in told]),
        }

    def _of_items(
        self,
        found: UserArrays,
        sequences: SequenceArrays,
        items: ItemRows,
        asked: tuple[Int64s, Int64s],
    ) -> dict[str, NDArray[Any]]:
        """Return the other tensors.

        ``items`` are those of the keys in ``asked``, candidates and then the history
        (B, N + L); beside them are the times.
        """
        every, times = asked
        count = every.shape[1] - sequences.item_keys.shape[1]  # N
        keys, candidates = every[:, :count], items.take(np.s_[:, :count])
        rows = self._vocabulary.item_rows(every)
        history_attributes = items.attribute_rows[:, count:]
        affinity = attribute_affinity(
            sequences, history_attributes, candidates.attribute_rows, times
        )
        shown = exposures.item_exposures(found.exposures, keys, times)
        of_user = (affinity, exposures.exposure_features(shown, times))
        return {
            "history_item_rows": rows[:, count:],
            "history_attribute_rows": history_attributes,
            "candidate_item_rows": rows[:, :count],
            "candidate_attribute_rows": candidates.attribute_rows,
            "candidate_features": transforms.candidate_features(
                candidates.activity, keys, sequences.item_keys, of_user, times
            ),
        }


def open_bundle(config: FeatureConfig, folder: Path) -> RequestFeatures:
    """Return the features of the bundle in ``folder``, with a table that stays fresh.

    A store that is down does not stop a server from starting: its table fills later.
    """
    reader = StoreReader(config)
    words = vocabulary.load(folder / bundle.VOCABULARY_FILE)
    table = ItemTable(reader, words)
    with contextlib.suppress(ConnectionError):
        table.refresh()
    table.keep_fresh(config.item_refresh_s)
    return RequestFeatures(
        reader,
        words,
        table,
        sizes=bundle.read(folder).sizes,
        ttl_days=config.sequence_ttl_days,
    )


class ItemKeyCache(dict[Text, int]):
    """Item ids and their keys: each is decoded and hashed once, "" is 0."""

    def __missing__(self, item_id: Text) -> int:
        if len(self) >= MAX_REMEMBERED_IDS:
            self.clear()
        key = item_key(_text(item_id, "item_ids")) if item_id else 0
        self[item_id] = key
        return key


class CircuitBreaker:
    """Reads users; while the store fails it answers with empty ones, without waiting."""

    def __init__(
        self, reader: FeatureReader, lengths: tuple[int, int], clock: Callable[[], float]
    ) -> None:
        self._reader = reader
        self._lengths = lengths  # of sequences and of exposures
        self._clock = clock
        self._failures = 0
        self._rests_until_s = float("-inf")

    def read(self, user_ids: Sequence[str]) -> tuple[UserArrays, bool]:
        """Return the users' arrays, and whether they are the store's."""
        if self._clock() >= self._rests_until_s:
            try:
                found = self._reader.read_users(user_ids, *self._lengths)
            except (ConnectionError, FatalStoreError):
                self._failures += 1
                if self._failures >= STORE_FAILURES:
                    self._rests_until_s = self._clock() + STORE_REST_S
            else:
                self._failures = 0
                return found, True
        return _unknown_users(len(user_ids), *self._lengths), False


def _statuses(stored: UserArrays, unexpired: SequenceArrays) -> tuple[str, ...]:
    """Return ok, or what a user's history lacks."""
    had = map(np.any, stored.sequences.item_keys)
    has = map(np.any, unexpired.item_keys)
    return tuple(itertools.starmap(_status, zip(stored.versions, had, has, strict=True)))


def _status(version: str, had_history: np.bool_, has_history: np.bool_) -> str:
    if version == "":
        return "cold_user"
    if not had_history:
        return "empty_sequence"
    return "ok" if has_history else "stale_sequence"


def _versions(stored: UserArrays, items: ItemRows) -> tuple[str, ...]:
    of_table = f"items={items.version}"
    return tuple(f"{each},{of_table}" if each else of_table for each in stored.versions)


def _unavailable(count: int) -> tuple[str, ...]:
    return ("store_unavailable",) * count


def _unknown_users(count: int, length: int, exposure_length: int) -> UserArrays:
    return UserArrays(
        sequences=transforms.empty_sequences(count, length),
        activity=transforms.empty_activity(count),
        exposures=exposures.empty_exposures(count, exposure_length),
        versions=("",) * count,
    )


def _item_status(
    keys: Int64s, known: NDArray[np.bool_], items: ItemRows
) -> NDArray[np.uint8]:
    bits = (
        np.where(known, 0, ItemStatus.UNKNOWN_ITEM)
        | np.where(items.attribute_rows.any(axis=-1), 0, ItemStatus.NO_ATTRIBUTES)
        | np.where(items.activity.first_seen_ms > 0, 0, ItemStatus.NO_ACTIVITY)
    )
    return np.where(keys != 0, bits, ItemStatus.PADDING).astype(np.uint8)


def _text(given: Text, name: str, max_length: int = MAX_ID_LENGTH) -> str:
    try:
        text = given.decode() if isinstance(given, bytes) else given
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8: {error.reason} in {given!r:.80}") from None
    if len(text) > max_length:
        raise ValueError(f"{name} has {len(text)} letters; at most {max_length}")
    return text


def _context(given: Text) -> dict[str, str]:
    return transforms.parse_context(_text(given, "context", _MAX_CONTEXT_LETTERS))


def _times(times_ms: Sequence[int] | NDArray[Any] | None, count: int) -> Int64s:
    given = np.zeros(count) if times_ms is None else times_ms
    times = np.asarray(given, dtype=np.int64).reshape(count)
    times = np.where(times == 0, time.time_ns() // 1_000_000, times)
    if (times < MIN_OCCURRED_AT_MS).any():
        raise ValueError(
            f"request_time_ms {times.min()} is before 1973: is it in seconds? "
            "Send milliseconds"
        )
    if (times > MAX_REQUEST_TIME_MS).any():
        raise ValueError(
            f"request_time_ms {times.max()} is after 2100: is it in microseconds? "
            "Send milliseconds"
        )
    return times
