"""Registers, reads, checks and erases what the feature store and the raw log hold.

What ``srp4ctr features`` does.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from srp4ctr.atomic_files import write_json
from srp4ctr.errors import MistakeError, OutageError, Srp4ctrError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.consistency.report import REPORT_FILE, FeatureCheck
from srp4ctr.ops.audit import audit_log
from srp4ctr.settings import Settings, has_service
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.pseudonymization import read_pseudonyms
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    NO_CODES,
    ActionCodes,
    Behavior,
    Click,
    Forget,
    UserEvent,
    UserUpdate,
    action_names,
    item_key,
)
from srp4ctr.streams.events.vectors import shown
from srp4ctr.streams.state.sequences import SequenceElement, element_of
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.streams.state.user_state import UserState

if TYPE_CHECKING:  # pyarrow, torch: not every role has them
    from srp4ctr.streams.raw_log.erasure import Erasure
    from srp4ctr.training.skew.check import ServedCheck

_TITLES = ("title", "name")  # attributes that a person knows an item by


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRows:
    """The store's rows of one user, and the events that made them."""

    user_id: str
    user: UserState
    titles: Mapping[int, str]
    """By item key, of all items in the rows."""
    actions: Mapping[int, str]
    """The names of the actions that the user's events have, by code."""
    origins: Mapping[SequenceElement, str]
    """Each behaviour's event, and its place in the log."""
    counted: Sequence[UserEvent]
    """The events of the log that are in the user's counters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedFiles:
    """What an erasure removed from the files, or would remove."""

    log: "Erasure"
    served: int
    """Served requests that were removed; 0 in a dry run."""
    store: str = ""
    """What became of the store's append-only file; "" where no store is known."""


def register_views(settings: Settings) -> list[str]:
    """Register the feature views with Feast and return their names; idempotent."""
    from srp4ctr.features.online.feast_store import apply
    from srp4ctr.features.tensors.fingerprint import fingerprint

    with audit_log(settings).audited("features apply") as operation:
        names = list(apply(settings.features))
        operation.after = f"{len(names)} views, feature schema {fingerprint()}"
    return names


def check(settings: Settings, sample: int, show: Callable[[FeatureCheck], None]) -> bool:
    """Compare the store with the raw log; return whether there was something to compare.

    ``show`` gets the result. Raises ``Srp4ctrError`` where rows differ.
    """
    found = compare_store(settings, sample)
    if not found.rows + found.waiting + found.partitions_left_out:
        return False
    show(found)
    if found.wrong_rows:
        raise Srp4ctrError(
            f"{found.wrong_rows} rows differ from the raw log: srp4ctr stream rebuild"
        )
    return True


def check_served(
    settings: Settings,
    sample: int,
    show: Callable[["ServedCheck"], None],
    progress: Callable[[str], AbstractContextManager[object]],
) -> bool:
    """Compare the newest served requests with training; return whether there were any.

    ``show`` gets the result, ``progress`` what is done meanwhile. Raises ``Srp4ctrError``
    where a score differs from its bundle's.
    """
    from srp4ctr.features.bundles import request_log

    requests = request_log.newest(Path(settings.triton.served_log.folder), sample)
    if not requests:
        return False
    with progress(f"comparing {len(requests):,} requests with the raw log"):
        found = compare_served(settings, requests)
    show(found)
    if found.is_wrong:
        raise Srp4ctrError(
            f"a served score differs by {found.score_difference:.2g} from its bundle's"
        )
    return True


def compare_store(settings: Settings, sample: int = 200) -> FeatureCheck:
    """Compare the store with the raw log now, and write the report for the monitor.

    Raises ``OutageError`` where no broker answers.
    """
    from srp4ctr.features.consistency.check import check_features
    from srp4ctr.features.online.store import FeatureStoreSink
    from srp4ctr.streams.broker.topics import committed_offsets

    sink = FeatureStoreSink(settings.features)
    streams = settings.streams
    place = (streams.group_id, BEHAVIOR_EVENTS_TOPIC)
    committed = committed_offsets(settings.kafka, *place)  # before the rows are read
    check = check_features(settings.features, sink, streams, committed, sample)
    write_json(Path(settings.features.log_dir) / REPORT_FILE, check)
    return check


def compare_served(settings: Settings, requests: Sequence[Path]) -> "ServedCheck":
    """Compare served requests with training's view, and write the report for the monitor.

    ``requests`` are files of ``triton.served_log.folder``.
    """
    from srp4ctr.features.bundles import request_log
    from srp4ctr.training.loop.distributed import cpu_threads
    from srp4ctr.training.refresh.reports import SERVED_CHECK_FILE, ServedReport
    from srp4ctr.training.skew.check import check_served

    with cpu_threads(settings.training.threads):
        served = check_served(
            [request_log.read(path) for path in requests],
            settings.training,
            settings.features,
            settings.streams,
        )
    report = ServedReport(
        checked_at_ms=round(time.time() * 1000),
        requests=served.requests,
        mean_shift=served.shift_of,
    )
    write_json(Path(settings.features.log_dir) / SERVED_CHECK_FILE, report)
    return served


