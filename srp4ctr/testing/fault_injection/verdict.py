"""Compares what was stored, labelled, dead-lettered and logged with what was published.

In: the published messages and an idle cluster. Out: counts that must be zero, and for
each some names to look for.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    LABELS_TOPIC,
    REJECTED_TOPIC,
    ItemUpdate,
    item_key,
)
from srp4ctr.streams.raw_log.delta_tables import dataset
from srp4ctr.streams.state.counters import Activity, total
from srp4ctr.streams.state.label_join import decode_label
from srp4ctr.streams.state.user_state import UserState
from srp4ctr.testing.fault_injection import reference_stream
from srp4ctr.testing.fault_injection.cluster import Cluster
from srp4ctr.testing.fault_injection.topic_reading import read_topic
from srp4ctr.testing.fault_injection.traffic import Message

Place = tuple[int, int]  # partition and offset
_Owner = TypeVar("_Owner")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What is on the topics, by place on ``behavior-events``."""

    events: dict[Place, LoggedEvent]
    poison: dict[Place, str]
    """The reason for which each must be rejected."""
    values: dict[Place, bytes | None]
    updates: dict[str, ItemUpdate]
    """Of each item, the one that happened last."""

    def without(self, unread: Set[Place]) -> "Published":
        """Return what workers can have read: all but ``unread``, which Kafka dropped."""
        return replace(
            self,
            events={at: each for at, each in self.events.items() if at not in unread},
            poison={at: each for at, each in self.poison.items() if at not in unread},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Names of what is wrong, by kind: all must be empty."""

    lost: list[Place] = field(default_factory=list)
    """Acknowledged, but not on the topic; or valid and there, but not in the raw log."""
    logged_twice: list[Place] = field(default_factory=list)
    sequences: list[str] = field(default_factory=list)
    exposures: list[str] = field(default_factory=list)
    user_counters: list[str] = field(default_factory=list)
    item_counters: list[str] = field(default_factory=list)
    profiles: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    dead_letters: list[str] = field(default_factory=list)
    """Poison that is missing there, or what is there and is no poison."""

    def wrong(self) -> dict[str, int]:
        """Return how many are wrong of each kind."""
        return {field.name: len(getattr(self, field.name)) for field in fields(self)}

    def examples(self) -> str:
        """Return the first few of each kind that has any."""
        return "\n".join(
            f"{field.name}: {getattr(self, field.name)[:5]}"
            for field in fields(self)
            if getattr(self, field.name)
        )


def published_to(
    topics: Iterable[Any], messages: Iterable[tuple[Message, Any]]
) -> Published:
    """Return where ``messages`` are, by the records of both ``topics``.

    One that the broker did not acknowledge in time may be there or not: the topics decide.
    """
    events: dict[Place, LoggedEvent] = {}
    poison: dict[Place, str] = {}
    values: dict[Place, bytes | None] = {}
    updates: dict[str, ItemUpdate] = {}
    for message, taken in _places(topics, messages):
        event = message.event
        if isinstance(event, ItemUpdate):
            before = updates.get(event.item_id)
            if before is None or before.occurred_at <= event.occurred_at:
                updates[event.item_id] = event
            continue
        place = (taken.partition, taken.offset)
        values[place] = message.value
        if event is None:
            poison[place] = str(message.reason)
        else:
            events[place] = LoggedEvent(
                event=event, offset=taken.offset, known_at_ms=taken.timestamp
            )
    return Published(events=events, poison=poison, values=values, updates=updates)


def _places(
    topics: Iterable[Any], messages: Iterable[tuple[Message, Any]]
) -> Iterator[tuple[Message, Any]]:
    """Yield each message that is on a topic, with its acknowledgement or its record."""
    taken: set[tuple[str, int, int]] = set()
    unknown: list[Message] = []
    for message, sent in messages:
        if sent.succeeded():
            place = sent.value
            taken.add((place.topic, place.partition, place.offset))
            yield message, place
        else:
            unknown.append(message)
    unclaimed = defaultdict[tuple[Any, ...], list[Any]](list)
    for record in topics:
        if (record.topic, record.partition, record.offset) not in taken:
            unclaimed[record.topic, record.key, record.value].append(record)
    for message in unknown:  # the same bytes may be published twice
        if found := unclaimed[message.topic, message.key, message.value]:
            yield message, found.pop()


def judge(cluster: Cluster, published: Published, dropped: Sequence[Any] = ()) -> Verdict:
    """Compare everything that ``cluster`` keeps with the reference.

    ``dropped`` are records that the topic held until a fault deleted them.
    """
    expected = reference_stream.outcome(published.events.values(), cluster.streams)
    logged = _logged(cluster)
    return Verdict(
        lost=[
            *_lost_by_broker(cluster, published, dropped),
            *(published.events.keys() - logged),
        ],
        logged_twice=[place for place, times in logged.items() if times > 1]
        + list(logged.keys() - published.events.keys()),
        labels=_wrong_labels(cluster, expected),
        dead_letters=_wrong_dead_letters(cluster, published),
        **_wrong_rows(cluster, expected, published),
    )


def _wrong_rows(
    cluster: Cluster, expected: reference_stream.ExpectedState, published: Published
) -> dict[str, list[str]]:
    """Return whose rows in the store are not what they must be."""
    from srp4ctr.features.online.store import FeatureStoreSink

    store = FeatureStoreSink(cluster.features)
    numbers = range(cluster.kafka.partitions)
    keys = [(key, number) for key in expected.items for number in numbers]
    rows = store.read(list(expected.users), keys)
    unknown, nothing = UserState(), Activity()
    items = {
        key: total([rows.shares.get((key, number), nothing) for number in numbers])
        for key in expected.items
    }
    return {
        "sequences": [
            user
            for user, elements in expected.sequences.items()
            if rows.users.get(user, unknown).sequence.elements != elements
        ],
        "exposures": [
            user
            for user, shown in expected.exposures.items()
            if rows.users.get(user, unknown).exposures.elements != shown
        ],
        "user_counters": _wrong_counters(expected.users, rows.users),
        "item_counters": _wrong_counters(expected.items, items),
        "profiles": _wrong_profiles(cluster, published),
    }


def _wrong_counters(
    expected: Mapping[_Owner, reference_stream.Times], found: Mapping[_Owner, Activity]
) -> list[str]:
    """Return whose counters are wrong, what the slowest say, and what was to count."""
    wrong = []
    for owner, times in expected.items():
        activity = found.get(owner, Activity())
        if not reference_stream.is_activity(activity, times):
            counted = f"{activity.impressions[-1]:.3f} and {activity.clicks[-1]:.3f}"
            wanted = f"{len(times.impressions)} and {len(times.clicks)}"
            wrong.append(f"{owner}: {counted} for {wanted}")
    return wrong


def _wrong_profiles(cluster: Cluster, published: Published) -> list[str]:
    from srp4ctr.features.online.store import OnlineViews

    updates = {item_key(update.item_id): update for update in published.updates.values()}
    profiles = OnlineViews(cluster.features).read_profiles(updates)
    return [
        update.item_id
        for key, update in updates.items()
        if key not in profiles or profiles[key].attributes != update.attributes
    ]


def _lost_by_broker(
    cluster: Cluster, published: Published, dropped: Sequence[Any]
) -> list[Place]:
    """Return what the broker acknowledged and no longer has, although none dropped it."""
    kept = {
        (record.partition, record.offset): record.value
        for record in [*dropped, *read_topic(cluster.kafka, BEHAVIOR_EVENTS_TOPIC)]
    }
    values = published.values
    return [place for place, value in values.items() if kept.get(place, 0) != value]


def _wrong_labels(cluster: Cluster, expected: reference_stream.ExpectedState) -> list[str]:
    labels = [decode_label(each.value) for each in read_topic(cluster.kafka, LABELS_TOPIC)]
    return ["/".join(label) for label in reference_stream.wrong_labels(labels, expected)]


def _wrong_dead_letters(cluster: Cluster, published: Published) -> list[str]:
    """Compare reasons and bytes; one that is there twice was published before a crash."""
    found: dict[Place, str] = {}
    for record in read_topic(cluster.kafka, REJECTED_TOPIC):
        notes = {name: value.decode() for name, value in record.headers}
        place = (int(notes["source_partition"]), int(notes["source_offset"]))
        is_whole = (record.value or None) == published.values.get(place)
        found[place] = notes["reason"] if is_whole else "other bytes"
    places = found.keys() | published.poison.keys()
    return [
        f"{place}: {found.get(place)} for {published.poison.get(place)}"
        for place in places
        if found.get(place) != published.poison.get(place)
    ]


def _logged(cluster: Cluster) -> Counter[Place]:
    """Return how often each place is in the raw log."""
    rows = dataset(cluster.features.raw_log, BEHAVIOR_EVENTS_TOPIC)
    rows = rows.to_table(["partition", "offset"]).to_pylist()
    return Counter((row["partition"], row["offset"]) for row in rows)
