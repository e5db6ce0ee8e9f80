import pytest
from hypothesis import given
from hypothesis import strategies as st

from srp4ctr.streams.events.schema import (
    NAMED_ACTIONS,
    NUM_ACTION_CODES,
    action_code,
    action_name,
    action_names,
    item_key,
)
from tests.builders import an_item


def test_keys_and_codes_are_the_same_in_every_release() -> None:
    # Rows in the store and models carry them: a change here orphans both.
    assert item_key("i1") == 5646418012223857726
    assert action_code("wink") == 29
    assert [action_code(name) for name in NAMED_ACTIONS] == list(range(1, 12))


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


@pytest.mark.parametrize("value", [1994, None, b"1994"])
def test_an_attribute_that_is_neither_text_nor_list_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"'year' is .*: a text \('34'\) or a list"):
        an_item(year=value)
