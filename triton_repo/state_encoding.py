"""Users whose sequences have moved → their encoder states, put beside the features.

In: what the stream worker has stored, and the bundle that serves. Out: values that a
request finds instead of encoding a history: see ``features/stored_states.py``. An option,
in the worker's process, by a thread that gives way to the worker where cores are scarce: of
a user who waits only the newest history counts, and of too many the longest waiting go.
"""

import logging
import os
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Counter, Gauge

from srp4ctr.features import bundle
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.requests import RequestFeatures, open_bundle
from srp4ctr.features.stored_states import StateStore, digest_of, packed
from srp4ctr.streams.sink import FeatureSink, ItemProfile, Rows, ShareKey
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.live import read_serving
from srp4ctr.triton_repo.pbtxt import CLICK_RANKER, step_name
from srp4ctr.triton_repo.scoring import Encoder, Tensors, histories_in, key_of

STORED = Counter("srp4ctr_states_stored_total", "Users whose encoder states were stored")
DROPPED = Counter(
    "srp4ctr_states_dropped_total",
    "Users that waited too long among too many to be encoded",
)
WAITING = Gauge("srp4ctr_states_waiting", "Users whose states are to be encoded")

CHUNK = 32  # users that are read at once
MAX_WAITING = 20_000  # 40 s on an idle core, 200 on a busy one: older ones are hardly met
_IDLE_S, _RETRY_S, _LONGEST_RETRY_S = 1.0, 1.0, 30.0
_TIMEOUT_S = 5.0
_NICENESS = 10  # beyond the worker's: on one busy core that keeps .89 of it, of .53 without
_UNREAD = "store_unavailable"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """What encodes, of one bundle."""

    identity: tuple[str, bytes]
    """Its version and its manifest: a version may be rendered anew."""
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
        self._is_idle = False  # nothing serves, and that has been said
        self._writing = threading.Lock()
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
        """End the thread after what it is at, and what keeps the bundle's items fresh."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._close()

    def forget(self, user_ids: Collection[str]) -> None:
        """Remove the states of users whose rows have lost what was to be forgotten.

        When it returns they are gone, and no turn that has read the row before can put
        them back. Raises ``ConnectionError`` when the store does not answer.
        """
        with self._writing:
            self._opened_store().remove(user_ids)

    def turn(self) -> int:
        """Encode some of those that wait, the longest waiting first; return how many.

        Nobody is served before the first promotion: then nothing is encoded, nor kept
        waiting. Raises ``ConnectionError`` when the store does not answer; they wait on.
        """
        users = self._taken()
        try:
            if users and (opened := self._serving()) is not None:
                self._encode(opened, users)
        except BaseException:
            self._put_back(users)
            raise
        return len(users)

    def _run(self) -> None:
        thread, own = threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, thread, own + _NICENESS)  # on Linux a thread's own
        failures = 0
        while not self._stopped:
            with self._changed:
                if not self._waiting:
                    self._changed.wait(_IDLE_S)
            try:
                self.turn()
                failures = 0
            except Exception as error:
                failures += 1  # a request without states encodes: the worker goes on
                retry_s = min(_RETRY_S * 2 ** (failures - 1), _LONGEST_RETRY_S)
                said = "no states are stored; tried again in %g s: %r"
                _log.warning(said, retry_s, error, exc_info=failures == 1)
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped, retry_s)
        self._close()  # what it may have opened while it was stopped

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
        if version is None:
            self._say_that_nothing_serves()
            return None
        folder = self._repository / step_name(CLICK_RANKER, version)
        identity = version, (folder / bundle.MANIFEST_FILE).read_bytes()
        if self._opened is not None and self._opened.identity == identity:
            return self._opened
        self._close()
        encoder = Encoder(folder)
        self._opened = _Opened(
            identity=identity,
            encoder=encoder,
            features=open_bundle(self._config, folder),
        )
        self._is_idle = False
        return self._opened

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.features.close()

    def _say_that_nothing_serves(self) -> None:
        with self._changed:
            self._waiting.clear()
            WAITING.set(0)
        if not self._is_idle:
            _log.warning("no states are stored: no bundle serves in %s", self._repository)
        self._is_idle = True

    def _encode(self, opened: _Opened, users: Sequence[str]) -> None:
        """Store the states of ``users``; who has no history any more has none."""
        with self._writing:  # from the reading of a row: see ``forget``
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
            store = self._opened_store()
            store.write(found, self._keep_s)
            store.remove(histories.keys() - found.keys())
        STORED.inc(len(found))

    def _opened_store(self) -> StateStore:
        if self._store is None:
            self._store = StateStore(self._config, _TIMEOUT_S)
        return self._store


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
        moved = rows.sequences
        # Who has ever wished it: what is left of a history may be all that came since.
        gone = [u for u, row in moved.items() if row.forgotten_at_ms or not row.packed]
        if gone:
            self._encoder.forget(gone)
        self._encoder.moved(user for user, row in moved.items() if row.packed)

    def write_profiles(self, profiles: Sequence[ItemProfile]) -> None:
        """Store the profiles; an older ``updated_at_ms`` never replaces a newer one."""
        self._sink.write_profiles(profiles)

    def restore_profiles(self) -> int:
        """Store the newest profile of every item in the raw log; return how many."""
        return self._sink.restore_profiles()
