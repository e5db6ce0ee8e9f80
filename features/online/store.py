"""Rows of the stream ↔ the online store: many a round trip, each only if it is newer.

The only module that talks to the online store. The stream worker gets a
``FeatureStoreSink``; serving reads with ``OnlineViews``.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from threading import Lock
from typing import Any, TypeVar

from redis import exceptions
from redis.cluster import RedisCluster

from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import item_feed, row_codec
from srp4ctr.features.online.connection import connector
from srp4ctr.features.online.row_codec import HashRow, K, R, View, time_of
from srp4ctr.features.online.stored_offsets import StoredOffsets
from srp4ctr.retries import retry_at_once
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.reducers import ItemPartitionKey, Rows
from srp4ctr.streams.state.state_store import NO_OFFSETS, ItemProfile
from srp4ctr.streams.state.user_state import NO_PARTITION, UserState

# How long a call may take before it is tried once more, and then fails. A request cannot
# wait; the stream worker, which retries itself, can.
REQUEST_TIMEOUT_S = 0.25
BACKGROUND_TIMEOUT_S = 5.0
# Of Feast's own writer 100–500 rows a call were the fastest; ours was measured with these.
CHUNK = 200
WRITERS = 8
# Writes each key's row if it is newer than the stored one (or as new, where the last ARGV
# is 1), and removes fields that it does not have: those of a part that is gone. Feast
# compares with times that it read before: others' newer rows are lost.
# ARGV: how many names of fields, the names (the time's first), then of each key how many
# of these its row has, its seconds, nanoseconds and values. A time is a protobuf
# Timestamp: two tagged varints.
_WRITE_NEWER = """
local names, equal = tonumber(ARGV[1]), ARGV[#ARGV] == '1'
local function stored_time(time)
  local parts, at = {0, 0}, 1
  while at <= #time do
    local part, unit, byte = math.floor(time:byte(at) / 8), 1, 128
    parts[part] = 0
    while byte > 127 do
      at = at + 1
      byte = time:byte(at)
      if not byte then return -1, 0 end -- cut off: older than any
      parts[part], unit = parts[part] + byte % 128 * unit, unit * 128
    end
    at = at + 1
  end
  return parts[1], parts[2]
end
local at = 2 + names
for _, key in ipairs(KEYS) do
  local width = tonumber(ARGV[at])
  local seconds, nanos = stored_time(redis.call('HGET', key, ARGV[2]) or '')
  local new_seconds, new_nanos = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local is_newer = seconds < new_seconds or seconds == new_seconds and nanos < new_nanos
  if is_newer or equal and seconds == new_seconds and nanos == new_nanos then
    local row = {}
    for j = 1, width do
      row[2 * j - 1], row[2 * j] = ARGV[1 + j], ARGV[at + 2 + j]
    end
    redis.call('HSET', key, unpack(row))
    if width < names and redis.call('HLEN', key) > width then
      redis.call('HDEL', key, unpack(ARGV, 2 + width, 1 + names))
    end
  end
  at = at + 3 + width
end
"""

_NO_TIME = b"\xff\xff"  # which cannot be decoded
T = TypeVar("T")


class OnlineViews:
    """Rows of the project's views, read and written by key; safe for many threads.

    Raises ``OutageError`` when the store does not answer, ``MistakeError`` for settings
    with which it cannot.
    """

    def __init__(
        self,
        config: FeatureConfig,
        *,
        timeout_s: float = BACKGROUND_TIMEOUT_S,
        users: View[str, UserState] = row_codec.USERS,
    ) -> None:
        self._users, self._connect = users, connector(config, timeout_s)
        self._is_cluster = config.redis_cluster
        self._kept: deque[Any] = deque()  # connections that no thread uses now
        self._client: Any = None

    def read_users(self, user_ids: Iterable[str]) -> dict[str, UserState]:
        """Return the users' rows that are stored."""
        return self._read(user_ids, self._users)

    def read_shares(
        self, keys: Iterable[ItemPartitionKey]
    ) -> dict[ItemPartitionKey, Activity]:
        """Return the stored counters, by item and partition."""
        return self._read(keys, row_codec.ITEM_ACTIVITY)

    def read_profiles(self, item_keys: Iterable[int]) -> dict[int, ItemProfile]:
        """Return the stored profiles, by item."""
        return self._read(item_keys, row_codec.PROFILES)

    def call(self, work: Callable[[Any], T]) -> T:
        """Return what ``work`` makes of Redis' client, at the second try if need be."""
        return _reliably(partial(self._call, work))

    def _call(self, work: Callable[[Any], T]) -> T:
        if self._client is None:
            self._client = self._connect()  # a cluster's fails at once if it is down
        try:
            return work(self._client)
        except exceptions.ReadOnlyError:
            # After a failover behind one address, open connections are to the old primary.
            if not self._is_cluster:
                self._disconnect(self._client.connection_pool)
            raise

    def _disconnect(self, pool: Any) -> None:
        """Have each connection that no thread uses now made again at its next use."""
        with suppress(IndexError):
            while True:
                pool.release(self._kept.pop())
        pool.disconnect(inuse_connections=False)

    def nodes(self) -> list[Any]:
        """Return a client for each node that has rows of its own."""
        return self.call(_nodes)

    def write(self, view: View[K, R], changed: Iterable[tuple[K, R]]) -> None:
        """Store the rows that are newer than the stored ones."""
        for chunk in _chunks(changed):
            hashes = [view.stored(key, row) for key, row in chunk]
            self.call(partial(write_newer, view=view, rows=hashes))

    def write_for(self, seconds: int, view: View[K, R], rows: Mapping[K, R]) -> None:
        """Store ``rows`` of keys without another writer; they expire after ``seconds``.

        No row of an item: its changes have to be in the stream as well.
        """
        hashes = [view.stored(key, row) for key, row in rows.items()]
        self.call(partial(_write_for, seconds, view=view, rows=hashes))

    def remove(self, view: View[K, R], keys: Iterable[K]) -> None:
        """Remove the rows of ``keys``."""
        names = list(map(view.key, keys))
        self.call(partial(_unlink, names))

    def _read(self, keys: Iterable[K], view: View[K, R]) -> dict[K, R]:
        """Return the stored rows of ``view``."""
        fields = view.all_fields
        found: dict[K, R] = {}
        for chunk in _chunks(keys):
            hashes = self.call(partial(self._hashes, list(map(view.key, chunk)), fields))
            for key, values in zip(chunk, hashes, strict=True):
                if (row := view.loaded(values)) is not None:
                    found[key] = row
        return found

    def _hashes(
        self, keys: Sequence[bytes], fields: Sequence[bytes], client: Any
    ) -> list[list[Any]]:
        if len(keys) == 1 and not self._is_cluster:
            return [self._read_one(client.connection_pool, keys[0], fields)]
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hmget(key, fields)
            answers = pipe.execute(raise_on_error=False)
        return [_fields_of(answer, len(fields)) for answer in answers]

    def _read_one(self, pool: Any, key: bytes, fields: Sequence[bytes]) -> list[Any]:
        """Return a user's fields, as requests read them: by a connection that is kept.

        The client takes one from its pool and gives it back at each call, .1 ms.
        """
        try:
            connection = self._kept.pop()
        except IndexError:
            connection = pool.get_connection()
        try:
            connection.send_command("HMGET", key, *fields)
            try:
                answer = connection.read_response()
            except exceptions.ResponseError as error:
                answer = error
            found = _fields_of(answer, len(fields))
        except BaseException:
            connection.disconnect()
            pool.release(connection)
            self._disconnect(pool)  # the others are of the same server
            raise
        self._kept.append(connection)
        return found


class FeatureStoreSink:
    """The stream worker's state in the online store: see ``FeatureSink``."""

    def __init__(self, config: FeatureConfig) -> None:
        self._config = config
        self._views = OnlineViews(config)
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="store")
        self._offsets = StoredOffsets(self._views.call, config)
        self._writing = Lock()

    def read(self, user_ids: Collection[str], shares: Collection[ItemPartitionKey]) -> Rows:
        """Return the stored rows of these users and shares."""
        return Rows(
            users=self._views.read_users(user_ids), shares=self._views.read_shares(shares)
        )

    def begin(self, partition: int) -> int | None:
        """Return up to which offset the rows have the events of ``partition``."""
        with self._writing:
            return self._offsets.begin(partition)

    def stored_offsets(self) -> dict[int, int]:
        """Return up to which offset the rows have each partition's events, where known."""
        return self._offsets.read(range(self._config.partitions))

    def write(self, changed: Rows, offsets: Mapping[int, int] = NO_OFFSETS) -> None:
        """Store the rows, then the next offsets by partition; raise if not all is stored.

        Raises ``LostWritesError`` before it writes a row, if the store has lost what this
        sink had stored of one of these partitions.
        """
        with self._writing:
            seen = self._offsets.check(offsets)
            self._write_rows(changed)
            if offsets:
                self._offsets.write(offsets, seen)

    def _write_rows(self, changed: Rows) -> None:
        last = max(changed.partitions, default=NO_PARTITION)
        if last >= self._config.partitions:
            raise MistakeError(
                f"events come from partition {last}, but kafka.partitions is "
                f"{self._config.partitions}: readers would miss them. If the topic was "
                f"created with {last + 1} or more, set that number; if partitions were "
                "added, do as docs/scaling.md says about another number of partitions"
            )
        # Users last: they record erasure requests, whose effect on items must be stored
        # before. A crash in between repeats the rest.
        self._write_all(row_codec.ITEM_ACTIVITY, changed.shares)
        self._write_all(row_codec.USERS, changed.users)

    def write_profiles(self, profiles: Sequence[ItemProfile]) -> None:
        """Store the profiles that are no older, by ``updated_at_ms``, than the stored."""
        self._views.write(
            row_codec.PROFILES, ((profile.item_key, profile) for profile in profiles)
        )

    def restore_profiles(self) -> int:
        """Store the newest profile of every item in the raw log; return how many."""
        # It needs DuckDB, which a server does not have.
        from srp4ctr.features.offline.profiles import restore_profiles

        return restore_profiles(self._config, self)

    def _write_all(self, view: View[K, R], rows: Mapping[K, R]) -> None:
        # A store that syncs before it answers does so for all connections at once: eight
        # wrote 15,000 rows/s where one wrote 8,600.
        write = partial(self._views.write, view)
        for _ in self._writers.map(write, _chunks(rows.items())):
            pass


