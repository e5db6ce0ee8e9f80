"""The sweep is held to the stream's own functions, event by event."""

from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import point_in_time
from features.event_log import read_events
from features.point_in_time import RequestSnapshots, UserHistories
from features.transforms import ActivityArrays
from streams.activity import Activity, count
from streams.events import Behavior, Click, Impression, UserEvent, action_code, item_key
from streams.sequences import BehaviorSequence, SequenceElement, element_of, merge
from tests.builders import NOON_MS, a_behavior, a_click, an_impression
from tests.features.logs import Published, write_log

LENGTH = 4
COUNTED = (Impression, Click)


def snapshots(folder: Path, *published: Published) -> RequestSnapshots:
    events = read_events(write_log(folder, published))
    return point_in_time.snapshot(events, LENGTH)


def at_once(event: UserEvent) -> tuple[UserEvent, int]:
    return event, event.occurred_at


def sequence_of(snapshot: RequestSnapshots, row: int) -> list[SequenceElement]:
    arrays = snapshot.sequences
    columns = (arrays.occurred_at_ms, arrays.item_keys, arrays.action_codes, arrays.values)
    return [
        SequenceElement(
            occurred_at=at, item_key=key, action=action, value=None if np.isnan(v) else v
        )
        for at, key, action, v in zip(*(c[row].tolist() for c in columns), strict=True)
        if key
    ]


def test_a_request_sees_what_was_known_before_it(tmp_path: Path) -> None:
    seen = a_behavior("i1", at_ms=NOON_MS - 1)
    found = snapshots(tmp_path, at_once(seen), at_once(an_impression("i2")))
    assert sequence_of(found, 0) == [element_of(seen)]
    assert found.times_ms.tolist() == [NOON_MS]
    assert found.request_ids.tolist() == ["r1"]
    assert found.user_ids.tolist() == ["u1"]


def test_a_request_never_sees_itself_nor_its_instant_nor_its_future(
    tmp_path: Path,
) -> None:
    """The leak that would make offline quality a lie."""
    found = snapshots(
        tmp_path,
        at_once(a_behavior("i1", at_ms=NOON_MS)),
        at_once(an_impression("i1", at_ms=NOON_MS, position=0)),
        at_once(an_impression("i2", at_ms=NOON_MS + 3, position=1)),
        at_once(a_click("i1", at_ms=NOON_MS + 1)),  # before its slate-mate was shown
    )
    assert sequence_of(found, 0) == []
    assert not found.user_activity.impressions.any()
    assert not found.user_activity.clicks.any()
    assert not found.candidate_activity.impressions.any()
    assert not found.candidate_activity.clicks.any()
    assert not found.candidate_activity.first_seen_ms.any()


def test_an_event_that_came_late_is_unknown_until_it_came(tmp_path: Path) -> None:
    late = a_behavior("i1", at_ms=NOON_MS - 10_000)
    found = snapshots(
        tmp_path,
        at_once(an_impression("i2", at_ms=NOON_MS, request_id="before")),
        at_once(an_impression("i2", at_ms=NOON_MS + 10, request_id="after")),
        (late, NOON_MS + 5),
    )
    assert found.request_ids.tolist() == ["before", "after"]
    assert [len(sequence_of(found, row)) for row in (0, 1)] == [0, 1]


def test_candidates_lie_together_by_position_and_once(tmp_path: Path) -> None:
    found = snapshots(
        tmp_path,
        at_once(an_impression("b", position=1, request_id="r2", at_ms=NOON_MS + 9)),
        at_once(an_impression("c", position=2)),
        at_once(an_impression("a", position=0)),
        at_once(an_impression("a", position=0, at_ms=NOON_MS + 1)),  # published again
    )
    assert found.candidate_item_ids.tolist() == ["a", "c", "b"]
    assert found.candidate_requests.tolist() == [0, 0, 1]
    assert found.candidate_positions.tolist() == [0, 2, 1]
    assert found.candidate_item_keys.tolist() == [item_key(i) for i in "acb"]


def test_one_request_id_of_two_users_is_two_requests(tmp_path: Path) -> None:
    found = snapshots(
        tmp_path,
        at_once(an_impression("a", user_id="u1")),
        at_once(an_impression("b", user_id="u2")),
    )
    assert found.user_ids.tolist() == ["u1", "u2"]


def test_the_context_is_the_requests(tmp_path: Path) -> None:
    found = snapshots(
        tmp_path,
        at_once(an_impression("a", context={"page": "home"})),
        at_once(an_impression("b", request_id="r2", at_ms=NOON_MS + 1)),
    )
    assert found.contexts.tolist() == ['{"page":"home"}', None]


