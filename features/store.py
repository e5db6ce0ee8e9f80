"""Rows of the stream ↔ Feast: opens the store, and writes and reads rows by their keys.

The only module that talks to Feast's online store. ``FeatureStoreSink`` is what the stream
worker is given; serving reads by ``OnlineViews``. Import it late: Feast costs 3–4 s.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from redis.exceptions import RedisError

from features import rows
from features.config import FeatureConfig
from features.feast_api import FeatureStore, RepoConfig
from features.online_address import connection_string
from features.rows import StoredRow, Values
from streams.activity import Activity
from streams.sequences import BehaviorSequence
from streams.sink import ItemProfile, ItemShare, UserRow

PROJECT = "srp4ctr"
PROFILE_LOG = "item-profiles.parquet"
"""In the log's folder: item updates in the columns of ``item_profile``."""
# 100–500 rows a call is the fastest: 31,800 rows/s against 24,000 at 1,000 a call.
CHUNK = 200
# How long a read or write may take before it is tried once more, and then fails. A
# request cannot wait; the worker, which tries again itself, can.
REQUEST_TIMEOUT_S = 0.25
BACKGROUND_TIMEOUT_S = 5.0

T = TypeVar("T")
Row = tuple[Any, Values, int]  # entity key, values, version in us


def open_store(
    config: FeatureConfig,
    *,
    timeout_s: float = BACKGROUND_TIMEOUT_S,
    offline: bool = False,
) -> FeatureStore:
    """Return Feast's store for ``config``.

    ``offline`` can read history with DuckDB, which the server's environment does not have.
    """
    return FeatureStore(
        config=RepoConfig(
            project=PROJECT,
            provider="local",
            registry=_registry(config.registry),
            online_store={
                "type": "redis",
                "connection_string": connection_string(config, timeout_s),
            },
            # Feast's other file engine loses rows; the name is only a place-holder here.
            offline_store={"type": "duckdb" if offline else "file"},
            entity_key_serialization_version=3,
            repo_path=Path(config.log_dir).absolute(),
        )
    )


def apply(config: FeatureConfig) -> list[str]:
    """Register our views with Feast and return their names; doing it again is harmless."""
    from features.repo import definitions  # builds Feast's objects: not at import

    if "://" not in config.registry:
        Path(config.registry).absolute().parent.mkdir(parents=True, exist_ok=True)
    Path(config.log_dir).mkdir(parents=True, exist_ok=True)
    kinds = ("Entity", "FeatureView", "FeatureService", "FileSource")
    objects = [o for o in vars(definitions).values() if type(o).__name__ in kinds]
    log_dir = Path(config.log_dir).absolute()
    definitions.profile_log.file_options.uri = str(log_dir / PROFILE_LOG)
    store = open_store(config, offline=True)
    store.apply(objects)
    return sorted(view.name for view in store.list_feature_views())


class OnlineViews:
    """Reads and writes rows of our views by Feast's provider; safe for many threads.

    Raises ``ConnectionError`` when the store does not answer.
    """

    def __init__(
        self, config: FeatureConfig, *, timeout_s: float = BACKGROUND_TIMEOUT_S
    ) -> None:
        store = open_store(config, timeout_s=timeout_s)
        try:
            self._views = {name: store.get_feature_view(name) for name in rows.VIEWS}
        except Exception as error:
            raise ValueError(
                f"the registry {config.registry} does not hold our views ({error}): "
                "run `srp4ctr features apply` first"
            ) from error
        self._provider = store.provider
        self._config = store.config

    def read(
        self, view: str, entities: Sequence[Any], features: Sequence[str] | None = None
    ) -> list[StoredRow | None]:
        """Return the row of each entity, None where the store has none."""
        found: list[StoredRow | None] = []
        for chunk in _chunks(entities):
            answer = _tried_twice(partial(self._read_chunk, view, chunk, features))
            found.extend(_stored(timestamp, values) for timestamp, values in answer)
        return found

    def write(self, view: str, added: Iterable[Row]) -> None:
        """Store the rows; one that is not newer than what is stored changes nothing."""
        for chunk in _chunks(added):
            batch = [(e, v, rows.at_version(version), None) for e, v, version in chunk]
            _tried_twice(partial(self._write_chunk, view, batch))

    def _read_chunk(
        self, view: str, chunk: list[Any], features: Sequence[str] | None
    ) -> Any:
        # A new list each time: Feast appends to the one it is given.
        names = list(features) if features else None
        return self._provider.online_read(self._config, self._views[view], chunk, names)

    def _write_chunk(self, view: str, batch: list[Any]) -> None:
        self._provider.online_write_batch(self._config, self._views[view], batch, None)


