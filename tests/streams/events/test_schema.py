import pytest
from hypothesis import given
from hypothesis import strategies as st

from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.schema import (
    ASSIGNED_CODES,
    BUILT_IN_ACTIONS,
    NUM_ACTION_CODES,
    action_code,
    action_name,
    action_names,
    check_action_codes,
    item_key,
    proposed_codes,
    shared_codes,
)
from tests.builders import an_item


def test_keys_and_codes_are_the_same_in_every_release() -> None:
    # Rows in the store and models carry them: a change here orphans both.
    assert item_key("i1") == 5646418012223857726
    assert action_code("wink") == 29
    assert [action_code(name) for name in BUILT_IN_ACTIONS] == list(range(1, 12))


@given(st.text(min_size=1, max_size=256))
def test_an_item_key_fits_a_signed_64_bit_integer_and_is_never_the_padding(
    text: str,
) -> None:
    assert -(2**63) <= item_key(text) < 2**63
    assert item_key(text) != 0


@given(st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True))
def test_any_action_has_a_code_and_none_is_the_padding(action: str) -> None:
    assert 1 <= action_code(action) < NUM_ACTION_CODES


def test_an_action_shows_by_the_name_that_it_was_seen_under() -> None:
    assert action_code("wink") == action_code("zap2"), "they share a code"
    seen = action_names(["wink", "skip", "skip", "hide"])
    names = ("hide", "dislike", "wink", "skip", "play")
    shown = [action_name(action_code(name), seen) for name in names]
    assert shown == ["hide", "dislike", "wink", "skip", "other (27)"]
    both = action_names(["zap2", "wink"])
    assert action_name(action_code("wink"), both) == "wink or zap2"


def test_an_action_with_its_own_code_keeps_the_meaning_of_its_hashed_one() -> None:
    codes = {"wink": 32}
    assert [action_code(name, codes) for name in ("wink", "zap2", "view")] == [32, 29, 2]
    names = action_names(["zap2"], codes)
    assert [action_name(each, names) for each in (29, 32)] == ["wink or zap2", "wink"]


def test_actions_that_share_a_code_are_named_with_free_codes() -> None:
    actions = ["zap2", "wink", "skip", "view", "hide"]
    assert shared_codes(actions) == {29: ["wink", "zap2"]}
    assert shared_codes(actions, {"wink": 32}) == {}
    assert proposed_codes(actions, {"wink": 33}) == {"skip": 32, "zap2": 34}
    full = {f"a{code}": code for code in ASSIGNED_CODES}
    assert proposed_codes(actions, full) == {}


@pytest.mark.parametrize(
    ("codes", "sentence"),
    [
        ({"click": 32}, "click has the built-in code 1: remove the line"),
        ({"wink": 31}, "wink is 31: choose a code from 32 to 63"),
        ({"wink": 64}, "wink is 64: choose a code from 32 to 63"),
        ({"wink": 32, "skip": 32}, "skip is 32, as wink is"),
        ({"Wink": 32}, "Wink: an action is up to 32 of a-z"),
        ({"w" * 33: 32}, "an action is up to 32 of a-z"),
    ],
)
def test_a_code_that_cannot_be_is_refused(codes: dict[str, int], sentence: str) -> None:
    with pytest.raises(MistakeError, match=rf"streams\.action_codes\..*{sentence}"):
        check_action_codes(codes)
    check_action_codes({"wink": 32, "skip": 63})


@pytest.mark.parametrize("value", [1994, None, b"1994"])
def test_an_attribute_that_is_neither_text_nor_list_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"'year' is .*: a text \('34'\) or a list"):
        an_item(year=value)
