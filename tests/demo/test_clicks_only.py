"""A log of clicks as the demo's input: sampled slates, of which live ones are shown."""

from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from srp4ctr.demo.sessions import history_events
from srp4ctr.demo.steps import DemoInput, read_input
from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.schema import Behavior, Click, Impression, UserEvent
from tests.builders import NOON_MS, a_behavior, a_click, an_impression


def clicks(count: int) -> list[Click]:
    """Clicks of six users on twelve items; some are repeated."""
    chance = np.random.default_rng(0)
    return [
        a_click(
            f"i{chance.integers(12)}",
            at_ms=NOON_MS + n * 1000,
            user_id=f"u{n % 6}",
            event_id=f"e{n}",
        )
        for n in range(count)
    ]


def given(folder: Path, events: Iterable[UserEvent]) -> DemoInput:
    file = folder / "events.jsonl"
    file.write_bytes(b"\n".join(map(msgspec.json.encode, events)))
    return read_input(file, folder, 0.2)


def test_live_slates_have_the_click_and_items_that_were_popular(tmp_path: Path) -> None:
    found = given(tmp_path, clicks(120))
    assert found.is_sampled
    live = [visit for line in found.timelines for visit in line.live]
    assert live
    for visit in live:
        (click,) = visit.clicks
        shown = [impression.item_id for impression in visit.impressions]
        assert click.item_id in shown
        assert len(shown) == len({*shown}) > 1
        assert {impression.request_id for impression in visit.impressions} == {
            click.request_id
        }


def test_no_click_is_lost_and_a_repeated_one_stays_in_the_history(tmp_path: Path) -> None:
    found = given(tmp_path, clicks(120))
    visits = [visit for line in found.timelines for visit in line.visits]
    kept: list[Click | Behavior] = [e for line in found.timelines for e in line.before]
    for visit in visits:
        kept += [*visit.clicks, *visit.behaviors]
    assert sorted(event.event_id for event in kept) == sorted(f"e{n}" for n in range(120))
    repeated = {event.action for event in kept if isinstance(event, Behavior)}
    assert repeated == {"click"}


def test_with_impressions_nothing_is_sampled(tmp_path: Path) -> None:
    shown: list[UserEvent] = []
    for n in range(30):
        at_ms, request = NOON_MS + n * 1000, f"r{n}"
        shown.append(an_impression(at_ms=at_ms, request_id=request))
        shown.append(a_click(at_ms=at_ms + 1, request_id=request))
    found = given(tmp_path, shown)
    assert not found.is_sampled
    events = [e for line in found.timelines for e in history_events(line, NOON_MS)]
    assert any(isinstance(event, Impression) for event in events)


def test_too_little_of_both_says_how_much_there_is(tmp_path: Path) -> None:
    with pytest.raises(MistakeError, match=r"20 slates .* has 0; 0 .* its 0 clicks"):
        given(tmp_path, [a_behavior()])
    with pytest.raises(MistakeError, match=r"has 1; \d+ could .* its 9 clicks"):
        given(tmp_path, [an_impression(), *clicks(9)])
