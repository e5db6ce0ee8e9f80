"""Rows of the stream ↔ Feast: opens the store, and writes and reads rows by their keys.

The only module that talks to Feast's online store. ``FeatureStoreSink`` is what the stream
worker is given; serving reads by ``OnlineViews``. Import it late: Feast costs 3–4 s.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import row_codec
from srp4ctr.features.online.conditional_write import HashRow, Store, write_newer
from srp4ctr.features.online.connection import connection_string
from srp4ctr.features.online.feast_import import FeatureStore, NoOfflineStore, RepoConfig
from srp4ctr.features.online.registry_connection import registry_settings, shown
from srp4ctr.features.online.registry_retry import retry_on_conflict, unanswered
from srp4ctr.features.online.retry import retry_once
from srp4ctr.features.online.row_codec import StoredRow, Values
from srp4ctr.streams.state.reducers import ItemPartitionKey, Rows
from srp4ctr.streams.state.state_store import FatalStoreError, ItemProfile

PROJECT = "srp4ctr"
PROFILE_LOG = "item-profiles.parquet"
"""In the log's folder: item updates in the columns of ``item_profile``."""
# Of Feast's own writer 100–500 rows a call were the fastest; ours was tried with these.
CHUNK = 200
WRITERS = 8
# How long a read or write may take before it is tried once more, and then fails. A
# request cannot wait; the worker, which tries again itself, can.
REQUEST_TIMEOUT_S = 0.25
BACKGROUND_TIMEOUT_S = 5.0

_NO_OFFLINE_STORE = f"{NoOfflineStore.__module__}.{NoOfflineStore.__name__}"

K = TypeVar("K")
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
            registry=registry_settings(config),
            online_store={
                "type": "redis",
                "redis_type": "redis_cluster" if config.redis_cluster else "redis",
                "connection_string": connection_string(config, timeout_s),
            },
            # Feast's other engine for files loses rows.
            offline_store={"type": "duckdb" if offline else _NO_OFFLINE_STORE},
            entity_key_serialization_version=3,
            repo_path=Path(config.log_dir).absolute(),
        )
    )


def apply(config: FeatureConfig) -> list[str]:
    """Register our views with Feast and return their names; doing it again is harmless."""
    from srp4ctr.features.repo import definitions  # builds Feast's objects: not at import

    if "://" not in config.registry:
        Path(config.registry).absolute().parent.mkdir(parents=True, exist_ok=True)
    Path(config.log_dir).mkdir(parents=True, exist_ok=True)
    kinds = ("Entity", "FeatureView", "FeatureService", "FileSource")
    objects = [o for o in vars(definitions).values() if type(o).__name__ in kinds]
    log_dir = Path(config.log_dir).absolute()
    definitions.profile_log.file_options.uri = str(log_dir / PROFILE_LOG)
    return retry_on_conflict(partial(_apply, config, objects), config.registry)


def _apply(config: FeatureConfig, objects: list[Any]) -> list[str]:
    store = open_store(config, offline=True)
    store.apply(objects)
    return sorted(view.name for view in store.list_feature_views())


class OnlineViews:
    """Rows of our views, read by Feast and written in its layout; safe for many threads.

    Raises ``ConnectionError`` when the store does not answer. Made where the registry is
    away, ``OutageError``; where it does not hold our views, ``ValueError``.
    """

    def __init__(
        self, config: FeatureConfig, *, timeout_s: float = BACKGROUND_TIMEOUT_S
    ) -> None:
        store = open_store(config, timeout_s=timeout_s)
        try:
            self._views = {name: store.get_feature_view(name) for name in row_codec.VIEWS}
        except Exception as error:
            raise unanswered(error, config.registry) or ValueError(
                f"the registry {shown(config.registry)} does not hold our views "
                f"({error}): run `srp4ctr features apply` first"
            ) from error
        self._provider = store.provider
        self._online = store.provider.online_store
        self._config = store.config
        self._is_cluster = config.redis_cluster

    def read(
        self, view: str, entities: Sequence[Any], features: Sequence[str] | None = None
    ) -> list[StoredRow | None]:
        """Return the row of each entity, None where the store has none."""
        found: list[StoredRow | None] = []
        for chunk in _chunks(entities):
            answer = retry_once(partial(self._read_chunk, view, chunk, features))
            found.extend(_stored(timestamp, values) for timestamp, values in answer)
        return found

    def read_users(self, user_ids: Iterable[str]) -> list[list[StoredRow | None]]:
        """Return the users' rows of each of ``USER_VIEWS``, None where there is none.

        All lie in one hash per user, and one round trip brings them: Feast's own read is
        of one view.
        """
        found: list[list[StoredRow | None]] = [[] for _ in row_codec.USER_VIEWS]
        for chunk in _chunks(map(row_codec.user_entity, user_ids)):
            answers = retry_once(partial(self._read_users_chunk, chunk))
            for of_view, answer in zip(found, answers, strict=True):
                of_view.extend(_stored(timestamp, values) for timestamp, values in answer)
        return found

    def write(self, view: str, added: Iterable[Row]) -> None:
        """Store the rows; one that is not newer than what is stored changes nothing."""
        for chunk in _chunks(added):
            names = list(chunk[0][1])
            # Feast appends the time's name to the list that it is given.
            _, (*fields, time_field) = self._online._generate_hset_keys_for_features(
                self._views[view], list(names)
            )
            hashes = self._hashes(chunk, names)
            retry_once(partial(self._write_chunk, time_field, fields, hashes))

    def _write_chunk(self, time_field: Any, fields: Any, hashes: list[HashRow]) -> None:
        # Of a cluster it asks at once which node has which slots.
        client = self._online._get_client(self._config.online_store)
        store = Store(client=client, is_cluster=self._is_cluster)
        write_newer(store, time_field, fields, hashes)

    def _read_chunk(
        self, view: str, chunk: list[Any], features: Sequence[str] | None
    ) -> Any:
        # A new list each time: Feast appends to the one it is given.
        names = list(features) if features else None
        return self._provider.online_read(self._config, self._views[view], chunk, names)

    def _read_users_chunk(self, chunk: list[Any]) -> list[Any]:
        online = self._online
        keys = online._generate_redis_keys_for_entities(self._config, chunk)
        named = [
            online._generate_hset_keys_for_features(self._views[view])
            for view in row_codec.USER_VIEWS
        ]
        commands = [(key, fields) for _, fields in named for key in keys]
        values = iter(online._read_hash_fields(self._config, commands))
        return [
            online._convert_redis_values_to_protobuf(
                list(islice(values, len(keys))), view, names
            )
            for view, (names, _) in zip(row_codec.USER_VIEWS, named, strict=True)
        ]

    def _hashes(self, chunk: Sequence[Row], names: Sequence[str]) -> list[HashRow]:
        """Return the rows under the keys by which Feast will look for them."""
        keys = self._online._generate_redis_keys_for_entities(
            self._config, [entity for entity, _, _ in chunk]
        )
        return [
            HashRow(
                key=key,
                version_us=version_us,
                values=tuple(values[name].SerializeToString() for name in names),
            )
            for key, (_, values, version_us) in zip(keys, chunk, strict=True)
        ]


