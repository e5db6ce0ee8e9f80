"""A user's attributes: the same in the stream, a rebuild, a check and training.

The latest by event time counts, whatever the order, the repetitions and the erasures. A
plain reading of the events says what is right.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from srp4ctr.features.consistency import replay
from srp4ctr.features.offline.event_tables import opened
from srp4ctr.features.offline.point_in_time import snapshot
from srp4ctr.features.offline.profiles import profiles_of, user_profiles
from srp4ctr.features.offline.visible_events import requests_of, shown_impressions
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import Forget, UserEvent, UserUpdate, json_text
from srp4ctr.testing.raw_logs import Published, label_of, write_log
from tests.builders import NOON_MS, a_behavior, a_forget, a_profile, an_impression
from tests.features.stored import rebuild, store_events
from tests.fuzzing import examples
from tests.streams.memory_sink import MemorySink

CONFIG = StreamConfig(sequence_length=5, exposure_length=5)
AFTER_MS = NOON_MS + 1_000  # all events of a life


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a user is, and since when."""

    attributes: str = ""
    at_ms: int = 0


def right(events: Sequence[UserEvent], user_id: str = "u1") -> Profile:
    """Return the latest attributes after all of ``events`` that no erasure covers."""
    own = [event for event in events if event.user_id == user_id]
    until = max((each.occurred_at for each in own if isinstance(each, Forget)), default=0)
    known = [
        (each.occurred_at, json_text(each.attributes))
        for each in own
        if isinstance(each, UserUpdate) and each.occurred_at > until
    ]
    at_ms, attributes = max(known, default=(0, ""))
    return Profile(attributes=attributes, at_ms=at_ms)


@st.composite
def lives(draw: st.DrawFn) -> list[UserEvent]:
    """Return updates, erasures and other events of two users, in any order, some twice."""
    users, times = st.sampled_from(("u1", "u2")), st.integers(NOON_MS, NOON_MS + 5)
    made: list[UserEvent] = []
    for number in range(draw(st.integers(1, 12))):
        user, at_ms = draw(users), draw(times)
        kind = draw(st.sampled_from(("is", "is", "did", "shown", "forget")))
        if kind == "is":
            age, towns = draw(st.sampled_from("123")), draw(st.lists(st.just("Ulm")))
            made.append(a_profile(user_id=user, at_ms=at_ms, age=age, towns=towns[:2]))
        elif kind == "forget":
            made.append(a_forget(user_id=user, at_ms=at_ms))
        elif kind == "did":
            made.append(a_behavior(user_id=user, at_ms=at_ms))
        else:
            request = f"r{number}"
            made.append(an_impression(user_id=user, at_ms=at_ms, request_id=request))
    again = draw(st.lists(st.integers(0, len(made) - 1), max_size=4))
    return draw(st.permutations([*made, *(made[number] for number in again)]))


def stored(sink: MemorySink, user_id: str = "u1") -> Profile:
    user = sink.rows.users.get(user_id)
    if user is None:
        return Profile()
    return Profile(attributes=user.attributes, at_ms=user.profile_at_ms)


def logged(events: Sequence[UserEvent]) -> list[LoggedEvent]:
    return [
        LoggedEvent(event=event, offset=offset, known_at_ms=event.occurred_at)
        for offset, event in enumerate(events)
    ]


def seen_by_request(folder: Path, events: Sequence[UserEvent], known_ms: int) -> str:
    """Return the attributes that a training example of u1 at ``AFTER_MS`` has."""
    shown = an_impression("seen", at_ms=AFTER_MS, request_id="last")
    published = [(event, known_ms) for event in events]
    log_dir = write_log(folder, [*published, (shown, AFTER_MS)])
    write_log(log_dir, [(label_of(shown), AFTER_MS)])
    with opened(log_dir) as log:
        requests = requests_of(shown_impressions(log))
        rows = log.rows(profiles_of(log, requests))["attributes"].to_pylist()
    return next(iter(rows), "")


@settings(max_examples=examples(20), deadline=None, phases=[Phase.generate])
@given(lives())
def test_stream_rebuild_check_and_training_agree_on_a_users_attributes(
    events: list[UserEvent],
) -> None:
    streamed, rebuilt = MemorySink(), MemorySink()
    store_events(streamed, events, length=5)
    rebuild(logged(events), rebuilt, CONFIG)
    for user_id in ("u1", "u2"):
        expected = right(events, user_id)
        own = [each for each in logged(events) if each.event.user_id == user_id]
        recomputed = replay.user_at(own, len(events), CONFIG)
        assert stored(streamed, user_id) == expected
        assert stored(rebuilt, user_id) == expected
        assert recomputed.attributes == expected.attributes
    with TemporaryDirectory() as folder:
        found = seen_by_request(Path(folder), events, known_ms=NOON_MS + 10)
    assert found == right(events).attributes


def test_a_request_sees_the_attributes_of_its_instant_that_were_known_then(
    tmp_path: Path,
) -> None:
    shown = [
        an_impression("i1", at_ms=NOON_MS + at, request_id=f"r{at}")
        for at in range(0, 9, 2)
    ]
    published: list[Published] = [
        (a_profile(age="1", at_ms=NOON_MS + 1), NOON_MS + 1),
        (a_profile(age="2", at_ms=NOON_MS + 2), NOON_MS + 5),  # known late
        (a_profile(age="0", at_ms=NOON_MS), NOON_MS + 7),  # later and older
        *((each, each.occurred_at) for each in shown),
        (a_profile(age="9", at_ms=NOON_MS + 90), NOON_MS + 90),
    ]
    write_log(tmp_path, published)
    write_log(tmp_path, [(label_of(each), AFTER_MS) for each in shown])
    with opened(tmp_path) as log:
        found = snapshot(log, 5, ttl_days=90.0).user_attributes.tolist()
        assert [json.loads(profile) for profile in user_profiles(log, NOON_MS + 90)] == [
            {"age": "2"}
        ]
    ages = [json.loads(each)["age"] if each else None for each in found]
    assert ages == [None, "1", "1", "2", "2"]


@pytest.mark.parametrize("since_ms", [0, NOON_MS + 5])
def test_a_rebuild_of_a_part_of_the_log_keeps_earlier_attributes(
    since_ms: int,
) -> None:
    events: list[UserEvent] = [a_profile(age="1"), a_behavior(at_ms=NOON_MS + 9)]
    sink = MemorySink()
    store_events(sink, events, length=5)
    past = [each for each in logged(events) if each.known_at_ms >= since_ms]
    rebuild(past, sink, CONFIG, since_ms=since_ms)
    assert stored(sink) == right(events)
    if since_ms == 0:  # the whole log: what it does not say was wrong
        rebuild(past[1:], sink, CONFIG)
        assert stored(sink) == Profile()


def test_an_empty_update_takes_all_attributes_away() -> None:
    gone = UserUpdate(event_id="e", user_id="u1", occurred_at=NOON_MS + 1, attributes={})
    sink = MemorySink()
    store_events(sink, [gone, a_profile(age="1")], length=5)
    assert stored(sink).attributes == "{}"