def test_an_empty_log_has_no_requests(tmp_path: Path) -> None:
    found = point_in_time.snapshot(read_events(tmp_path), LENGTH)
    assert found.sequences.item_keys.shape == (0, LENGTH)
    assert found.candidate_activity.impressions.shape == (0, 3)


def _event(
    draw: tuple[str, str, str, int, int, int, float | None], index: int
) -> tuple[UserEvent, int]:
    kind, user, item, at_s, lateness_s, request, value = draw
    at_ms = NOON_MS + at_s * 1000
    fields = {"user_id": user, "event_id": str(index)}
    if kind == "behavior":
        event: UserEvent = a_behavior(item, at_ms=at_ms, value=value, **fields)
    else:
        make = an_impression if kind == "impression" else a_click
        event = make(item, at_ms=at_ms, request_id=f"r{request}", **fields)
    return event, at_ms + lateness_s * 1000


_LOGS = st.lists(
    st.tuples(
        st.sampled_from(["impression", "click", "behavior"]),
        st.sampled_from(["u1", "u2"]),
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 20),  # seconds: ties and reordering abound
        st.sampled_from([0, 0, 1, 7]),
        st.integers(0, 5),
        st.sampled_from([None, 1.0, 2.0]),
    ),
    min_size=1,
    max_size=40,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(_LOGS)
def test_the_sweep_equals_the_streams_own_functions(
    tmp_path_factory: object, drawn: list[tuple[str, str, str, int, int, int, float | None]]
) -> None:
    published = [_event(each, index) for index, each in enumerate(drawn)]
    folder: Path = tmp_path_factory.mktemp("log")  # type: ignore[attr-defined]
    found = snapshots(folder, *published)
    for row, (user, at_ms) in enumerate(
        zip(found.user_ids, found.times_ms.tolist(), strict=True)
    ):
        visible = [e for e, known in published if max(e.occurred_at, known) < at_ms]
        own = [e for e in visible if e.user_id == user]
        acted = [element_of(e) for e in own if isinstance(e, Click | Behavior)]
        merged = merge(BehaviorSequence(), acted, LENGTH).elements if acted else ()
        assert sequence_of(found, row) == list(merged)
        _same_activity(found.user_activity, row, own)
    for row, (item, request) in enumerate(
        zip(found.candidate_item_ids, found.candidate_requests.tolist(), strict=True)
    ):
        at_ms = int(found.times_ms[request])
        visible = [e for e, known in published if max(e.occurred_at, known) < at_ms]
        _same_activity(
            found.candidate_activity, row, [e for e in visible if e.item_id == item]
        )


def _same_activity(found: ActivityArrays, row: int, events: list[UserEvent]) -> None:
    expected = Activity()
    for offset, event in enumerate(e for e in events if isinstance(e, COUNTED)):
        is_click = isinstance(event, Click)
        expected = count(
            expected, at_ms=event.occurred_at, is_click=is_click, offset=offset
        )
    np.testing.assert_allclose(found.impressions[row], expected.impressions, rtol=1e-9)
    np.testing.assert_allclose(found.clicks[row], expected.clicks, rtol=1e-9)
    assert found.counted_at_ms[row] == expected.counted_at_ms
    assert found.first_seen_ms[row] == expected.first_seen_ms


def the_history(folder: Path, before_ms: int, *events: UserEvent) -> UserHistories:
    published = [at_once(event) for event in events]
    return point_in_time.histories(read_events(write_log(folder, published)), before_ms)


def test_histories_are_distinct_in_order_and_end_before_the_boundary(
    tmp_path: Path,
) -> None:
    found = the_history(
        tmp_path,
        NOON_MS + 100,
        a_behavior("b", at_ms=NOON_MS + 5, value=1.0),
        a_behavior("a", at_ms=NOON_MS + 1),
        a_behavior("b", at_ms=NOON_MS + 5, value=3.0),
        a_behavior("b", at_ms=NOON_MS + 5),
        a_click("c", at_ms=NOON_MS + 2, user_id="u0"),
        a_behavior("z", at_ms=NOON_MS + 100),
        an_impression("z", at_ms=NOON_MS),
    )
    assert dict(zip(found.user_ids, np.diff(found.starts).tolist(), strict=True)) == {
        "u1": 2,
        "u0": 1,
    }
    first = found.user_ids.tolist().index("u1")
    own = slice(found.starts[first], found.starts[first + 1])
    assert found.behaviors.item_keys[own].tolist() == [item_key("a"), item_key("b")]
    assert found.behaviors.values[own].tolist()[1] == 3.0
    assert action_code("click") in found.behaviors.action_codes.tolist()


def test_no_events_are_no_histories(tmp_path: Path) -> None:
    found = point_in_time.histories(read_events(tmp_path), NOON_MS)
    assert found.starts.tolist() == [0]