class FeatureStoreSink:
    """The stream worker's state in Feast: see ``streams.state.state_store.FeatureSink``."""

    def __init__(self, config: FeatureConfig) -> None:
        self._config = config
        self._views = OnlineViews(config)
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="store")

    def read(self, user_ids: Collection[str], shares: Collection[ItemPartitionKey]) -> Rows:
        """Return those of the asked rows that are stored."""
        sequences, activities, exposures = self._views.read_users(user_ids)
        entities = [row_codec.share_entity(*key) for key in shares]
        found = self._views.read(row_codec.ITEM_ACTIVITY_VIEW, entities)
        return Rows(
            sequences=_unpacked(user_ids, sequences, row_codec.unpack_sequence),
            activities=_unpacked(user_ids, activities, row_codec.unpack_activity),
            exposures=_unpacked(user_ids, exposures, row_codec.unpack_exposures),
            shares=_unpacked(shares, found, row_codec.unpack_activity),
        )

    def write(self, changed: Rows) -> None:
        """Store the rows; raise if the store did not take them all."""
        for _, partition in changed.shares:
            if not 0 <= partition < self._config.partitions:
                raise FatalStoreError(
                    f"events come from partition {partition}, but features.partitions "
                    f"is {self._config.partitions}: readers would miss them"
                )
        # Sequences last: they say who wished to be forgotten, and what that drops from the
        # other rows must be in them before. A crash between the two repeats the rest.
        user, activity = row_codec.user_entity, row_codec.pack_activity
        self._write_all(
            *_chunked(row_codec.USER_ACTIVITY_VIEW, changed.activities, user, activity),
            *_chunked(
                row_codec.EXPOSURES_VIEW, changed.exposures, user, row_codec.pack_exposures
            ),
            *_chunked(
                row_codec.ITEM_ACTIVITY_VIEW, changed.shares, _share_entity, activity
            ),
        )
        sequences = changed.sequences
        self._write_all(
            *_chunked(row_codec.SEQUENCE_VIEW, sequences, user, row_codec.pack_sequence)
        )

    def _write_all(self, *added: tuple[str, Iterable[Row]]) -> None:
        # A store that syncs before it answers does so for all connections at once: eight
        # wrote 15,000 rows/s where one wrote 8,600.
        for _ in self._writers.map(lambda job: self._views.write(*job), added):
            pass

    def write_profiles(self, profiles: Sequence[ItemProfile]) -> None:
        """Store the profiles; an older ``updated_at_ms`` never replaces a newer one."""
        self._views.write(row_codec.PROFILE_VIEW, map(_profile_row, profiles))

    def restore_profiles(self) -> int:
        """Store the newest profile of every item in the raw log; return how many."""
        from srp4ctr.features.offline.item_profiles import (
            restore_profiles,  # DuckDB: a server has none
        )

        return restore_profiles(self._config, self)


def _chunked(
    view: str,
    changed: Mapping[K, Any],
    entity_of: Callable[[K], Any],
    pack: Callable[[Any], Values],
) -> Iterator[tuple[str, Iterable[Row]]]:
    """Yield the view and the rows of a call, for each chunk of ``changed``."""
    for chunk in _chunks(changed.items()):
        yield view, [(entity_of(key), pack(row), row.version_us) for key, row in chunk]


def _share_entity(key: ItemPartitionKey) -> Any:
    return row_codec.share_entity(*key)


def _profile_row(profile: ItemProfile) -> Row:
    entity = row_codec.item_entity(profile.item_key)
    return entity, row_codec.pack_profile(profile), profile.updated_at_ms * 1000


def _unpacked(
    keys: Iterable[K], found: Iterable[StoredRow | None], unpack: Callable[[StoredRow], T]
) -> dict[K, T]:
    return {key: unpack(row) for key, row in zip(keys, found, strict=True) if row}


def _chunks(values: Iterable[T]) -> Iterable[list[T]]:
    remaining = iter(values)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def _stored(timestamp: Any, values: Any) -> StoredRow | None:
    """Return the row, or None: for a missing key Redis answers nulls as of 1970."""
    version_us = row_codec.version_of(timestamp) if timestamp is not None else 0
    return StoredRow(values=values, version_us=version_us) if version_us else None
