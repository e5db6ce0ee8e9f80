"""Settings → the playground's reads: sequences, profiles, candidates and costs."""

import random
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from srp4ctr.errors import MistakeError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle_items import ids_by_key
from srp4ctr.monitoring.web.playground import RequestCost, ShownItem
from srp4ctr.ops.feature_store import attribute_texts, title_of
from srp4ctr.settings import Settings
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    FIRST_HASHED_ACTION,
    INTERNAL_PREFIX,
    action_names,
    item_key,
)
from srp4ctr.streams.raw_log.delta_tables import Log, covered_offsets, dataset, reading
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.streams.state.user_state import UserState
from srp4ctr.training.export.bundle_store import bundle_folder
from srp4ctr.triton_repo.deployment.live_repository import read_serving

_NAMES = ("title", "name")  # shown as the title
_TRIES = 5  # profiles read per candidate: an item may have none
_RECENT_ITEMS = 1000
_ROWS = 2000  # of each partition, the newest
_COLUMNS = ["type", "user_id", "item_id", "occurred_at", "action"]
_ACTIONS = ("click", "behavior")  # a user with impressions only has no sequence


class PlaygroundReads:
    """Reads the store and the bundles at each call; safe for many threads.

    Raises ``ValueError`` or ``ConnectionError`` with what to do if the store is down.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._views: Any = None
        self._known: dict[str, list[int]] = {}
        self._actions: dict[int, str] = {}

    def user(self, user_id: str) -> UserState:
        """Return the user's row; it is empty for an unknown user."""
        rows: dict[str, UserState] = self._store().read_users([user_id])
        return rows.get(user_id, UserState())

    def items(self, keys: Sequence[int]) -> dict[int, ShownItem]:
        """Return each item by its key; without a profile its title is its id.

        That of an item which neither the serving bundle nor the newest events have is
        its key.
        """
        wanted = list(dict.fromkeys(keys))
        found = self._profiles(wanted)
        ids = self._ids([key for key in wanted if key not in found])
        return {
            key: _shown(ids.get(key, f"key {key}"), ids.get(key, ""), found.get(key))
            for key in wanted
        }

    def _ids(self, keys: Sequence[int]) -> dict[int, str]:
        """Return the ids of the items with ``keys``, as far as they are known."""
        found: dict[int, str] = {}
        if keys and (version := self.serving_version()):
            path = self._folder(version) / bundle.ITEMS_FILE
            found = ids_by_key(path, self._known_keys(), keys)
        if set(keys) - found.keys():
            found |= {item_key(item): item for item in self._recent().items}
        return found

    def items_of(self, item_ids: Sequence[str]) -> dict[str, ShownItem]:
        """Return each item by its id; without a profile its title is its id."""
        profiles = self._profiles([item_key(item_id) for item_id in item_ids])
        return {
            item_id: _shown(item_id, item_id, profiles.get(item_key(item_id)))
            for item_id in item_ids
        }

    def actions(self, codes: Iterable[int]) -> dict[int, str]:
        """Return the names of ``codes`` by the settings and the newest events."""
        hashed = {code for code in codes if code >= FIRST_HASHED_ACTION}
        if not hashed <= self._actions.keys():
            assigned = self._settings.streams.action_codes
            self._actions |= action_names(self._recent().actions, assigned)
        return self._actions

    def candidates(self, user_id: str, count: int, draw: int) -> list[str]:
        """Return ``count`` items that are new to the user; each ``draw`` has others.

        They are items of the serving bundle with a profile in the store, or else items of
        the newest events. Raises ``MistakeError`` if there are none.
        """
        seen = {element.item_key for element in self.user(user_id).sequence.elements}
        chance = random.Random(f"{user_id}:{draw}")
        keys = [key for key in self._known_keys() if key not in seen]
        chosen = chance.sample(keys, min(len(keys), count * _TRIES))
        named = self._profiles(chosen)
        found = [named[key].item_id for key in chosen if key in named][:count]
        if not found:
            recent = self._recent()
            new = [item for item in recent.items if item_key(item) not in seen]
            found = chance.sample(new, min(len(new), count))
        if not found:
            raise MistakeError("No items are known: enter the ids of some candidates.")
        return found

    def _recent(self) -> "RecentIds":
        log = self._settings.features.raw_log
        return recent_ids(log, self._settings.kafka.partitions, _RECENT_ITEMS)

    def serving_version(self) -> str | None:
        """Return the serving bundle, by the live repository."""
        return read_serving(Path(self._settings.triton.repository)).serving

    def nothing_serves(self) -> bool:
        """Return whether the repository exists and no bundle was ever promoted to it."""
        is_here = Path(self._settings.triton.repository).is_dir()
        return is_here and self.serving_version() is None

    def cost(self, version: str, candidates: int) -> RequestCost | None:
        """Return the cost of ``candidates`` with bundle ``version``; None if unknown."""
        try:
            card = bundle.read(self._folder(version)).cost
        except ValueError:
            return None
        return request_cost(card, candidates)

    def _known_keys(self) -> list[int]:
        """Return the items of the serving bundle's vocabulary; none if it is not here."""
        from srp4ctr.features.tensors import vocabulary

        version = self.serving_version()
        if version is None:
            return []
        if version not in self._known:
            path = self._folder(version) / bundle.VOCABULARY_FILE
            known = vocabulary.load(path).item_keys.tolist() if path.is_file() else []
            self._known = {version: known}
        return self._known[version]

    def _folder(self, version: str) -> Path:
        return bundle_folder(self._settings.training, version)

    def _profiles(self, keys: Sequence[int]) -> dict[int, ItemProfile]:
        profiles: dict[int, ItemProfile] = self._store().read_profiles(keys)
        return profiles

    def _store(self) -> Any:
        with self._lock:
            if self._views is None:
                from srp4ctr.features.online import store

                self._views = store.OnlineViews(self._settings.features)
            return self._views


