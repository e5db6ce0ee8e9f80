from pathlib import Path
from typing import Any

from srp4ctr.features.offline import point_in_time
from srp4ctr.features.offline.event_tables import opened
from srp4ctr.features.offline.point_in_time import RequestSnapshots, UserHistories
from srp4ctr.streams.events.schema import (
    SYNTHETIC_USERS,
    Impression,
    UserEvent,
    action_code,
    item_key,
)
from srp4ctr.streams.state.label_join import CLICKED
from srp4ctr.streams.state.sequences import element_of
from srp4ctr.testing.raw_logs import Published, label_of, write_log
from tests.builders import NOON_MS, a_behavior, a_click, a_forget, an_impression
from tests.features.reference_features import sequence_of

LENGTH = 4
DAY_MS = 86_400_000
TTL_DAYS = 90.0


def at_once(event: UserEvent) -> Published:
    return event, event.occurred_at


def cut(folder: Path, *published: Published) -> RequestSnapshots:
    """Return the snapshots of ``published``, with a matured label of every impression."""
    shown = [event for event, _ in published if isinstance(event, Impression)]
    labels = [(label_of(each), each.occurred_at) for each in shown]
    with opened(write_log(folder, [*published, *labels])) as log:
        return point_in_time.snapshot(log, LENGTH, TTL_DAYS)


def test_a_request_sees_what_was_known_before_it(tmp_path: Path) -> None:
    seen = a_behavior("i1", at_ms=NOON_MS - 1)
    found = cut(tmp_path, at_once(seen), at_once(an_impression("i2")))
    assert sequence_of(found, 0) == [element_of(seen)]
    assert found.times_ms.tolist() == [NOON_MS]
    assert found.user_ids.tolist() == ["u1"]


