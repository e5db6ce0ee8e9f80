"""A sink in memory that keeps the contract of ``streams.state.state_store.FeatureSink``."""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.reducers import ItemPartitionKey, Rows
from srp4ctr.streams.state.state_store import NO_OFFSETS, ItemProfile, LostWritesError
from srp4ctr.streams.state.user_state import UserState

_Key = TypeVar("_Key")
_Row = TypeVar("_Row", UserState, Activity)


class MemorySink:
    """Keeps rows in dicts, as Feast does: a row that is not newer changes nothing.

    The next ``failures`` writes fail.
    """

    def __init__(self) -> None:
        self.rows = Rows()
        self.offsets: dict[int, int] = {}
        self._known: dict[int, int] = {}
        self.profiles: dict[int, ItemProfile] = {}
        self.failures = 0
        self.writes = 0
        self.restored = 0

    def read(self, user_ids: Collection[str], shares: Collection[ItemPartitionKey]) -> Rows:
        return Rows(
            users=_some(self.rows.users, user_ids),
            shares=_some(self.rows.shares, shares),
        )

    def begin(self, partition: int) -> int | None:
        self._known = self._known | self.offsets
        return self.offsets.get(partition)

    def write(self, rows: Rows, offsets: Mapping[int, int] = NO_OFFSETS) -> None:
        self._maybe_fail()
        for partition in offsets:
            if self.offsets.get(partition) != self._known.get(partition):
                raise LostWritesError(partition)
        self.writes += 1
        _keep_newer(self.rows.users, rows.users)
        _keep_newer(self.rows.shares, rows.shares)
        self.offsets |= offsets
        self._known |= offsets

    def copy(self) -> "MemorySink":
        """Return an equal sink, as a replica or a dump is."""
        copied = MemorySink()
        copied.rows = Rows(users=dict(self.rows.users), shares=dict(self.rows.shares))
        copied.offsets = dict(self.offsets)
        return copied

    def write_profiles(self, profiles: Sequence[ItemProfile]) -> None:
        self._maybe_fail()
        for profile in profiles:
            stored = self.profiles.get(profile.item_key)
            if stored is None or stored.updated_at_ms <= profile.updated_at_ms:
                self.profiles[profile.item_key] = profile

    def restore_profiles(self) -> int:
        self.restored += 1
        return len(self.profiles)

    def _maybe_fail(self) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise ConnectionError("the store is down")


def _some(kept: Mapping[_Key, _Row], keys: Collection[_Key]) -> dict[_Key, _Row]:
    return {key: kept[key] for key in keys if key in kept}


def _keep_newer(kept: dict[_Key, _Row], written: Mapping[_Key, _Row]) -> None:
    for key, row in written.items():
        if key not in kept or kept[key].version_us < row.version_us:
            kept[key] = row
