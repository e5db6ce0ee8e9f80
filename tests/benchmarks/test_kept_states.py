"""How often states would be met, counted by hand."""

import pytest

from benchmarks.kept_states import Reuse, requests, reuse, stored_reuse
from srp4ctr.streams.events import Click, Impression, UserEvent


def shown(at_s: float, request: str) -> Impression:
    return Impression(
        event_id=f"i-{request}",
        request_id=request,
        user_id="u",
        item_id="a",
        position=0,
        occurred_at=round(at_s * 1000),
    )


def clicked(at_s: float) -> Click:
    return Click(
        event_id=f"c-{at_s}",
        request_id="r0",
        user_id="u",
        item_id="a",
        occurred_at=round(at_s * 1000),
    )


# A change before the first request makes states that are not counted as the stream's work.
EVENTS: list[UserEvent] = [
    clicked(1.0),
    *(shown(10.0, "r0"), shown(20.0, "r1")),
    *(clicked(30.0), clicked(30.1)),
    *(shown(30.3, "r2"), shown(40.0, "r3"), shown(500.0, "r4")),
]


@pytest.mark.parametrize(("for_s", "met"), [(60.0, 2), (1000.0, 3)])
def test_kept_states_are_met_while_the_history_stands_still(for_s: float, met: int) -> None:
    assert reuse(requests(EVENTS), for_s).met == met


@pytest.mark.parametrize(("for_s", "met"), [(60.0, 3), (1000.0, 4)])
def test_stored_states_are_met_once_the_stream_has_encoded(for_s: float, met: int) -> None:
    # Not by r2, which asks before the stream has; both clicks are encoded once.
    assert stored_reuse(EVENTS, for_s) == Reuse(met=met, most=1, encodings=1)
