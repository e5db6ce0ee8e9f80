"""Users whose sequences have moved → their encoder states, put beside the features.

In: what the stream worker has stored, and the bundle that serves. Out: values that a
request finds instead of encoding a history: see ``features/stored_states.py``. An option,
in the worker's process, by a thread that falls behind rather than hold the worker up: of a
user who waits only the newest history counts, and of too many the longest waiting go.
"""

import logging
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Counter, Gauge

from features.config import FeatureConfig
from features.requests import RequestFeatures, open_bundle
from features.stored_states import StateStore, digest_of, packed
from streams.sink import FeatureSink, ItemProfile, Rows, ShareKey
from triton_repo.config import TritonConfig
from triton_repo.live import read_serving
from triton_repo.pbtxt import CLICK_RANKER, step_name
from triton_repo.scoring import Encoder, Tensors, histories_in, key_of

STORED = Counter("srp4ctr_states_stored_total", "Users whose encoder states were stored")
DROPPED = Counter(
    "srp4ctr_states_dropped_total",
    "Users that waited too long among too many to be encoded",
)
WAITING = Gauge("srp4ctr_states_waiting", "Users whose states are to be encoded")

CHUNK = 32  # users that are read at once
MAX_WAITING = 20_000  # at 2 ms a user 40 s: what is older than that is hardly asked for
_IDLE_S, _RETRY_S = 1.0, 1.0
_TIMEOUT_S = 5.0
_UNREAD = "store_unavailable"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """What encodes, of one bundle."""

    version: str
    features: RequestFeatures
    encoder: Encoder


class StateEncoder:
    """Encodes by the bundle that serves, of which it hears at the next turn."""

    def __init__(self, features: FeatureConfig, triton: TritonConfig) -> None:
        """Nothing is opened before there is something to encode."""
        self._config = features
        self._repository = Path(triton.repository)
        self._keep_s = triton.stored_states_s
        self._waiting: dict[str, None] = {}  # in the order of their moves
        self._changed = threading.Condition()
        self._stopped = False
        self._opened: _Opened | None = None
        self._store: StateStore | None = None

    def moved(self, user_ids: Iterable[str]) -> None:
        """Have the histories of these users encoded, as they are in the store by now."""
        with self._changed:
            for user_id in user_ids:
                self._waiting.pop(user_id, None)
                self._waiting[user_id] = None
            while len(self._waiting) > MAX_WAITING:
                del self._waiting[next(iter(self._waiting))]
                DROPPED.inc()
            WAITING.set(len(self._waiting))
            self._changed.notify()

    def start(self) -> threading.Thread:
        """Encode in a daemon thread until ``stop``."""
        thread = threading.Thread(target=self._run, name="states", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """End the thread after what it is at."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def turn(self) -> int:
        """Encode some of those that wait, the longest waiting first; return how many.

        Nobody is served before the first promotion: then nothing is encoded, nor kept
        waiting. Raises ``ConnectionError`` when the store does not answer; they wait on.
        """
        users = self._taken()
        try:
            opened = self._serving() if users else None
            if opened is not None:
                self._encode(opened, users)
        except BaseException:
            self._put_back(users)
            raise
        return len(users)

    def _run(self) -> None:
        while not self._stopped:
            with self._changed:
                if not self._waiting:
                    self._changed.wait(_IDLE_S)
            try:
                self.turn()
            except Exception:  # a request without states encodes itself: the worker goes on
                _log.exception("no states are stored; tried again")
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped, _RETRY_S)

    def _taken(self) -> list[str]:
        with self._changed:
            users = [user for user, _ in zip(self._waiting, range(CHUNK), strict=False)]
            for user in users:
                del self._waiting[user]
            WAITING.set(len(self._waiting))
            return users

    def _put_back(self, users: Sequence[str]) -> None:
        """Let ``users`` wait again, before those that have come since."""
        with self._changed:
            self._waiting = dict.fromkeys(users) | self._waiting
            WAITING.set(len(self._waiting))

    def _serving(self) -> _Opened | None:
        """Return what encodes by the bundle that serves now."""
        version = read_serving(self._repository).serving
        if self._opened is not None and self._opened.version == version:
            return self._opened
        if version is None:
            _log.warning("no states are stored: no bundle serves in %s", self._repository)
        if self._opened is not None:
            self._opened.features.close()
            self._opened = None
        if version is not None:
            folder = self._repository / step_name(CLICK_RANKER, version)
            self._opened = _Opened(
                version=version,
                encoder=Encoder(folder),
                features=open_bundle(self._config, folder),
            )
        return self._opened

    def _encode(self, opened: _Opened, users: Sequence[str]) -> None:
        """Store the states of ``users``; who has no history any more has none."""
        if self._store is None:
            self._store = StateStore(self._config, _TIMEOUT_S)
        batch = opened.features.assemble(users, [[""]] * len(users))
        if _UNREAD in batch.statuses:
            raise ConnectionError("the feature store does not answer")
        histories = dict(zip(users, histories_in(batch.tensors), strict=True))
        values = {
            user: _value(opened.encoder, history)
            for user, history in histories.items()
            if history["history_item_rows"].any()
        }
        found = {user: value for user, value in values.items() if value is not None}
        self._store.write(found, self._keep_s)
        self._store.remove(histories.keys() - found.keys())
        STORED.inc(len(found))


def _value(encoder: Encoder, history: Tensors) -> bytes | None:
    return packed(encoder(history), digest_of(encoder.digest, key_of(history)))


class EncodingSink:
    """The worker's sink, and behind it the encoder: see ``streams.sink.FeatureSink``."""

    def __init__(self, sink: FeatureSink, encoder: StateEncoder) -> None:
        """Store in ``sink``, then tell ``encoder`` who has moved."""
        self._sink = sink
        self._encoder = encoder

    def read(self, user_ids: Collection[str], shares: Collection[ShareKey]) -> Rows:
        """Return those of the asked rows that are stored."""
        return self._sink.read(user_ids, shares)

    def write(self, rows: Rows) -> None:
        """Store the rows; raise if the store did not take them all."""
        self._sink.write(rows)
        self._encoder.moved(rows.sequences)

    def write_profiles(self, profiles: Sequence[ItemProfile]) -> None:
        """Store the profiles; an older ``updated_at_ms`` never replaces a newer one."""
        self._sink.write_profiles(profiles)
