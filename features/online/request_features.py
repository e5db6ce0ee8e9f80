"""A request's ids → the model's tensors: all that Triton's ``fetch_features`` does.

In: user ids, item ids, times and contexts of B requests. Out: the schema's tensors and a
status. If the store is down, histories are empty and the status says so. Only a malformed
request raises: ``MistakeError`` with a message for the client.
"""

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from srp4ctr import tracing
from srp4ctr.errors import ArtifactError, MistakeError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.config import FeatureConfig, ttl_ms_of
from srp4ctr.features.online import packing, row_codec
from srp4ctr.features.online.connection import plan_of
from srp4ctr.features.online.item_cache import ItemTable, open_table
from srp4ctr.features.online.packing import NOBODY, ReadUsers, user_arrays
from srp4ctr.features.online.store import REQUEST_TIMEOUT_S, OnlineViews
from srp4ctr.features.tensors import transforms, vocabulary
from srp4ctr.features.tensors.arrays import (
    CandidateArrays,
    Float32s,
    FoundUsers,
    ItemRows,
    UserArrays,
)
from srp4ctr.features.tensors.caller_numbers import list_columns, missing_numbers
from srp4ctr.features.tensors.compiled import UserRequest
from srp4ctr.features.tensors.schema import ItemStatus, RequestStatus
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.retries import CircuitBreaker
from srp4ctr.streams.events.codec import MAX_OCCURRED_AT_MS, MIN_OCCURRED_AT_MS
from srp4ctr.streams.events.schema import MAX_ID_LENGTH, item_key
from srp4ctr.streams.state.user_state import UserState

Int64s = NDArray[np.int64]
Text = str | bytes
Texts = Sequence[Text] | NDArray[Any]  # Triton gives object arrays of bytes
# A context's rows (X,), its numbers, and how far the user's clock is ahead, in ms.
ReadContext = tuple[NDArray[np.int64], NDArray[np.float32], int]

# More than a catalogue's ids; ids that clients invent must not fill the memory.
MAX_CACHED_IDS = 200_000
MAX_CACHED_PROFILES = 10_000
MAX_CACHED_CONTEXTS = 1_000
_MAX_CONTEXT_CHARACTERS = 1 << 16
_MAX_UNKNOWN_FIELDS = 32  # that are logged: callers may invent names
LOG = logging.getLogger(__name__)


class UserReader(Protocol):
    """Reads users' rows; raises ``OutageError`` when the store does not answer."""

    def read_users(self, user_ids: Sequence[str]) -> dict[str, UserState]:
        """Return the users' rows that are stored."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestBatch:
    """B requests as tensors, with their statuses."""

    tensors: Mapping[str, NDArray[Any]]
    """The schema's, of histories, requests, candidates and maybe users, by their names."""
    item_status: NDArray[np.uint8]
    """(B, N): bits of ``ItemStatus``."""
    statuses: tuple[str, ...]
    """B of ``RequestStatus``."""
    feature_versions: tuple[str, ...]
    """B versions of the user's rows and the item table."""
    times_ms: Int64s
    """(B,): the requests' times, or the clock's."""


class RequestFeatures:
    """Makes tensors of requests, by a bundle's vocabulary and sizes (L and W)."""

    def __init__(
        self,
        reader: UserReader,
        vocabulary: Vocabulary,
        item_table: ItemTable,
        *,
        sizes: Mapping[str, int],
        ttl_days: float = 90.0,
    ) -> None:
        self._reader, self.vocabulary, self.items = reader, vocabulary, item_table
        self._breaker = CircuitBreaker[dict[str, UserState]]()
        self._lengths = sizes["L"], sizes["W"]
        self._ttl_ms = ttl_ms_of(ttl_days)
        self._keys = ItemKeyCache()
        self._user_rows = lru_cache(MAX_CACHED_PROFILES)(vocabulary.user_attribute_rows)
        self._contexts = lru_cache(MAX_CACHED_CONTEXTS)(self._read_context)
        self._unknown_fields: set[str] = set()

    def assemble(
        self,
        user_ids: Texts,
        item_ids: Sequence[Texts] | NDArray[Any],
        times_ms: Sequence[int] | NDArray[Any] | None = None,
        contexts: Texts | None = None,
        numbers: Float32s | None = None,
    ) -> RequestBatch:
        """Return the tensors of B requests of N items each; "" pads the items.

        A time of 0, or none, is the clock's. ``numbers`` (B, N, K) are the items', NaN
        where one is missing; None: all are. Raises ``MistakeError`` for bad ids, times in
        seconds, a context that is no flat map.
        """
        times = times_of(times_ms, len(user_ids))
        read, key_of = self._read(user_ids), self._keys.__getitem__
        keys = np.array([list(map(key_of, row)) for row in item_ids], dtype=np.int64)
        if made := self._compiled(read, keys, times, contexts, numbers):
            return made
        arrays = self._arrays(read, times)
        # Candidates and history at once: half the searches.
        every = np.concatenate([keys, arrays.sequences.item_keys], axis=1)
        items = self.items.lookup(every)
        users = _found(arrays, times, items.take(np.s_[:, keys.shape[1] :]))
        of_keys = items.take(np.s_[:, : keys.shape[1]])
        return self._batch(users, keys, of_keys, contexts, numbers)

    def of_candidates(
        self, users: FoundUsers, item_keys: Int64s, contexts: Texts | None = None
    ) -> RequestBatch:
        """Return the tensors of ``users`` and N items each, by their keys; 0 pads."""
        return self._batch(users, item_keys, self.items.lookup(item_keys), contexts)

    def close(self) -> None:
        """Stop refreshing the item table."""
        self.items.stop()

    def read(
        self, user_ids: Texts, times_ms: Sequence[int] | NDArray[Any] | None
    ) -> FoundUsers:
        """Return the users as of their requests' times; raises as ``assemble`` does."""
        times = times_of(times_ms, len(user_ids))
        arrays = self._arrays(self._read(user_ids), times)
        return _found(arrays, times, self.items.lookup(arrays.sequences.item_keys))

    def _compiled(
        self,
        read: ReadUsers,
        keys: Int64s,
        times: Int64s,
        contexts: Texts | None,
        of_items: Float32s | None,
    ) -> RequestBatch | None:
        """Return the same, by the library; None where numpy makes it."""
        if (table := self.items.assembler()) is None:
            return None
        (assembler, version), of_contexts = table, self._of_contexts(contexts, len(times))
        every = [None] * len(times) if of_items is None else of_items
        requests = [
            UserRequest(
                user=user,
                at_ms=at_ms,
                after_ms=at_ms - self._ttl_ms,
                numbers=numbers,
                utc_offset_ms=offset_ms,
                candidate_numbers=of_request,
            )
            for user, at_ms, (_, numbers, offset_ms), of_request in zip(
                read.users, times.tolist(), of_contexts, every, strict=True
            )
        ]
        if (made := assembler(requests, keys, self._lengths)) is None:
            return None
        attributes = [user.attributes for user in read.users]
        rows = np.array([rows for rows, _, _ in of_contexts])
        return RequestBatch(
            tensors={**self._of_users(attributes), "context_rows": rows, **made.tensors},
            item_status=made.item_status,
            statuses=read.statuses(made.behaviors),
            feature_versions=_versions(read.versions, version),
            times_ms=times,
        )

    def _batch(
        self,
        users: FoundUsers,
        keys: Int64s,
        items: ItemRows,
        contexts: Texts | None,
        numbers: Float32s | None = None,
    ) -> RequestBatch:
        """Return the tensors of candidates ``keys`` (B, N), which the table has so."""
        return RequestBatch(
            tensors={
                **self._of_users(users.arrays.attributes),
                **users.history,
                **self._of_requests(users, contexts),
                **self._of_candidates(users, keys, items, numbers),
            },
            item_status=self._item_status(keys, items),
            statuses=users.arrays.statuses,
            feature_versions=_versions(users.arrays.versions, items.version),
            times_ms=users.times_ms,
        )

    def _read(self, user_ids: Texts) -> ReadUsers:
        ids = [text_of(user_id, "user_id") for user_id in user_ids]
        rows: Mapping[str, UserState] | None = None
        with tracing.part("read"), contextlib.suppress(MistakeError, ArtifactError):
            rows = self._breaker(partial(self._reader.read_users, ids))
        is_down = rows is None
        missing = RequestStatus.STORE_UNAVAILABLE if is_down else RequestStatus.COLD_USER
        found = [self._readable((rows or {}).get(each, NOBODY)) for each in ids]
        return ReadUsers(users=found, missing=missing)

    def _readable(self, user: UserState) -> UserState:
        """Return ``user``, or ``DAMAGED`` where the attributes cannot be read."""
        try:
            if self.vocabulary.user_fields:
                self._user_rows(user.attributes)
            return user
        except (AttributeError, TypeError, ValueError) as error:
            packing.log_damage(f"the attributes cannot be read: {error}")
            return packing.DAMAGED

    def _arrays(self, read: ReadUsers, times: Int64s) -> UserArrays:
        return user_arrays(read, (times - self._ttl_ms).tolist(), *self._lengths)

    def _of_requests(
        self, users: FoundUsers, contexts: Texts | None
    ) -> dict[str, NDArray[Any]]:
        """Return REQUEST_TENSORS of users in their ``contexts``."""
        found, times = users.arrays, users.times_ms
        read = self._of_contexts(contexts, len(times))
        rows, numbers, offsets = zip(*read, strict=True)
        return {
            "request_features": transforms.request_features(
                found.sequences, found.activity, times, np.array(numbers), np.array(offsets)
            ),
            "context_rows": np.array(rows),
        }

    def _read_context(self, text: Text) -> ReadContext:
        """Return what a context says; log each field that training never saw, once."""
        context = context_of(text)
        for name in self.vocabulary.unknown_fields(context):
            is_new = name not in self._unknown_fields
            if is_new and len(self._unknown_fields) < _MAX_UNKNOWN_FIELDS:
                self._unknown_fields.add(name)
                LOG.warning(
                    "context field %r cannot help: no request that the bundle was trained "
                    "on has it; log it with impressions and refresh, or correct its name",
                    name,
                )
        return read_context(self.vocabulary, context)

    def _of_contexts(self, contexts: Texts | None, count: int) -> list[ReadContext]:
        texts = [""] * count if contexts is None else contexts
        return [self._contexts(text) for text in texts]

    def _of_users(self, attributes: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return USER_TENSORS; {} where the bundle has no user fields."""
        if not self.vocabulary.user_fields:
            return {}
        rows = [self._user_rows(text) for text in attributes]
        return {"user_attribute_rows": np.stack(rows)}

    def _of_candidates(
        self,
        users: FoundUsers,
        keys: Int64s,
        items: ItemRows,
        numbers: Float32s | None,
    ) -> dict[str, NDArray[Any]]:
        """Return CANDIDATE_TENSORS of ``items`` (B, N)."""
        stored, times = users.arrays, users.times_ms
        columns = self.vocabulary.candidate_columns
        if numbers is None:
            numbers = missing_numbers(keys, len(columns.numbers))
        inputs = CandidateArrays(
            request_time_ms=times,
            item_keys=keys,
            attribute_rows=items.attribute_rows,
            activity=items.activity,
            total=self.items.total().take(np.zeros(len(times), dtype=np.int64)),
            exposures=transforms.item_exposures(stored.exposures, keys, times),
            sequences=stored.sequences,
            history_attribute_rows=users.history["history_attribute_rows"],
            number_columns=list_columns(numbers, keys),
        )
        return {
            "candidate_item_rows": items.item_rows,
            "candidate_attribute_rows": items.attribute_rows,
            "candidate_features": transforms.candidate_features(inputs, columns),
        }

    def _item_status(self, keys: Int64s, items: ItemRows) -> NDArray[np.uint8]:
        is_unknown = items.item_rows < self.vocabulary.first_known_row
        is_idle = items.activity.first_seen_ms <= 0
        notes = is_unknown * ItemStatus.UNKNOWN_ITEM + is_idle * ItemStatus.NO_ACTIVITY
        status = np.where(keys != 0, notes + items.status, ItemStatus.PADDING)
        return status.astype(np.uint8)


def open_bundle(
    config: FeatureConfig, folder: Path, library: Path | None = None
) -> RequestFeatures:
    """Return the features of the bundle in ``folder``, whose item table stays fresh.

    A server starts although the store is down; its table fills later. ``library`` is
    onnxruntime's, where a native step answers as well.
    """
    known = vocabulary.load(folder / bundle.VOCABULARY_FILE)
    users = row_codec.USERS if known.user_fields else row_codec.USER_HISTORIES
    users = replace(users, damaged=packing.DAMAGED)
    sizes, ttl_days = bundle.read(folder).sizes, config.sequence_ttl_days
    plan = partial(plan_of, config, folder, library, users) if library else None
    table = open_table(config, known, plan)
    views = OnlineViews(config, timeout_s=REQUEST_TIMEOUT_S, users=users)
    return RequestFeatures(views, known, table, sizes=sizes, ttl_days=ttl_days)


def _versions(of_users: Sequence[str], of_items: int) -> tuple[str, ...]:
    return tuple(f"{user}{',' * bool(user)}items={of_items}" for user in of_users)


def _found(arrays: UserArrays, times_ms: Int64s, items: ItemRows) -> FoundUsers:
    """Return users whose histories are of ``items`` (B, L)."""
    history = {
        "history_item_rows": items.item_rows,
        "history_attribute_rows": items.attribute_rows,
        "history_behavior_codes": transforms.behavior_codes(arrays.sequences),
    }
    return FoundUsers(arrays=arrays, times_ms=times_ms, history=history)


class ItemKeyCache(dict[Text, int]):
    """Item id → key: each id is decoded and hashed once, "" is 0."""

    def __missing__(self, item_id: Text) -> int:
        if len(self) >= MAX_CACHED_IDS:
            self.clear()
        key = item_key(text_of(item_id, "item_ids")) if item_id else 0
        self[item_id] = key
        return key


def text_of(given: Text, name: str, max_length: int = MAX_ID_LENGTH) -> str:
    """Return an id or a context as text; ``MistakeError`` for what it may not be."""
    try:
        text = given.decode() if isinstance(given, bytes) else given
    except UnicodeDecodeError as error:
        raise MistakeError(
            f"{name} is not UTF-8: {error.reason} in {given!r:.80}"
        ) from None
    if len(text) > max_length:
        raise MistakeError(f"{name} has {len(text)} letters; at most {max_length}")
    return text


def context_of(text: Text) -> dict[str, str]:
    """Return a caller's context; ``MistakeError`` for one that is not a flat map."""
    return vocabulary.parse_context(text_of(text, "context", _MAX_CONTEXT_CHARACTERS))


def read_context(words: Vocabulary, context: Mapping[str, str]) -> ReadContext:
    """Return a context's rows and numbers, and how far the user's clock is ahead."""
    numbers = vocabulary.context_numbers(context, words.context_numbers)
    return vocabulary.context_rows(context), numbers, words.utc_offset_ms(context)


def times_of(times_ms: Sequence[int] | NDArray[Any] | None, count: int) -> Int64s:
    """Return the requests' times (B,): the clock's for 0. Raises ``MistakeError``."""
    now_ms = time.time_ns() // 1_000_000
    given = [0] * count if times_ms is None else np.ravel(times_ms).tolist()
    times = [each or now_ms for each in given]
    if times and min(times) < MIN_OCCURRED_AT_MS:
        raise MistakeError(
            f"request_time_ms {min(times)} is before 1973: is it in seconds? "
            "Send milliseconds"
        )
    if times and max(times) > MAX_OCCURRED_AT_MS:
        raise MistakeError(
            f"request_time_ms {max(times)} is after 2100: is it in microseconds? "
            "Send milliseconds"
        )
    return np.array(times, dtype=np.int64).reshape(count)
