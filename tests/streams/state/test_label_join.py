import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srp4ctr.streams.events.schema import Click, Impression, UserEvent
from srp4ctr.streams.state.label_join import (
    ImpressionLabel,
    LabelJoin,
    decode_label,
    encode_label,
)
from tests.builders import NOON_MS, a_behavior, a_click, a_forget, an_impression

WINDOW_MS = 60_000
CORRECTION_MS = 600_000
END_MS = NOON_MS + WINDOW_MS


def a_join(max_kept: int = 1000) -> LabelJoin:
    return LabelJoin(WINDOW_MS, CORRECTION_MS, max_kept)


def add(join: LabelJoin, *events: UserEvent) -> list[ImpressionLabel]:
    return [label for event in events for label in join.add(event, event.occurred_at)]


def pass_time(join: LabelJoin, to_ms: int) -> list[ImpressionLabel]:
    join.add(a_behavior(at_ms=to_ms), to_ms)
    return join.advance()


def show(join: LabelJoin, *seconds: int) -> None:
    """Show an item at each of ``seconds`` after noon, in a request of that number."""
    for second in seconds:
        add(join, an_impression(at_ms=NOON_MS + second * 1000, request_id=f"r{second}"))


def is_kept(join: LabelJoin, second: int) -> bool:
    return ("u1", f"r{second}", "i1") in join._kept


def final(labels: list[ImpressionLabel]) -> dict[tuple[str, str], ImpressionLabel]:
    """Return what a consumer holds: the newest revision of each impression."""
    kept: dict[tuple[str, str], ImpressionLabel] = {}
    for label in labels:
        key = (label.request_id, label.item_id)
        if key not in kept or kept[key].revision < label.revision:
            kept[key] = label
    return kept


def test_labels_have_the_arm_of_their_impression() -> None:
    join = a_join()
    of_arm = an_impression("i1", model_version="v1", experiment="v2-v1", arm="v2")
    join.add(of_arm, NOON_MS)
    join.add(an_impression("i2", model_version="v1"), NOON_MS)
    labels = [*join.add(a_click("i1", at_ms=NOON_MS + 1), NOON_MS), *join.advance(END_MS)]
    found = {label.item_id: decode_label(encode_label(label)) for label in labels}
    assert (found["i1"].experiment, found["i1"].arm) == ("v2-v1", "v2")
    assert (found["i2"].experiment, found["i2"].arm) == (None, None)
    assert b"arm" not in encode_label(found["i2"])


def test_a_click_in_time_is_labelled_at_once() -> None:
    join = a_join()
    shown = an_impression(position=3, score=0.25, model_version="v1")
    (label,) = add(join, shown, a_click())
    assert (label.clicked, label.within_window) == (True, True)
    assert label.matured_at == NOON_MS + 5_000
    assert (label.position, label.score, label.model_version) == (3, 0.25, "v1")
    assert pass_time(join, END_MS) == []


def test_an_impression_without_a_click_is_labelled_when_its_window_closes() -> None:
    join = a_join()
    add(join, an_impression())
    assert pass_time(join, END_MS - 1) == []
    (label,) = pass_time(join, END_MS)
    assert (label.clicked, label.matured_at) == (False, END_MS)
    assert pass_time(join, END_MS + 1) == []


def test_a_click_after_the_window_corrects_the_label() -> None:
    join = a_join()
    add(join, an_impression())
    (label,) = pass_time(join, END_MS)
    (correction,) = add(join, a_click(at_ms=END_MS + 1))
    assert (correction.clicked, correction.within_window) == (True, False)
    assert correction.revision > label.revision


def test_a_click_in_time_that_arrives_late_corrects_the_label() -> None:
    join = a_join()
    add(join, an_impression())
    (label,) = pass_time(join, END_MS)
    (correction,) = add(join, a_click(at_ms=END_MS))
    assert (correction.clicked, correction.within_window) == (True, True)
    assert correction.revision > label.revision


def test_a_click_in_time_outranks_a_late_one() -> None:
    join = a_join()
    add(join, an_impression())
    pass_time(join, END_MS)
    (late,) = add(join, a_click(at_ms=END_MS + 1))
    (in_time,) = add(join, a_click())
    assert in_time.revision > late.revision
    assert add(join, a_click(at_ms=END_MS + 2)) == []


def test_a_late_click_is_published_after_the_window() -> None:
    join = a_join()
    add(join, an_impression())
    # The record's clock has not reached the window's end, though the click's has.
    assert join.add(a_click(at_ms=END_MS + 5), NOON_MS) == []
    labels = pass_time(join, END_MS + 5)
    assert [(label.clicked, label.within_window) for label in labels] == [
        (False, True),
        (True, False),
    ]


def test_a_click_before_its_impression_still_matches() -> None:
    join = a_join()
    assert add(join, a_click()) == []
    (label,) = add(join, an_impression())
    assert label.clicked


def test_duplicates_change_nothing() -> None:
    join = a_join()
    labels = add(join, an_impression(), an_impression(), a_click(), a_click())
    assert len(labels) == 1


