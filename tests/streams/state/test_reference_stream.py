"""The stream's state against the reference implementation, whatever order events come in.

A worker is played in memory by the parts of the real one: it folds batches of any size,
stops between any two steps of storing, and may come back as a zombie.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent, Record, encode, event_key
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, Forget, UserEvent
from srp4ctr.streams.state.counters import total
from srp4ctr.streams.state.label_join import ImpressionLabel
from srp4ctr.streams.state.partition_state import PartitionState
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.user_state import UserState
from srp4ctr.testing.fault_injection import reference_stream
from tests.builders import NOON_MS, a_behavior, a_click, an_impression

WINDOW_MS = 60_000
CONFIG = StreamConfig(
    sequence_length=4, exposure_length=3, label_window_s=60, correction_window_s=3600
)
EVE_MS = NOON_MS - 86_400_000
LATER_MS = NOON_MS + 2_000_000  # all windows are closed, no impression has left
PARTITIONS = 2


class VersionedSink:
    """Keeps rows as Feast does: what is not newer than the stored row changes nothing."""

    def __init__(self) -> None:
        self.rows = Rows()

    def read(self, users: set[str], shares: set[tuple[int, int]]) -> Rows:
        kept = self.rows
        return Rows(
            users={k: v for k, v in kept.users.items() if k in users},
            shares={k: v for k, v in kept.shares.items() if k in shares},
        )

    def write_users(self, rows: Rows) -> None:
        for key, row in rows.users.items():
            before = self.rows.users.get(key)
            if before is None or before.version_us < row.version_us:
                self.rows.users[key] = row

    def write_shares(self, rows: Rows) -> None:
        for key, row in rows.shares.items():
            before = self.rows.shares.get(key)
            if before is None or before.version_us < row.version_us:
                self.rows.shares[key] = row


UNHURRIED = settings(deadline=None)  # other work may share the machine
STEPS = 4  # of storing: two views, the labels, the commit


@dataclass(slots=True)
class Partition:
    """A partition of the topic and the worker that has it."""

    number: int
    sink: VersionedSink
    labels: list[ImpressionLabel]
    records: list[Record] = field(default_factory=list)
    committed: int = 0

    def begin(self) -> PartitionState:
        """Return what a worker holds that starts from the commit."""
        state = PartitionState(self.number, 0, CONFIG)
        events, _ = state.decode(self.records[: self.committed])
        fresh = PartitionState(self.number, self.committed, CONFIG)
        fresh.replay(events, LATER_MS)
        return fresh

    def take(self, state: PartitionState, number: int) -> None:
        """Fold the next ``number`` records."""
        start = state.next_offset
        events, command = state.decode(self.records[start : start + number])
        assert command is None
        assert state.rejected == []
        users, shares = state.missing_rows(events)
        state.cache_rows(users, shares, self.sink.read(users, shares))
        state.fold(events, LATER_MS)

    def store(self, state: PartitionState, begin: int = 0, end: int = STEPS) -> None:
        """Do the steps of storing from ``begin`` to ``end``; after the last all is well."""
        steps: tuple[Callable[[], None], ...] = (
            lambda: self.sink.write_shares(state.dirty),
            lambda: self.sink.write_users(state.dirty),
            lambda: self.labels.extend(state.decided),
            lambda: self._commit(state),
        )
        for step in steps[begin:end]:
            step()

    def _commit(self, state: PartitionState) -> None:
        self.committed = state.next_offset
        state.take_pending()

    def finish(self, state: PartitionState) -> None:
        """Take and store what is left, and let all windows close."""
        self.take(state, len(self.records))
        state.decided += state.labels.advance(LATER_MS)
        self.store(state)


UserAction = tuple[str, int, int, int, int, float | None]
KINDS = ["impression", "impression", "click", "click", "behavior"]


def topics(kinds: list[str]) -> st.SearchStrategy[list[UserAction]]:
    """Draw what some users do, half of it twice, in any order."""
    action = st.tuples(
        st.sampled_from(kinds),
        st.integers(0, 2),  # user
        st.integers(0, 1),  # request
        st.integers(0, 2),  # item
        st.sampled_from([0, 1, 2, 30, 59, 60, 61, 90, 150]),  # seconds after noon: ties
        st.sampled_from([None, 1.0, 2.0]),
    )
    return st.lists(action, max_size=14).flatmap(
        lambda actions: st.permutations(actions + actions[: len(actions) // 2])
    )


# Events taken, and how many steps of storing are done before the worker crashes.
fates = st.lists(st.tuples(st.integers(1, 6), st.integers(-1, STEPS)), max_size=10)


def events_of(actions: Sequence[UserAction]) -> list[UserEvent]:
    """Return ``actions`` as events; a user is forgotten as of the last that we know."""
    events: list[UserEvent] = []
    forgets: dict[UserAction, Forget] = {}
    for action in actions:
        kind, number, request, item, seconds, value = action
        user, at_ms = f"u{number}", NOON_MS + 1000 * seconds
        if kind == "forget":
            known = [each.occurred_at for each in events if each.user_id == user]
            forget = Forget(
                event_id="f", user_id=user, occurred_at=max(known, default=EVE_MS)
            )
            events.append(forgets.setdefault(action, forget))
        elif kind == "behavior":
            event = a_behavior(f"i{item}", at_ms=at_ms, user_id=user, value=value)
            events.append(event)
        else:
            made = a_click if kind == "click" else an_impression
            fields = {"user_id": user, "request_id": f"r{request}"}
            events.append(made(f"i{item}", at_ms=at_ms, **fields))
    return events


def partitions_of(events: Sequence[UserEvent], pace_ms: int) -> list[Partition]:
    """Return a topic with ``events``; its clock advances by ``pace_ms`` per event."""
    sink, labels = VersionedSink(), list[ImpressionLabel]()
    topic = [Partition(number, sink, labels) for number in range(PARTITIONS)]
    for number, event in enumerate(events):
        partition = topic[int(event.user_id[1:]) % PARTITIONS]
        partition.records.append(
            Record(
                topic=BEHAVIOR_EVENTS_TOPIC,
                value=encode(event),
                key=event_key(event),
                offset=len(partition.records),
                timestamp=NOON_MS + pace_ms * number,
                partition=partition.number,
            )
        )
    return topic


def expected_of(topic: Sequence[Partition]) -> reference_stream.ExpectedState:
    logged: list[LoggedEvent] = []
    for partition in topic:
        state = PartitionState(partition.number, 0, CONFIG)
        logged += state.decode(partition.records)[0]
    return reference_stream.outcome(logged, CONFIG)


def check(topic: Sequence[Partition]) -> None:
    """Compare what is stored and published with the reference implementation."""
    expected, rows = expected_of(topic), topic[0].sink.rows
    nobody = UserState()
    for user, elements in expected.sequences.items():
        assert rows.users.get(user, nobody).sequence.elements == elements
    for user, shown in expected.exposures.items():
        assert rows.users.get(user, nobody).exposures.elements == shown
    for user, times in expected.users.items():
        assert reference_stream.is_activity(rows.users.get(user, nobody), times)
    for key, times in expected.items.items():
        shares = [share for (item, _), share in rows.shares.items() if item == key]
        assert reference_stream.is_activity(total(shares), times)
    assert reference_stream.wrong_labels(topic[0].labels, expected) == set()


@UNHURRIED
@given(topics(KINDS), st.integers(1, 5), st.sampled_from([0, 1, 5_000]))
def test_any_order_of_duplicates_in_any_batches_comes_to_the_same(
    actions: list[UserAction], batch: int, pace_ms: int
) -> None:
    topic = partitions_of(events_of(actions), pace_ms)
    for partition in topic:
        state = partition.begin()
        while state.next_offset < len(partition.records):
            partition.take(state, batch)
            partition.store(state)
        partition.finish(state)
    check(topic)


@UNHURRIED
@given(topics(KINDS), fates, st.sampled_from([0, 1, 5_000]))
def test_a_worker_that_crashes_between_any_two_steps_leaves_the_same(
    actions: list[UserAction], lives: list[tuple[int, int]], pace_ms: int
) -> None:
    topic = partitions_of(events_of(actions), pace_ms)
    for partition in topic:
        state = partition.begin()
        for number, steps in lives:
            partition.take(state, number)
            if steps < 0:  # continues without storing
                continue
            partition.store(state, end=steps)
            if steps < STEPS:
                state = partition.begin()
        partition.finish(state)
    check(topic)


@UNHURRIED
@given(topics([*KINDS, "forget"]), fates)
def test_a_forgotten_user_stays_forgotten(
    actions: list[UserAction], lives: list[tuple[int, int]]
) -> None:
    topic = partitions_of(events_of(actions), 1)
    for partition in topic:
        state = partition.begin()
        for number, steps in lives:
            partition.take(state, number)
            partition.store(state, end=max(steps, 0))
            if 0 <= steps < STEPS:
                state = partition.begin()
        partition.finish(state)
    check(topic)


@UNHURRIED
@given(topics(KINDS), fates, st.integers(0, STEPS - 1), st.integers(0, 4))
def test_a_zombie_that_ends_its_storing_late_changes_nothing(
    actions: list[UserAction], lives: list[tuple[int, int]], done: int, meanwhile: int
) -> None:
    """Another worker has the partition, and has stored some batches, when it wakes up."""
    topic = partitions_of(events_of(actions), 1)
    for partition in topic:
        state = partition.begin()
        for number, _ in lives:
            partition.take(state, number)
            partition.store(state, end=done)
            zombie, state = state, partition.begin()
            for _ in range(meanwhile):
                partition.take(state, 1)
                partition.store(state)
            partition.store(zombie, begin=done, end=STEPS - 1)  # its commit is refused
        partition.finish(state)
    check(topic)