def test_a_request_never_sees_itself_nor_its_instant_nor_its_future(
    tmp_path: Path,
) -> None:
    """The leak that would make offline quality a lie."""
    found = cut(
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
    found = cut(
        tmp_path,
        at_once(an_impression("i2", at_ms=NOON_MS, request_id="before")),
        at_once(an_impression("i2", at_ms=NOON_MS + 10, request_id="after")),
        (late, NOON_MS + 5),
    )
    assert found.times_ms.tolist() == [NOON_MS, NOON_MS + 10]
    assert [len(sequence_of(found, row)) for row in (0, 1)] == [0, 1]


def test_a_value_that_came_late_is_unknown_until_it_came(tmp_path: Path) -> None:
    found = cut(
        tmp_path,
        (a_behavior("i1", at_ms=NOON_MS - 9, value=1.0), NOON_MS - 9),
        (a_behavior("i1", at_ms=NOON_MS - 9, value=3.0), NOON_MS + 5),
        at_once(an_impression("i2", request_id="before")),
        at_once(an_impression("i2", request_id="after", at_ms=NOON_MS + 10)),
    )
    assert [sequence_of(found, row)[0].value for row in (0, 1)] == [1.0, 3.0]


def test_a_behaviour_expires(tmp_path: Path) -> None:
    old = NOON_MS - 90 * DAY_MS
    found = cut(
        tmp_path,
        at_once(a_behavior("gone", at_ms=old)),
        at_once(a_behavior("kept", at_ms=old + 1)),
        at_once(an_impression("i2")),
    )
    assert [each.item_key for each in sequence_of(found, 0)] == [item_key("kept")]


def test_candidates_lie_together_by_position_and_once(tmp_path: Path) -> None:
    found = cut(
        tmp_path,
        at_once(an_impression("b", position=1, request_id="r2", at_ms=NOON_MS + 9)),
        at_once(an_impression("c", position=2)),
        at_once(an_impression("a", position=0)),
        at_once(an_impression("a", position=0, at_ms=NOON_MS + 1)),  # published again
    )
    assert found.candidate_item_keys.tolist() == [item_key(i) for i in "acb"]
    assert found.candidate_requests.tolist() == [0, 0, 1]
    assert found.candidate_positions.tolist() == [0, 2, 1]


def test_candidates_are_what_has_a_matured_label(tmp_path: Path) -> None:
    shown = [an_impression(item, position=n) for n, item in enumerate("abc")]
    waiting = an_impression("d", request_id="r2", at_ms=NOON_MS + 1)
    labels = [label_of(shown[0]), label_of(shown[2], clicked=True, revision=CLICKED)]
    other = label_of(an_impression("b", user_id="u2"))  # the same request_id, another user
    events = [at_once(each) for each in (*shown, waiting)]
    folder = write_log(tmp_path, [*events, *((each, NOON_MS) for each in (*labels, other))])
    with opened(folder) as log:
        found = point_in_time.snapshot(log, LENGTH, TTL_DAYS)
    assert found.times_ms.tolist() == [NOON_MS]
    assert found.candidate_item_keys.tolist() == [item_key(i) for i in "ac"]
    assert found.candidate_clicked.tolist() == [False, True]


def test_one_request_id_of_two_users_is_two_requests(tmp_path: Path) -> None:
    found = cut(
        tmp_path,
        at_once(an_impression("a", user_id="u1")),
        at_once(an_impression("b", user_id="u2")),
    )
    assert found.user_ids.tolist() == ["u1", "u2"]


def test_the_context_is_of_the_first_impression(tmp_path: Path) -> None:
    later: dict[str, Any] = {"request_id": "r2", "at_ms": NOON_MS + 1}
    found = cut(
        tmp_path,
        at_once(an_impression("b", position=1, context={"page": "second"})),
        at_once(an_impression("a", context={"page": "home"})),
        at_once(an_impression("b", **later)),
        at_once(an_impression("c", **later, position=1, context={"page": "second"})),
    )
    assert found.contexts.tolist() == ['{"page":"home"}', None]


def test_an_empty_log_has_no_requests(tmp_path: Path) -> None:
    found = cut(tmp_path)
    assert found.sequences.item_keys.shape == (0, LENGTH)
    assert found.candidate_activity.impressions.shape == (0, 4)
    assert found.candidate_clicked.dtype == bool


def the_history(folder: Path, before_ms: int, *published: Published) -> UserHistories:
    with opened(write_log(folder, published)) as log:
        return point_in_time.histories(log, before_ms)


def test_histories_are_distinct_in_order_and_end_before_the_boundary(
    tmp_path: Path,
) -> None:
    events: list[UserEvent] = [
        a_behavior("b", at_ms=NOON_MS + 5, value=1.0),
        a_behavior("a", at_ms=NOON_MS + 1),
        a_behavior("b", at_ms=NOON_MS + 5, value=3.0),
        a_behavior("b", at_ms=NOON_MS + 5),
        a_click("c", at_ms=NOON_MS + 2, user_id="u0"),
        a_behavior("z", at_ms=NOON_MS + 100),
        an_impression("z", at_ms=NOON_MS),
        a_behavior("z", at_ms=NOON_MS, user_id="u9"),
        a_forget(at_ms=NOON_MS + 200, user_id="u9"),
        a_behavior("z", at_ms=NOON_MS, user_id=f"{SYNTHETIC_USERS}3"),
    ]
    found = the_history(tmp_path, NOON_MS + 100, *map(at_once, events))
    assert found.user_ids.tolist() == ["u0", "u1"]
    assert found.starts.tolist() == [0, 1, 3]
    assert found.behaviors.item_keys.tolist() == [item_key(i) for i in "cab"]
    assert found.behaviors.values.tolist()[2] == 3.0
    assert found.behaviors.action_codes.tolist()[0] == action_code("click")


def test_no_events_are_no_histories(tmp_path: Path) -> None:
    found = the_history(tmp_path, NOON_MS)
    assert found.starts.tolist() == [0]
    assert found.behaviors.item_keys.shape == (0,)


def test_item_counts_have_each_event_once(tmp_path: Path) -> None:
    shown = [an_impression("a", user_id=user, request_id="r") for user in ("u", "v")]
    rated = [a_behavior("a", action="rate", at_ms=NOON_MS + n, user_id="u") for n in (0, 1)]
    clicked, viewed = (
        a_click("a", user_id="u", request_id="r"),
        a_behavior("a", user_id="u"),
    )
    events: list[UserEvent] = [*shown, clicked, *rated, viewed]
    again: list[Published] = [(event, NOON_MS + 9) for event in events]
    with opened(write_log(tmp_path, [*map(at_once, events), *again])) as log:
        assert point_in_time.item_counts(log, NOON_MS + 9_999) == {item_key("a"): 6}
        assert point_in_time.item_counts(log, NOON_MS + 1) == {item_key("a"): 4}


def test_item_counts_are_of_the_past_alone(tmp_path: Path) -> None:
    events = [at_once(an_impression("a")), at_once(an_impression("b", at_ms=NOON_MS + 9))]
    with opened(write_log(tmp_path, events)) as log:
        assert point_in_time.item_counts(log, NOON_MS + 9) == {item_key("a"): 1}


def test_frequent_actions_have_columns_of_their_own(tmp_path: Path) -> None:
    did = [("view", 90), ("cart", 60), ("share", 3)]
    events = [
        a_behavior(f"i{number}", action=action, at_ms=NOON_MS + number)
        for action, count in did
        for number in range(count)
    ]
    later = [a_behavior(f"i{n}", action="buy", at_ms=NOON_MS + 500 + n) for n in range(99)]
    twice = [a_behavior(f"i{n % 3}", action="like", at_ms=NOON_MS) for n in range(90)]
    published = [*map(at_once, events), *map(at_once, later), *map(at_once, twice)]
    with opened(write_log(tmp_path, published)) as log:
        found = point_in_time.frequent_actions(log, NOON_MS + 500)
    assert found == (("view", action_code("view")), ("cart", action_code("cart")))


def test_an_assigned_code_has_columns_apart_from_the_action_that_shares_its_hash(
    tmp_path: Path,
) -> None:
    events = [
        a_behavior(f"i{number}", action=action, at_ms=NOON_MS + number)
        for action in ("wink", "zap2")
        for number in range(60)
    ]
    folder = write_log(tmp_path, list(map(at_once, events)))
    with opened(folder) as log:
        assert point_in_time.frequent_actions(log, NOON_MS + 500) == ()
    with opened(folder, codes={"wink": 32}) as log:
        actions = point_in_time.frequent_actions(log, NOON_MS + 500)
    assert actions == (("zap2", 29), ("wink", 32))


def test_one_action_has_no_columns_besides_those_of_all(tmp_path: Path) -> None:
    events = [a_click(f"i{number}", at_ms=NOON_MS + number) for number in range(90)]
    with opened(write_log(tmp_path, list(map(at_once, events)))) as log:
        assert point_in_time.frequent_actions(log, NOON_MS + 500) == ()