@pytest.mark.parametrize("field", ["user_id", "request_id", "item_id"])
def test_a_click_of_another_user_request_or_item_does_not_match(field: str) -> None:
    join = a_join()
    add(join, an_impression())
    fields = {"item_id": "i1"} | {field: "another"}
    assert add(join, a_click(**fields)) == []  # type: ignore[arg-type]


def test_a_wrong_clock_moves_nothing_alone() -> None:
    join = a_join()
    add(join, an_impression())
    join.add(a_behavior(at_ms=NOON_MS * 2), NOON_MS)  # an event from the far future
    assert join.advance() == []
    join.add(a_behavior(at_ms=NOON_MS), NOON_MS * 2)
    assert join.advance() != []  # both together are a new time


def test_a_quiet_partition_matures_by_the_wall_clock() -> None:
    join = a_join()
    add(join, an_impression())
    assert len(join.advance(idle_until_ms=END_MS)) == 1


def test_an_impression_that_arrives_very_late_is_labelled_and_can_be_corrected() -> None:
    join = a_join()
    pass_time(join, NOON_MS + 100 * CORRECTION_MS)
    add(join, an_impression())
    (label,) = join.advance()
    assert not label.clicked
    (correction,) = add(join, a_click())
    assert (correction.clicked, correction.within_window) == (True, True)


def test_memory_is_bounded_by_the_two_windows() -> None:
    join = a_join()
    for minute in range(1000):
        at_ms = NOON_MS + minute * 60_000
        add(join, an_impression(at_ms=at_ms, request_id=f"r{minute}"))
        add(join, a_click("never-shown", at_ms=at_ms, request_id=f"r{minute}"))
        join.advance()
    kept_minutes = (WINDOW_MS + CORRECTION_MS) // 60_000
    assert join.waiting <= 2 * (kept_minutes + 1)
    assert join.unmatched_clicks >= 1000 - kept_minutes - 1


@pytest.mark.parametrize("idle_until_ms", [0, END_MS + 10 * CORRECTION_MS])
def test_beyond_the_limit_the_oldest_with_a_closed_window_are_evicted(
    idle_until_ms: int,
) -> None:
    join = a_join(max_kept=3)
    join.advance(idle_until_ms)
    show(join, 11, 9, 10, 12, 8)
    assert [label.clicked for label in pass_time(join, END_MS + 12_000)] == [False] * 5
    assert [second for second in range(13) if is_kept(join, second)] == [10, 11, 12]
    assert (join.waiting, join.dropped_early) == (3, 2)
    (late,) = add(join, a_click(at_ms=END_MS + 13_000, request_id="r10"))
    assert not late.within_window


def test_an_impression_with_an_open_window_is_never_evicted() -> None:
    join = a_join(max_kept=3)
    show(join, *range(10))
    pass_time(join, END_MS + 4_000)  # half of them have matured
    assert [second for second in range(10) if is_kept(join, second)] == [5, 6, 7, 8, 9]
    assert (join.waiting, join.dropped_early) == (5, 5)
    labels = pass_time(join, END_MS + 9_000)
    assert len(labels) == 5
    assert join.waiting == 3


def test_an_impression_that_leaves_in_its_time_is_not_evicted_early() -> None:
    join = a_join()
    show(join, 0)
    pass_time(join, END_MS)
    assert is_kept(join, 0)
    pass_time(join, END_MS + CORRECTION_MS)
    assert not is_kept(join, 0)
    assert (join.waiting, join.dropped_early) == (0, 0)


def test_a_click_without_an_impression_is_counted_when_it_is_given_up() -> None:
    join = a_join()
    add(join, a_click(at_ms=NOON_MS))
    pass_time(join, NOON_MS + WINDOW_MS + CORRECTION_MS - 1)
    assert (join.waiting, join.unmatched_clicks) == (1, 0)
    pass_time(join, NOON_MS + WINDOW_MS + CORRECTION_MS)
    assert (join.waiting, join.unmatched_clicks) == (0, 1)


def test_a_matched_early_click_is_not_counted_as_unmatched() -> None:
    join = a_join()
    add(join, a_click(), an_impression())
    pass_time(join, END_MS)
    pass_time(join, NOON_MS * 2)
    assert (join.waiting, join.unmatched_clicks) == (0, 0)


def test_nothing_of_a_forgotten_user_waits_and_others_still_wait() -> None:
    join = a_join()
    add(join, an_impression("i1"), an_impression("i2"), a_click("never-shown"))
    add(join, an_impression("i1", user_id="u2"), a_click("i1"))
    assert add(join, a_forget()) == []
    assert join.waiting == 1
    (label,) = pass_time(join, END_MS)
    assert label.user_id == "u2"
    assert add(join, a_click("i2", at_ms=END_MS + 1)) == []  # no correction
    pass_time(join, NOON_MS * 2)
    assert join.unmatched_clicks == 1  # that one; the forgotten click is not counted


def test_a_label_survives_the_wire() -> None:
    (label,) = add(a_join(), an_impression(), a_click())
    assert decode_label(encode_label(label)) == label
    with pytest.raises(ValueError, match="missing required field"):
        decode_label(b"{}")


