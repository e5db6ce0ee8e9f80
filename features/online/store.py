"""Rows of the stream ↔ the online store: reads through Feast, writes in Feast's layout.

The only module that talks to the online store. The stream worker gets a
``FeatureStoreSink``; serving reads with ``OnlineViews``. Import it late: Feast costs 3–4 s.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisClusterException,
    RedisError,
)

from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import row_codec
from srp4ctr.features.online.conditional_write import HashRow, Store, write_newer
from srp4ctr.features.online.connection import redacted
from srp4ctr.features.online.feast_store import (
    BACKGROUND_TIMEOUT_S,
    open_store,
    registry_error,
)
from srp4ctr.features.online.row_codec import Values
from srp4ctr.streams.state.counters import Activity, total
from srp4ctr.streams.state.reducers import ItemPartitionKey, Rows
from srp4ctr.streams.state.state_store import FatalStoreError, ItemProfile

# Of Feast's own writer 100–500 rows a call were the fastest; ours was measured with these.
CHUNK = 200
WRITERS = 8
_FAILURES = (RedisError, RedisClusterException, OSError)  # the second is no RedisError

K = TypeVar("K")
T = TypeVar("T")
Row = tuple[Any, Values, int]  # entity key, values, version in us


class OnlineViews:
    """Rows of the project's views, read and written by key; safe for many threads.

    Raises ``ConnectionError`` when the store does not answer. ``__init__`` raises
    ``OutageError`` if the registry does not answer, ``ValueError`` if it lacks the views.
    """

    def __init__(
        self, config: FeatureConfig, *, timeout_s: float = BACKGROUND_TIMEOUT_S
    ) -> None:
        store = open_store(config, timeout_s=timeout_s)
        try:
            self._views = {name: store.get_feature_view(name) for name in row_codec.VIEWS}
        except Exception as error:
            raise registry_error(error, config.registry) or ValueError(
                f"the registry {redacted(config.registry)} does not hold our views "
                f"({error}): run `srp4ctr features apply` first"
            ) from error
        self._provider = store.provider
        self._online = store.provider.online_store
        self._config = store.config
        self._is_cluster = config.redis_cluster
        self._partitions = range(config.partitions)

    def read_users(self, user_ids: Iterable[str]) -> Rows:
        """Return the users' rows that are stored.

        A user's rows are one hash and take one round trip; Feast reads view by view.
        """
        rows = Rows()
        for chunk in _chunks(user_ids):
            read = partial(self._read_users_chunk, list(map(row_codec.user_entity, chunk)))
            sequences, activities, exposures = retry_once(read)
            rows.sequences |= _unpacked(chunk, sequences, row_codec.unpack_sequence)
            rows.activities |= _unpacked(chunk, activities, row_codec.unpack_activity)
            rows.exposures |= _unpacked(chunk, exposures, row_codec.unpack_exposures)
        return rows

    def read_shares(
        self, keys: Iterable[ItemPartitionKey]
    ) -> dict[ItemPartitionKey, Activity]:
        """Return the stored counters, by item and partition."""
        entities = {key: row_codec.share_entity(key) for key in keys}
        view, unpack = row_codec.ITEM_ACTIVITY_VIEW, row_codec.unpack_activity
        return self._read(view, entities, unpack)

    def read_profiles(self, item_keys: Iterable[int]) -> dict[int, ItemProfile]:
        """Return the stored profiles, by item."""
        entities = {key: row_codec.item_entity(key) for key in item_keys}
        return self._read(row_codec.PROFILE_VIEW, entities, row_codec.unpack_profile)

    def read_items(self, item_keys: Sequence[int]) -> list[tuple[str, Activity]]:
        """Return each item's attributes as JSON ("": none), and its summed counters."""
        texts = self._read(
            row_codec.PROFILE_VIEW,
            {key: row_codec.item_entity(key) for key in item_keys},
            lambda values, _: str(values["attributes"].string_val),
            ["attributes"],
        )
        shares = self.read_shares((key, p) for key in item_keys for p in self._partitions)
        return [
            (
                texts.get(key, ""),
                total([shares[key, p] for p in self._partitions if (key, p) in shares]),
            )
            for key in item_keys
        ]

    def write(self, view: str, added: Iterable[Row]) -> None:
        """Store the rows that are newer than the stored ones."""
        for chunk in _chunks(added):
            names = list(chunk[0][1])
            # Feast appends the time's name to its argument.
            _, (*fields, time_field) = self._online._generate_hset_keys_for_features(
                self._views[view], list(names)
            )
            hashes = self._hashes(chunk, names)
            retry_once(partial(self._write_chunk, time_field, fields, hashes))

    def _write_chunk(self, time_field: Any, fields: Any, hashes: list[HashRow]) -> None:
        # A cluster's client first requests which node has which slots.
        client = self._online._get_client(self._config.online_store)
        store = Store(client=client, is_cluster=self._is_cluster)
        write_newer(store, time_field, fields, hashes)

    def _read(
        self,
        view: str,
        entities: Mapping[K, Any],
        unpack: Callable[[Values, int], T],
        features: Sequence[str] | None = None,
    ) -> dict[K, T]:
        """Return the stored rows of a view, or only ``features`` of them."""
        found: dict[K, T] = {}
        for chunk in _chunks(entities):
            wanted = [entities[key] for key in chunk]
            answer = retry_once(partial(self._read_chunk, view, wanted, features))
            found |= _unpacked(chunk, answer, unpack)
        return found

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
        """Return the rows under Feast's keys."""
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
    """The stream worker's state in the online store: see ``FeatureSink``."""

    def __init__(self, config: FeatureConfig) -> None:
        self._config = config
        self._views = OnlineViews(config)
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="store")

    def read(self, user_ids: Collection[str], shares: Collection[ItemPartitionKey]) -> Rows:
        """Return the stored rows of these users and shares."""
        rows = self._views.read_users(user_ids)
        rows.shares = self._views.read_shares(shares)
        return rows

    def write(self, changed: Rows) -> None:
        """Store the rows; raise if the store did not take them all."""
        for _, partition in changed.shares:
            if not 0 <= partition < self._config.partitions:
                raise FatalStoreError(
                    f"events come from partition {partition}, but features.partitions "
                    f"is {self._config.partitions}: readers would miss them"
                )
        # Sequences last: they record erasure requests, whose effect on the other rows must
        # be stored before. A crash between the two writes repeats the rest.
        user, activity = row_codec.user_entity, row_codec.pack_activity
        self._write_all(
            *_chunked(row_codec.USER_ACTIVITY_VIEW, changed.activities, user, activity),
            *_chunked(
                row_codec.EXPOSURES_VIEW, changed.exposures, user, row_codec.pack_exposures
            ),
            *_chunked(
                row_codec.ITEM_ACTIVITY_VIEW,
                changed.shares,
                row_codec.share_entity,
                activity,
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
        """Store the profiles that are newer, by ``updated_at_ms``, than the stored ones."""
        self._views.write(row_codec.PROFILE_VIEW, map(_profile_row, profiles))

    def restore_profiles(self) -> int:
        """Store the newest profile of every item in the raw log; return how many."""
        from srp4ctr.features.offline.item_profiles import (
            restore_profiles,  # needs DuckDB, which a server does not have
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


def _profile_row(profile: ItemProfile) -> Row:
    entity = row_codec.item_entity(profile.item_key)
    return entity, row_codec.pack_profile(profile), profile.updated_at_ms * 1000


def retry_once(call: Callable[[], T]) -> T:
    """Return the result of ``call``, at the second try if the first one fails.

    A request cannot wait while Redis' own clients sleep between retries; a cluster's client
    looks up its nodes again after the first failure. Raises ``ConnectionError`` for Redis'
    errors, ``FatalStoreError`` if the store denies access.
    """
    try:
        return call()
    except (AuthenticationError, NoPermissionError) as error:
        raise FatalStoreError(
            f"the feature store refuses us: {error}; the worker needs +@read, +@write, "
            "+@connection and +eval on its keys"
        ) from error
    except _FAILURES:
        try:
            return call()
        except _FAILURES as error:
            raise ConnectionError(f"the feature store did not answer: {error}") from error


def _chunks(values: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(values)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def _unpacked(
    keys: Iterable[K], answer: Iterable[Any], unpack: Callable[[Values, int], T]
) -> dict[K, T]:
    """Return the rows that are there: for a missing key Redis answers nulls as of 1970."""
    return {
        key: unpack(values, version_us)
        for key, (timestamp, values) in zip(keys, answer, strict=True)
        if timestamp is not None and (version_us := row_codec.version_of(timestamp))
    }