def write_newer(client: Any, view: View[Any, Any], rows: Sequence[HashRow]) -> None:
    """Write those ``rows`` of ``view`` that are newer than the stored.

    Rows of items are added to the stream of changes first: if the rows are stored, so is
    the entry.
    """
    entry = item_feed.entry_of(view.fields, rows)
    added: Any = {"name": item_feed.STREAM, "fields": entry, **item_feed.KEPT_ENTRIES}
    # A script's keys must be in one slot of a cluster: there each row is a call of its own,
    # and one pipeline sends them to their nodes.
    is_cluster = isinstance(client, RedisCluster)
    if entry and is_cluster:  # separately: its node may fail while those of the rows do not
        client.xadd(**added)
    names = view.all_fields
    with client.pipeline(transaction=False) as pipe:
        if entry and not is_cluster:
            pipe.xadd(**added)
        for call in [[each] for each in rows] if is_cluster else [rows]:
            keys, arguments = [row.key for row in call], [len(names), *names]
            for row in call:
                seconds, micros = divmod(row.version_us, 1_000_000)
                fields = (time_of(row.version_us), *row.values)
                arguments += (len(fields), seconds, micros * 1000, *fields)
            arguments.append(int(view.equal_replaces))
            # Without its node, the client requests from a server which of a script's
            # arguments are keys, each time.
            node = {"target_nodes": client.get_node_from_key(keys[0])} if is_cluster else {}
            script = ("EVAL", _WRITE_NEWER, len(keys), *keys, *arguments)
            pipe.execute_command(*script, **node)
        pipe.execute()


