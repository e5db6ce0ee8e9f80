"""A request's ids → the model's tensors: all that Triton's ``fetch_features`` does.

In: user ids, item ids, times and contexts of B requests. Out: the schema's tensors and a
status. If the store is down, histories are empty and the status says so. Only a malformed
request raises: ``MistakeError`` with a message for the client.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from srp4ctr import tracing
from srp4ctr.errors import ArtifactError, MistakeError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import row_codec
from srp4ctr.features.online.item_cache import ItemRows, ItemTable, open_table
from srp4ctr.features.online.packing import recent_of
from srp4ctr.features.online.store import REQUEST_TIMEOUT_S, OnlineViews
from srp4ctr.features.tensors import transforms, vocabulary
from srp4ctr.features.tensors.request_values import ItemKeyCache, Text, text_of, times_of
from srp4ctr.features.tensors.schema import ItemStatus
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.retries import CircuitBreaker
from srp4ctr.streams.state.user_state import UserState

Int64s = NDArray[np.int64]
Texts = Sequence[Text] | NDArray[Any]  # Triton gives object arrays of bytes

_MS_PER_DAY = 86_400_000
_MAX_CONTEXT_LETTERS = 1 << 16
MAX_CACHED_PROFILES = 10_000


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
    """B of: ok, cold_user, empty_sequence, stale_sequence, store_unavailable."""
    feature_versions: tuple[str, ...]
    """B versions of the user's rows and the item table."""
    times_ms: Int64s
    """(B,): the requests' times, or the clock's."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UserArrays:
    """B users as the store has them; an unknown one is empty."""

    sequences: transforms.SequenceArrays
    activity: transforms.ActivityArrays
    exposures: transforms.ExposureArrays
    attributes: tuple[str, ...]
    """JSON, "" for none."""
    statuses: tuple[str, ...]
    """ok, cold_user (no rows), empty_sequence or stale_sequence (all expired)."""
    versions: tuple[list[str], ...]
    """``user=V@O`` where there is a row: its version in us and the last offset folded into
    it, enough to recompute it from the log."""


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
        self._ttl_ms = round(ttl_days * _MS_PER_DAY)
        self._keys = ItemKeyCache()
        self._user_rows = lru_cache(MAX_CACHED_PROFILES)(vocabulary.user_attribute_rows)

    def assemble(
        self,
        user_ids: Texts,
        item_ids: Sequence[Texts] | NDArray[Any],
        times_ms: Sequence[int] | NDArray[Any] | None = None,
        contexts: Texts | None = None,
        found: UserArrays | None = None,
    ) -> RequestBatch:
        """Return the tensors of B requests of N items each; "" pads the items.

        ``found`` is what ``read`` returned. A time of 0, or none, is the clock's. Raises
        ``MistakeError`` for bad ids, times in seconds, a context that is no flat map.
        """
        found = self.read(user_ids, times_ms) if found is None else found
        key_of, times = self._keys.__getitem__, times_of(times_ms, len(user_ids))
        keys = np.array([list(map(key_of, row)) for row in item_ids], dtype=np.int64)
        texts = [""] * len(times) if contexts is None else contexts
        parsed = [
            vocabulary.parse_context(text_of(text, "context", _MAX_CONTEXT_LETTERS))
            for text in texts
        ]
        # Candidates and history at once: half the searches.
        every = np.concatenate([keys, found.sequences.item_keys], axis=1)
        items = self.items.lookup(every)
        tensors = self._tensors(found, times, parsed, every, items)
        known = self.vocabulary.is_known(tensors["candidate_item_rows"])
        versions = (",".join([*v, f"items={items.version}"]) for v in found.versions)
        return RequestBatch(
            tensors=tensors,
            item_status=_item_status(keys, known, items.take(np.s_[:, : keys.shape[1]])),
            statuses=found.statuses,
            feature_versions=tuple(versions),
            times_ms=times,
        )

    def close(self) -> None:
        """Stop refreshing the item table."""
        self.items.stop()

    def read(
        self, user_ids: Texts, times_ms: Sequence[int] | NDArray[Any] | None
    ) -> UserArrays:
        """Return the users as of their requests' times; raises as ``assemble`` does."""
        users = [text_of(user_id, "user_id") for user_id in user_ids]
        after_ms, rows = times_of(times_ms, len(users)) - self._ttl_ms, None
        with tracing.part("read"), contextlib.suppress(MistakeError, ArtifactError):
            rows = self._breaker(partial(self._reader.read_users, users))
        return user_arrays(users, rows, after_ms, *self._lengths)

    def history(self, found: UserArrays) -> dict[str, NDArray[Any]]:
        """Return HISTORY_TENSORS of ``found``."""
        keys = found.sequences.item_keys
        return {
            "history_item_rows": self.vocabulary.item_rows(keys),
            "history_attribute_rows": self.items.lookup(keys).attribute_rows,
            "history_behavior_codes": transforms.behavior_codes(found.sequences),
        }

    def _tensors(
        self,
        found: UserArrays,
        times: Int64s,
        contexts: list[dict[str, str]],
        every: Int64s,
        items: ItemRows,
    ) -> dict[str, NDArray[Any]]:
        """Return the model's tensors.

        ``every`` (B, N + L) are the keys of ``items``: the candidates, then the history.
        """
        sequences, names = found.sequences, self.vocabulary.context_numbers
        count = every.shape[1] - sequences.item_keys.shape[1]  # N
        keys, candidates = every[:, :count], items.take(np.s_[:, :count])
        rows = self.vocabulary.item_rows(every)
        history_attributes = items.attribute_rows[:, count:]
        numbers = np.stack([vocabulary.context_numbers(each, names) for each in contexts])
        offsets = np.array([self.vocabulary.utc_offset_ms(each) for each in contexts])
        affinity = transforms.attribute_affinity(
            sequences, history_attributes, candidates.attribute_rows, times
        )
        shown = transforms.item_exposures(found.exposures, keys, times)
        of_user = (affinity, transforms.exposure_features(shown, times))
        return self._of_users(found) | {
            "history_item_rows": rows[:, count:],
            "history_attribute_rows": history_attributes,
            "history_behavior_codes": transforms.behavior_codes(sequences),
            "request_features": transforms.request_features(
                sequences, found.activity, times, numbers, offsets
            ),
            "context_rows": np.stack([vocabulary.context_rows(each) for each in contexts]),
            "candidate_item_rows": rows[:, :count],
            "candidate_attribute_rows": candidates.attribute_rows,
            "candidate_features": transforms.candidate_features(
                candidates.activity, keys, sequences.item_keys, of_user, times
            ),
        }

    def _of_users(self, found: UserArrays) -> dict[str, NDArray[Any]]:
        """Return USER_TENSORS; {} where the bundle has no user fields."""
        if not self.vocabulary.user_fields:
            return {}
        rows = [self._user_rows(text) for text in found.attributes]
        return {"user_attribute_rows": np.stack(rows)}


