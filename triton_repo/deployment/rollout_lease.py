"""One lease and one record for a whole rollout, in the first server's live repository.

Every process that promotes can write all live repositories, so nothing else has to be
reached. A rollout takes the lease with a number above all that were given before; each
repository remembers the number that locked it last and refuses lower ones
(``live_repository.locked``), so that a process that was paused beyond its lease cannot
write any more. The record holds the plan of an unfinished rollout, and is written before
each of its steps: the next holder of the lease finishes or undoes it (``reconcile``).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from srp4ctr import processes
from srp4ctr.atomic_files import write_json
from srp4ctr.errors import ArtifactError, OutageError
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import live_repository
from srp4ctr.triton_repo.deployment.live_repository import Serving, StaleRolloutError

LOG = logging.getLogger(__name__)
RECORD_FILE = "rollout.json"
LOCK_FILE = "rollout.lock"
LEASE_S = 30.0
"""Without a renewal for this long, another process takes the lease."""
WAIT_S = 1800.0
_POLL_S = 0.05


class RolloutPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout changes; each server is named by its address."""

    command: str
    """As ``promote v3``."""
    target: str | None
    """The version that it is about: which then serves, or whose canary ends."""
    previous: str | None
    """What the first server served before."""
    before: dict[str, Serving]
    after: dict[str, Serving]
    finishes: bool = False
    """After a crash it is finished: the target has served before. Else it is undone."""
    begun: tuple[str, ...] = ()
    """Servers whose change has begun; all but the last have changed, if it crashed."""


class RolloutRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``rollout.json``."""

    number: int = 0
    """That of the last lease: the fencing token."""
    owner: str = ""
    """``processes.identity`` of its holder; "" once it is released."""
    renewals: int = 0
    at: str = ""
    """UTC of the last change, for people: clocks of several hosts are not compared."""
    plan: RolloutPlan | None = None
    """None: all is finished."""


def read_record(config: TritonConfig) -> RolloutRecord:
    """Return the record of the servers of ``config``, an empty one before any rollout.

    Raises ``ArtifactError`` where it is damaged.
    """
    path = _record_file(config)
    try:
        return msgspec.json.decode(path.read_bytes(), type=RolloutRecord)
    except FileNotFoundError:
        return RolloutRecord()
    except msgspec.DecodeError as error:
        raise ArtifactError(
            f"{path} is damaged ({error}): remove it, then run srp4ctr model reconcile"
        ) from error


class Lease:
    """The right to change the servers, until it is lost or released."""

    def __init__(self, config: TritonConfig, record: RolloutRecord) -> None:
        self._config = config
        self.number, self.plan = record.number, record.plan

    def write(self, plan: RolloutPlan | None) -> None:
        """Record ``plan``; None: nothing is unfinished.

        Raises ``StaleRolloutError`` where the lease was lost: another has the record.
        """
        self._update(lambda record: msgspec.structs.replace(record, plan=plan))
        self.plan = plan

    def begin(self, server: str) -> None:
        """Record that the change of ``server`` begins; raises as ``write``."""
        assert self.plan is not None
        if server not in self.plan.begun:
            begun = (*self.plan.begun, server)
            self.write(msgspec.structs.replace(self.plan, begun=begun))
        else:
            self.renew()

    def renew(self) -> None:
        """Keep the lease for another ``LEASE_S``; raises as ``write``."""
        self._update(lambda record: record)

    def release(self) -> None:
        """Give the lease back; an unfinished plan stays recorded."""
        self._update(lambda record: msgspec.structs.replace(record, owner=""))

    def _update(self, change: Callable[[RolloutRecord], RolloutRecord]) -> None:
        with _record_locked(self._config):
            record = read_record(self._config)
            if record.number != self.number or not record.owner:
                raise StaleRolloutError(
                    f"rollout {self.number} has lost its lease to rollout {record.number}:"
                    " srp4ctr model reconcile shows what serves now"
                )
            renewed = msgspec.structs.replace(
                change(record), renewals=record.renewals + 1, at=_now()
            )
            write_json(_record_file(self._config), renewed)


@contextmanager
def leased(config: TritonConfig) -> Iterator[Lease]:
    """Hold the lease of all servers of ``config``; another rollout is waited for.

    Within it, locks of repositories carry the lease's number. Raises ``OutageError`` where
    another rollout takes longer than ``WAIT_S``, and ``StaleRolloutError`` where this
    process was paused and has lost the lease.
    """
    lease = _acquire(config)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(lease, ended), daemon=True)
    renewing.start()
    try:
        with live_repository.numbered(lease.number):
            # From here on no older rollout can write, wherever it was paused.
            for server in config.servers():
                with live_repository.locked(Path(server.repository)):
                    pass
            # An older one may have written its plan until then.
            lease.plan = read_record(config).plan
            yield lease
    finally:
        ended.set()
        renewing.join()
        try:
            lease.release()
        except (StaleRolloutError, OSError) as error:
            LOG.warning("the lease of rollout %d was not released: %s", lease.number, error)


def _renew(lease: Lease, ended: threading.Event) -> None:
    while not ended.wait(LEASE_S / 3):
        try:
            lease.renew()
        except StaleRolloutError:
            return  # the next step finds it out and raises
        except (OSError, ArtifactError) as error:
            LOG.warning("the lease of rollout %d was not renewed: %s", lease.number, error)


def _acquire(config: TritonConfig) -> Lease:
    """Take the lease once it is free, or its holder has ended or is silent."""
    _record_file(config).parent.mkdir(parents=True, exist_ok=True)
    began = changed = time.monotonic()
    seen, is_waiting = (-1, -1), False
    while True:
        with _record_locked(config):
            record = read_record(config)
            now = time.monotonic()
            if seen != (record.number, record.renewals):
                seen, changed = (record.number, record.renewals), now
            is_silent = now - changed > LEASE_S
            if not record.owner or is_silent or processes.has_ended(record.owner):
                return Lease(config, _take(config, record))
        if not is_waiting:
            LOG.warning("%s runs: waiting until it has ended", describe(record))
            is_waiting = True
        if now - began > WAIT_S:
            raise OutageError(f"{describe(record)} still runs: try again once it has ended")
        time.sleep(_POLL_S)


def _take(config: TritonConfig, record: RolloutRecord) -> RolloutRecord:
    """Write and return the record of a new lease.

    Its number is above those of all repositories, also if the record's disk was lost.
    """
    if record.owner:
        LOG.warning("%s has ended without a result: it is taken over", describe(record))
    numbers = [
        live_repository.last_number(Path(server.repository)) for server in config.servers()
    ]
    taken = RolloutRecord(
        number=max(record.number, *numbers) + 1,
        owner=processes.identity(),
        at=_now(),
        plan=record.plan,
    )
    write_json(_record_file(config), taken)
    return taken


def describe(record: RolloutRecord) -> str:
    """Return a rollout's number, its command and its holder, for messages."""
    command = f" ({record.plan.command})" if record.plan else ""
    host_and_pid = " ".join(record.owner.split()[:3])
    return f"rollout {record.number}{command} of {host_and_pid or 'no process'}"


@contextmanager
def _record_locked(config: TritonConfig) -> Iterator[None]:
    path = _record_file(config).with_name(LOCK_FILE)
    with path.open("w") as lock:
        live_repository.acquire(lock)
        yield


def _record_file(config: TritonConfig) -> Path:
    return Path(config.repository) / RECORD_FILE


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