class FeatureStoreSink:
    """The stream worker's state in Feast: see ``streams.sink.FeatureSink``."""

    def __init__(self, config: FeatureConfig) -> None:
        self._views = OnlineViews(config)
        self._partitions = config.partitions

    def read_users(self, user_ids: Sequence[str]) -> dict[str, UserRow]:
        """Return the stored rows of those ``user_ids`` that have one."""
        entities = [rows.user_entity(user_id) for user_id in user_ids]
        sequences = self._views.read(rows.SEQUENCE_VIEW, entities)
        activities = self._views.read(rows.USER_ACTIVITY_VIEW, entities)
        return {
            user_id: UserRow(
                user_id=user_id,
                sequence=rows.unpack_sequence(s) if s else BehaviorSequence(),
                activity=rows.unpack_activity(a) if a else Activity(),
            )
            for user_id, s, a in zip(user_ids, sequences, activities, strict=True)
            if s or a
        }

    def read_item_shares(
        self, partition: int, item_keys: Sequence[int]
    ) -> dict[int, ItemShare]:
        """Return the stored shares of those ``item_keys`` that have one."""
        entities = [rows.share_entity(key, partition) for key in item_keys]
        found = self._views.read(rows.ITEM_ACTIVITY_VIEW, entities)
        return {
            key: ItemShare(
                item_key=key, partition=partition, activity=rows.unpack_activity(row)
            )
            for key, row in zip(item_keys, found, strict=True)
            if row
        }

    def write(self, users: Sequence[UserRow], shares: Sequence[ItemShare]) -> None:
        """Store the rows; raise if the store did not take them all."""
        for share in shares:
            if not 0 <= share.partition < self._partitions:
                raise ValueError(
                    f"events come from partition {share.partition}, but "
                    f"features.partitions is {self._partitions}: readers would miss them"
                )
        # Version 0 is a row that was never changed: there is nothing to store.
        self._views.write(rows.SEQUENCE_VIEW, _changed(users, _sequence_row))
        self._views.write(rows.USER_ACTIVITY_VIEW, _changed(users, _activity_row))
        self._views.write(rows.ITEM_ACTIVITY_VIEW, _changed(shares, _share_row))

    def write_profiles(self, profiles: Sequence[ItemProfile]) -> None:
        """Store the profiles; an older ``updated_at_ms`` never replaces a newer one."""
        self._views.write(rows.PROFILE_VIEW, _changed(profiles, _profile_row))


def _sequence_row(user: UserRow) -> Row:
    packed = rows.pack_sequence(user.sequence)
    return rows.user_entity(user.user_id), packed, user.sequence.version_us


def _activity_row(user: UserRow) -> Row:
    packed = rows.pack_activity(user.activity)
    return rows.user_entity(user.user_id), packed, user.activity.version_us


def _share_row(share: ItemShare) -> Row:
    entity = rows.share_entity(share.item_key, share.partition)
    return entity, rows.pack_activity(share.activity), share.activity.version_us


def _profile_row(profile: ItemProfile) -> Row:
    entity = rows.item_entity(profile.item_key)
    return entity, rows.pack_profile(profile), profile.updated_at_ms * 1000


def _changed(values: Iterable[T], row_of: Callable[[T], Row]) -> Iterable[Row]:
    return (row for row in map(row_of, values) if row[2] > 0)


def _tried_twice(call: Callable[[], T]) -> T:
    """Return ``call``'s answer, at the second try if the first one breaks or times out.

    Raises Redis' errors as the ``ConnectionError`` that callers know.
    """
    try:
        return call()
    except (RedisError, OSError):
        try:
            return call()
        except (RedisError, OSError) as error:
            raise ConnectionError(f"the feature store did not answer: {error}") from error


def _chunks(values: Iterable[T]) -> Iterable[list[T]]:
    remaining = iter(values)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def _stored(timestamp: Any, values: Any) -> StoredRow | None:
    """Return the row, or None: for a missing key Redis answers nulls as of 1970."""
    version_us = rows.version_of(timestamp) if timestamp is not None else 0
    return StoredRow(values=values, version_us=version_us) if version_us else None


def _registry(address: str) -> dict[str, Any]:
    is_sql = "://" in address
    return {
        "registry_type": "sql" if is_sql else "file",
        "path": address if is_sql else str(Path(address).absolute()),
        "cache_ttl_seconds": 300,
        "cache_mode": "thread" if is_sql else "sync",
    }