def open_bundle(config: FeatureConfig, folder: Path) -> RequestFeatures:
    """Return the features of the bundle in ``folder``, whose item table stays fresh.

    A server starts although the store is down; its table fills later.
    """
    known = vocabulary.load(folder / bundle.VOCABULARY_FILE)
    table = open_table(config, known)
    users = row_codec.USERS if known.user_fields else row_codec.USER_HISTORIES
    views = OnlineViews(config, timeout_s=REQUEST_TIMEOUT_S, users=users)
    sizes, ttl_days = bundle.read(folder).sizes, config.sequence_ttl_days
    return RequestFeatures(views, known, table, sizes=sizes, ttl_days=ttl_days)


def user_arrays(
    user_ids: Sequence[str],
    rows: Mapping[str, UserState] | None,  # None: the store does not answer
    after_ms: NDArray[np.int64],
    length: int,
    exposure_length: int,
) -> UserArrays:
    """Return the last ``length`` behaviours later than ``after_ms`` (B,), and the rest."""
    sequences = transforms.empty_sequences(len(user_ids), length)
    activity = transforms.empty_activity(len(user_ids))
    exposures = transforms.empty_exposures(len(user_ids), exposure_length)
    attributes, statuses, versions = [""] * len(user_ids), list[str](), list[list[str]]()
    for index, (user_id, oldest_ms) in enumerate(zip(user_ids, after_ms, strict=True)):
        user = rows.get(user_id) if rows else None
        if user is None:
            statuses.append("store_unavailable" if rows is None else "cold_user")
            versions.append([])
            continue
        status = "empty_sequence"
        if len(user.sequence):
            recent = recent_of(user.sequence, oldest_ms, length)
            sequences.put_right(index, recent)
            status = "ok" if len(recent["item_keys"]) else "stale_sequence"
        activity.put(index, user)
        attributes[index] = user.attributes
        shown = recent_of(user.exposures, 0, exposure_length)
        exposures.put_right(index, {**shown, "shown_at_ms": shown["occurred_at_ms"]})
        statuses.append(status)
        versions.append([f"user={user.version_us}@{user.last_offset}"])
    return UserArrays(
        sequences=sequences,
        activity=activity,
        exposures=exposures,
        attributes=tuple(attributes),
        statuses=tuple(statuses),
        versions=tuple(versions),
    )


def _item_status(keys: Int64s, known: NDArray[Any], items: ItemRows) -> NDArray[np.uint8]:
    bits = (
        np.where(known, 0, ItemStatus.UNKNOWN_ITEM)
        | np.where(items.attribute_rows.any(axis=-1), 0, ItemStatus.NO_ATTRIBUTES)
        | np.where(items.activity.first_seen_ms > 0, 0, ItemStatus.NO_ACTIVITY)
        | np.where(items.is_available, 0, ItemStatus.UNAVAILABLE)
    )
    return np.where(keys != 0, bits, ItemStatus.PADDING).astype(np.uint8)