def request_cost(card: Mapping[str, float], candidates: int) -> RequestCost | None:
    """Return the cost of ``candidates`` by a bundle's cost card; None if it is empty."""
    try:
        one, hundred = card["head_flops_per_1"], card["head_flops_per_100"]
        encoder, reencoded = card["encoder_flops"], card["unfolded_flops_per_1"]
    except KeyError:
        return None
    each = (hundred - one) / 99  # the head's cost is linear
    return RequestCost(
        encoder_runs=1,
        reencoded_encoder_runs=candidates,
        flops=encoder + one + each * (candidates - 1),
        reencoded_flops=reencoded * candidates,
    )


def _shown(name: str, item_id: str, profile: ItemProfile | None) -> ShownItem:
    if profile is None:
        return ShownItem(item_id=item_id, title=name, attributes={})
    others = {n: v for n, v in profile.attributes.items() if n not in _NAMES}
    return ShownItem(
        item_id=profile.item_id,
        title=title_of(profile),
        attributes=attribute_texts(others),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentIds:
    """Distinct ids, the newest first, and the actions."""

    users: Sequence[str]
    items: Sequence[str]
    actions: frozenset[str]


def recent_ids(log: Log, partitions: int, limit: int) -> RecentIds:
    """Return the ``limit`` newest users with an action, and the newest items.

    By the newest rows of each partition, at any length of the log; none if it is not here.
    """
    is_recent = pc.scalar(False)
    for partition in range(partitions):
        _, last = covered_offsets(log, BEHAVIOR_EVENTS_TOPIC, partition)
        is_new = pc.field("offset") > last - _ROWS
        is_recent |= (pc.field("partition") == partition) & is_new
    with reading(log):
        table = dataset(log, BEHAVIOR_EVENTS_TOPIC).to_table(_COLUMNS, filter=is_recent)
    rows = table.to_pylist()
    rows.sort(key=lambda row: -row["occurred_at"])
    actions = [row for row in rows if row["type"] in _ACTIONS]
    users = dict.fromkeys(
        row["user_id"] for row in actions if not row["user_id"].startswith(INTERNAL_PREFIX)
    )
    items = dict.fromkeys(row["item_id"] for row in rows if row["item_id"])
    return RecentIds(
        users=list(islice(users, limit)),
        items=list(islice(items, limit)),
        actions=frozenset(row["action"] for row in rows if row["action"]),
    )