def _write_for(
    seconds: int, client: Any, view: View[Any, Any], rows: Sequence[HashRow]
) -> None:
    names = view.all_fields
    with client.pipeline(transaction=False) as pipe:
        for row in rows:
            fields = (time_of(row.version_us), *row.values)
            # The first of the names: a row without a part has fewer fields.
            pipe.hset(row.key, mapping=dict(zip(names, fields, strict=False)))
            pipe.expire(row.key, seconds)
        pipe.execute()


def _unlink(names: Sequence[bytes], client: Any) -> None:
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.unlink(name)
        pipe.execute()


def _nodes(client: Any) -> list[Any]:
    if not isinstance(client, RedisCluster):
        return [client]
    cluster: Any = client  # untyped
    return [cluster.get_redis_connection(primary) for primary in cluster.get_primaries()]


def _fields_of(answer: Any, count: int) -> list[Any]:
    """Return the fields of a key; where it holds no hash, those of a damaged row.

    Raises any other error that is in place of an answer.
    """
    if isinstance(answer, Exception):
        if not str(answer).startswith("WRONGTYPE"):
            raise answer
        return [_NO_TIME, *[None] * (count - 1)]
    fields: list[Any] = answer
    return fields


def _reliably(call: Callable[[], T]) -> T:
    """Return the result of ``call``, at the second try if the first one fails.

    A request cannot wait while Redis' own clients sleep between retries; a cluster's client
    looks up its nodes again after the first failure. Raises ``OutageError`` for Redis'
    errors, ``MistakeError`` if the store denies access.
    """

    def translated() -> T:
        try:
            return call()
        except (exceptions.AuthenticationError, exceptions.NoPermissionError) as error:
            raise MistakeError(
                f"the feature store refuses us: {error}; the worker needs +@read, +@write, "
                "+@connection and +eval on its keys"
            ) from error
        except (exceptions.RedisError, exceptions.RedisClusterException, OSError) as error:
            raise OutageError(f"the feature store did not answer: {error}") from error

    return retry_at_once("store", translated)


def _chunks(values: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(values)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk
