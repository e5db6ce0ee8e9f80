"""What a person reads: a user's rows with their events, items by title, one ranking.

In: the settings of the store, the raw log and Triton. Out: values for tables. Feast is
imported at the first read: it takes 3 s.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from srp4ctr.features.config import FeatureConfig
from srp4ctr.settings import Settings
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import Behavior, Click, Forget, UserEvent
from srp4ctr.streams.state.counters import Activity
from srp4ctr.streams.state.exposures import Exposures
from srp4ctr.streams.state.sequences import BehaviorSequence, SequenceElement, element_of
from srp4ctr.streams.state.state_store import ItemProfile

if TYPE_CHECKING:  # not every role has tritonclient
    from srp4ctr.client.messages import Ranking

_TITLES = ("title", "name")  # attributes that a person knows an item by
_LoggedAt = tuple[int, LoggedEvent]
"""A partition, and an event in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRows:
    """What the store has of one user, and the events that made it."""

    user_id: str
    sequence: BehaviorSequence
    exposures: Exposures
    activity: Activity
    titles: Mapping[int, str]
    """By item key, of all items in the rows."""
    origins: Mapping[SequenceElement, str]
    """Each behaviour's event, and its place in the log."""
    counted: Sequence[UserEvent]
    """The events of the log that are in ``activity``."""


def read_user(features: FeatureConfig, user_id: str) -> UserRows:
    """Return what the store has of a user now; ``ValueError`` for an unknown user."""
    from srp4ctr.features.online.store import FeatureStoreSink

    rows = FeatureStoreSink(features).read([user_id], [])
    if not rows:
        raise ValueError(f"the store has no rows of user {user_id!r}")
    logged = _logged(Path(features.log_dir), user_id)
    sequence = rows.sequences.get(user_id, BehaviorSequence())
    exposures = rows.exposures.get(user_id, Exposures())
    activity = rows.activities.get(user_id, Activity())
    keys = {e.item_key for e in sequence.elements} | {k for _, k in exposures.elements}
    return UserRows(
        user_id=user_id,
        sequence=sequence,
        exposures=exposures,
        activity=activity,
        titles=titles(features, sorted(keys)),
        origins=_origins(logged),
        counted=_counted([each for _, each in logged], activity.last_offset),
    )


def rank(settings: Settings, user: str, items: Sequence[str]) -> "Ranking":
    """Return Triton's ranking of ``items``; the user's id is replaced where it must be."""
    from srp4ctr.client.rank_client import RankClient
    from srp4ctr.streams.events.pseudonymization import read_pseudonyms

    triton = settings.triton
    with RankClient(
        triton.grpc,
        canary_share=triton.canary_share,
        tls=triton.tls,
        pseudonyms=read_pseudonyms(settings.streams.pseudonym_key_file),
    ) as client:
        return client.rank(user, items, deadline_s=5.0)


def titles(features: FeatureConfig, item_keys: Sequence[int]) -> dict[int, str]:
    """Return each item's title from its profile; its id where it has none, else its key."""
    from srp4ctr.features.online.store import OnlineViews

    found = OnlineViews(features).read_profiles(item_keys)
    return {
        key: title_of(found[key]) if key in found else f"key {key}" for key in item_keys
    }


def title_of(profile: ItemProfile) -> str:
    """Return the name that a person knows the item by; its id where it has none."""
    for name in _TITLES:
        if isinstance(title := profile.attributes.get(name), str):
            return title
    return str(profile.item_id)


def _logged(log_dir: Path, user_id: str) -> list[_LoggedAt]:
    """Return the user's events in the raw log, with their partitions."""
    from srp4ctr.features.consistency import replay

    places = [at for at in replay.places(log_dir, "user_id") if at[0] == user_id]
    found = replay.events_of(log_dir, "user_id", places)
    return [
        (partition, each) for (_, partition), events in found.items() for each in events
    ]


def _origins(logged: Iterable[_LoggedAt]) -> dict[SequenceElement, str]:
    """Return each behaviour's event and where the log has it; the first of equal ones."""
    found: dict[SequenceElement, str] = {}
    for partition, each in logged:
        if isinstance(each.event, Click | Behavior):
            origin = f"{each.event.event_id}, {partition}@{each.offset}"
            found.setdefault(element_of(each.event), origin)
    return found


def _counted(logged: Iterable[LoggedEvent], offset: int) -> list[UserEvent]:
    """Return the events that the counters hold: those since the last erasure request."""
    from srp4ctr.features.consistency.replay import counted

    events: list[UserEvent] = []
    for each in counted(logged, offset):
        if isinstance(each.event, Forget):
            events.clear()
        events.append(each.event)
    return events