def forget(settings: Settings, user: str, wait_s: float, *, is_pseudonym: bool) -> None:
    """Publish the erasure request of ``user``; return once a worker has applied it.

    Raises ``MistakeError`` for what cannot be a user's id, ``OutageError`` after
    ``wait_s``: the request stays and the next worker that runs applies it.
    """
    from srp4ctr.streams.broker.commands import request_erasure, wait_until_read

    with audit_log(settings).audited("features forget") as operation:
        offsets = request_erasure(settings.kafka, stored_id(settings, user, is_pseudonym))
        # The request, not its user: this line outlives the raw log's.
        operation.subject = ", ".join(
            f"{offset.topic} {offset.partition}@{offsets[offset]}" for offset in offsets
        )
        group = settings.streams.group_id
        if not wait_until_read(settings.kafka, group, offsets, lambda _: None, wait_s):
            raise OutageError(
                f"requested, but no worker has applied it after {wait_s:g} s: the next "
                "worker that runs does (srp4ctr stream run)"
            )


def erase(settings: Settings, *, dry_run: bool = False) -> ErasedFiles:
    """Erase forgotten users from the raw log, the served requests and the store's file.

    Idempotent. Their rows in the store are empty already.
    """
    from srp4ctr.features.bundles import request_log
    from srp4ctr.features.online.store_files import rewrite_files
    from srp4ctr.streams.raw_log import erasure

    log = settings.features.raw_log
    if dry_run:
        return ErasedFiles(log=erasure.erase_forgotten(log, dry_run=True), served=0)
    with audit_log(settings).audited("features erase-forgotten") as operation:
        found = erasure.erase_forgotten(log)
        requests = erasure.erasure_requests_in(log)
        served = request_log.remove(
            Path(settings.triton.served_log.folder),
            lambda each: erasure.is_erased(requests, each.user_id, each.time_ms),
        )
        store = rewrite_files(settings.features) if has_service("store") else ""
        operation.after = f"{found.folders} folders, {served} served requests"
    return ErasedFiles(log=found, served=served, store=store)


def stored_id(settings: Settings, user: str, is_pseudonym: bool) -> str:
    """Return the id under which the stream and the store have ``user``."""
    pseudonyms = read_pseudonyms(settings.streams.pseudonym_key_file)
    return pseudonyms.of(user) if pseudonyms and not is_pseudonym else user


def read_user(features: FeatureConfig, user_id: str) -> UserRows:
    """Return the store's rows of a user; ``MistakeError`` for an unknown user."""
    from srp4ctr.features.consistency import replay
    from srp4ctr.features.online.store import OnlineViews
    from srp4ctr.streams.raw_log.delta_tables import partitions_of

    user = OnlineViews(features).read_users([user_id]).get(user_id)
    if user is None:
        raise MistakeError(f"the store has no rows of user {user_id!r}")
    log = features.raw_log
    partitions = partitions_of(log, BEHAVIOR_EVENTS_TOPIC)
    found = replay.events_of(
        log, "user_id", [(user_id, partition) for partition in partitions]
    )
    logged = [(at[1], event) for at, events in found.items() for event in events]
    elements = user.sequence.elements + user.exposures.elements
    keys = {element.item_key for element in elements}
    return UserRows(
        user_id=user_id,
        user=user,
        titles=titles(features, sorted(keys), _shown_or_used(logged, keys)),
        actions=action_names(
            [each.event.action for _, each in logged if isinstance(each.event, Behavior)],
            features.action_codes,
        ),
        origins=_origins(logged, features.action_codes),
        counted=_counted([each for _, each in logged], user.last_offset),
    )


def titles(
    features: FeatureConfig, item_keys: Iterable[int], ids: Iterable[str] = ()
) -> dict[int, str]:
    """Return each item's title from its profile, or its id; its key if it has neither.

    ``ids`` are of items that may have no profile.
    """
    from srp4ctr.features.online.store import OnlineViews

    names = {key: f"key {key}" for key in item_keys} | {
        item_key(each): each for each in ids
    }
    profiles = OnlineViews(features).read_profiles(list(names))
    return names | {key: title_of(profile) for key, profile in profiles.items()}


def title_of(profile: ItemProfile) -> str:
    """Return the name that a person knows the item by; its id where it has none."""
    for name in _TITLES:
        if isinstance(title := profile.attributes.get(name), str):
            return title
    return str(profile.item_id)


def attribute_texts(
    attributes: Mapping[str, str | tuple[str, ...]],
) -> dict[str, str]:
    """Return ``attributes`` with several values as one text, and of vectors their size."""
    return {
        name: shown(value) if isinstance(value, str) else ", ".join(value)
        for name, value in attributes.items()
    }


def _shown_or_used(logged: Iterable[tuple[int, LoggedEvent]], keys: set[int]) -> set[str]:
    """Return the ids of the items with ``keys`` in a user's events."""
    of_no_item = Forget | UserUpdate
    ids = {e.event.item_id for _, e in logged if not isinstance(e.event, of_no_item)}
    return {each for each in ids if item_key(each) in keys}


def _origins(
    logged: Iterable[tuple[int, LoggedEvent]], codes: ActionCodes
) -> dict[SequenceElement, str]:
    """Return each behaviour's event and its place in the log; the first of equal ones.

    A row from before its action's code was assigned has the hashed code.
    """
    origins: dict[SequenceElement, str] = {}
    for partition, each in logged:
        if isinstance(each.event, Click | Behavior):
            origin = f"{each.event.event_id}, {partition}@{each.offset}"
            for known in (codes, NO_CODES):
                origins.setdefault(element_of(each.event, known), origin)
    return origins


def _counted(logged: Iterable[LoggedEvent], offset: int) -> list[UserEvent]:
    """Return the events that the counters hold: those since the last erasure request."""
    from srp4ctr.features.consistency.replay import counted

    events: list[UserEvent] = []
    for each in counted(logged, offset):
        if isinstance(each.event, Forget):
            events.clear()
        events.append(each.event)
    return events
