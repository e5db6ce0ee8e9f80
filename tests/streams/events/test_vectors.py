"""An embedding as an attribute: numbers in, one text behind the codec."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srp4ctr.streams.events import codec
from srp4ctr.streams.events.codec import RejectedEvent
from srp4ctr.streams.events.schema import ItemUpdate, UserUpdate
from srp4ctr.streams.events.vectors import MAX_LENGTH, numbers_of, shown, vector_text

AT = 1_767_225_600_000
NUMBERS = [0.5, -0.25, 1.0, 3.0, 0.0, 0.1, -7.5, 100.0]


def decoded(kind: str, **attributes: Any) -> Any:
    event = {"type": kind, "event_id": "e", f"{kind}_id": "1", "occurred_at": AT}
    return codec.decode(json.dumps({**event, "attributes": attributes}).encode(), AT)


@given(st.lists(st.floats(-60_000, 60_000, width=16), min_size=8, max_size=1024))
def test_numbers_survive_their_text(numbers: list[float]) -> None:
    text = vector_text(numbers)
    assert len(text) <= MAX_LENGTH
    found = numbers_of(text)
    assert found is not None
    assert found.tolist() == numbers


@pytest.mark.parametrize("kind", ["item", "user"])
def test_a_list_of_numbers_is_one_text_behind_the_codec(kind: str) -> None:
    update = decoded(kind, embedding=NUMBERS, genre=["War", "Noir"], title="1984")
    text = vector_text(NUMBERS)
    wanted = {"embedding": text, "genre": ["War", "Noir"], "title": "1984"}
    assert update.attributes == wanted
    again = codec.decode(codec.encode(update), AT)
    assert again == update  # who publishes the text sends a third of the bytes
    assert shown(text) == "a vector of 8 numbers"
    assert shown("1984") == "1984"


def test_a_producer_s_event_has_the_text_at_once() -> None:
    update = ItemUpdate(
        event_id="e", item_id="1", occurred_at=AT, attributes={"embedding": NUMBERS}
    )
    assert update.kept_attributes() == {"embedding": vector_text(NUMBERS)}
    assert msgspec.structs.replace(update, available=False).kept_attributes() == {
        "embedding": vector_text(NUMBERS),
        "available": "false",
    }
    with pytest.raises(ValueError, match="ids as texts"):
        UserUpdate(event_id="e", user_id="1", occurred_at=AT, attributes={"e": [1.0, 2.0]})


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([3, 7], "send ids as texts"),
        ([1.0] * 1025, "length <= 1024"),
        ([*NUMBERS, 1e6], "beyond 65,504"),
        ([*NUMBERS, "a"], "has texts and numbers"),
        ([*NUMBERS, True], "got `bool`"),
        ([*NUMBERS, None], "got `null`"),
        (["a"] * 65, "length <= 64"),
        ("a" * 257, "length <= 256"),
        ("vector:" + "A" * 300, "length <= 256"),  # 225 bytes are no numbers
        ("vector:" + "A" * 3000, "length <= 2739"),
        (7.5, "got `float`"),
    ],
)
def test_what_is_no_vector_is_rejected_with_the_reason(value: Any, why: str) -> None:
    found = decoded("item", embedding=value)
    assert isinstance(found, RejectedEvent)
    assert found.reason is codec.Reason.INVALID_FIELD
    assert why in found.detail


@pytest.mark.parametrize(
    "text", ["", "vector:", "vector:art", "vector:????", "Vector:AA=="]
)
def test_other_texts_are_no_vectors(text: str) -> None:
    assert numbers_of(text) is None


def test_a_text_of_numbers_that_are_not_finite_is_no_vector() -> None:
    text = vector_text(NUMBERS)
    nan = np.full(8, np.nan, dtype="<f2").tobytes()
    import base64

    assert numbers_of(text[:7] + base64.b64encode(nan).decode()) is None
    with pytest.raises(ValueError, match="not finite"):
        vector_text([*NUMBERS, float("nan")])