slates = st.lists(
    st.tuples(
        st.integers(0, 30),  # seconds after noon at which the item is shown
        st.none() | st.integers(0, 120),  # seconds until its click
    ),
    max_size=8,
)


@given(slates, st.randoms(use_true_random=False), st.integers(1, 5))
def test_the_final_labels_do_not_depend_on_order_repetition_or_batches(
    slate: list[tuple[int, int | None]], chance: random.Random, batch: int
) -> None:
    events: list[Impression | Click] = []
    for number, (shown_s, click_s) in enumerate(slate):
        at_ms = NOON_MS + shown_s * 1000
        events.append(an_impression(f"i{number}", at_ms=at_ms))
        if click_s is not None:
            events.append(a_click(f"i{number}", at_ms=at_ms + click_s * 1000))
    shuffled = events + chance.sample(events, len(events) // 2)
    chance.shuffle(shuffled)
    join, labels = a_join(), []
    for start in range(0, len(shuffled), batch):
        labels += add(join, *shuffled[start : start + batch])
        labels += join.advance()
    labels += pass_time(join, NOON_MS + 200_000)
    assert final(labels).keys() == {("r1", f"i{number}") for number in range(len(slate))}
    for number, (_, click_s) in enumerate(slate):
        label = final(labels)["r1", f"i{number}"]
        assert label.clicked == (click_s is not None)
        assert label.within_window == (click_s is None or click_s * 1000 <= WINDOW_MS)


@given(slates)
def test_equal_revisions_say_the_same(slate: list[tuple[int, int | None]]) -> None:
    events: list[Impression | Click] = []
    for number, (shown_s, click_s) in enumerate(slate):
        at_ms = NOON_MS + shown_s * 1000
        events.append(an_impression(f"i{number}", at_ms=at_ms))
        if click_s is not None:
            events.append(a_click(f"i{number}", at_ms=at_ms + click_s * 1000))
    said: dict[tuple[str, int], ImpressionLabel] = {}
    for order in (events, events[::-1]):
        join = a_join()
        labels = add(join, *order) + pass_time(join, NOON_MS + 200_000)
        for label in labels:
            assert said.setdefault((label.item_id, label.revision), label) == label


def test_a_flood_of_clicks_without_impressions_is_bounded() -> None:
    join = LabelJoin(WINDOW_MS, CORRECTION_MS, max_kept=3)
    join.advance(END_MS)  # so that all of them are due at once
    for number in range(7, 12):
        add(join, a_click(at_ms=NOON_MS + number, request_id=f"r{number}"))
    join.advance()
    assert (join.waiting, join.unmatched_clicks) == (3, 2)
    shown = [an_impression(request_id=f"r{number}") for number in range(7, 12)]
    assert [label.request_id for label in add(join, *shown)] == ["r9", "r10", "r11"]


def fresh(text: str) -> str:
    """Return a string of its own, as a decoder makes."""
    return "".join(list(text))


def test_ids_are_not_interned_and_a_slate_holds_them_once() -> None:
    join = a_join()
    for place in range(3):
        shown = an_impression(
            fresh(f"slate-item-{place}"),
            user_id=fresh("slate-user"),
            request_id=fresh("slate-request"),
            model_version=fresh("slate-version"),
        )
        add(join, shown)
    first, *others = pass_time(join, END_MS)
    for name in ("user_id", "request_id", "model_version"):
        held = getattr(first, name)
        assert all(getattr(each, name) is held for each in others)
        copy = fresh(held)
        assert sys.intern(copy) is copy  # no equal string was there


def test_impressions_that_arrive_newest_first_are_removed_linearly() -> None:
    compared: list[str] = []

    class Compared(str):
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            compared.append(self)
            return str(self) == other

    number, join = 300, a_join()
    for second in reversed(range(number)):
        at_ms, request = NOON_MS + second, Compared(f"r{second}")
        join.add(an_impression(at_ms=at_ms, request_id=request), NOON_MS + number)
    later_ms = NOON_MS + WINDOW_MS + CORRECTION_MS + number
    assert len(pass_time(join, later_ms)) == number
    pass_time(join, later_ms + CORRECTION_MS)
    assert join.waiting == 0
    assert len(compared) < 20 * number


def test_no_queue_knows_a_user_who_was_erased() -> None:
    join = a_join()
    for number, user in enumerate(["ann", "bob"] * 3):
        request = {"user_id": user, "request_id": f"{user}-{number}"}
        add(join, an_impression(at_ms=NOON_MS + number, **request))
        add(join, a_click(at_ms=NOON_MS + number, **request))
        add(join, a_click("early", at_ms=NOON_MS + number, **request))
    join.advance(NOON_MS + WINDOW_MS + 2)  # some wait to mature, some to leave
    assert "ann" in repr(vars(join))
    add(join, a_forget(user_id="ann", at_ms=NOON_MS + WINDOW_MS))
    assert "ann" not in repr(vars(join))
    assert "bob" in repr(vars(join))
