"""A sink in memory that keeps the contract of ``streams.sink.FeatureSink``."""

from collections.abc import Sequence

from streams.sink import ItemProfile, ItemShare, UserRow


class MemorySink:
    """Keeps rows in dicts; the next ``failures`` writes fail."""

    def __init__(self) -> None:
        self.users: dict[str, UserRow] = {}
        self.shares: dict[tuple[int, int], ItemShare] = {}
        self.profiles: dict[int, ItemProfile] = {}
        self.failures = 0
        self.writes = 0

    def read_users(self, user_ids: Sequence[str]) -> dict[str, UserRow]:
        return {each: self.users[each] for each in user_ids if each in self.users}

    def read_item_shares(
        self, partition: int, item_keys: Sequence[int]
    ) -> dict[int, ItemShare]:
        keys = [key for key in item_keys if (partition, key) in self.shares]
        return {key: self.shares[partition, key] for key in keys}

    def write(self, users: Sequence[UserRow], shares: Sequence[ItemShare]) -> None:
        self._fail_if_told()
        self.writes += 1
        for row in users:
            self.users[row.user_id] = row
        for share in shares:
            self.shares[share.partition, share.item_key] = share

    def write_profiles(self, profiles: Sequence[ItemProfile]) -> None:
        self._fail_if_told()
        for profile in profiles:
            stored = self.profiles.get(profile.item_key)
            if stored is None or stored.updated_at_ms <= profile.updated_at_ms:
                self.profiles[profile.item_key] = profile

    def _fail_if_told(self) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise ConnectionError("the store is away")
