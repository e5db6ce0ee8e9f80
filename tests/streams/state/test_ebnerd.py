"""Labels and exposures of five weeks of a newspaper's real impressions and clicks.

The expected numbers were counted on the file only: see its README.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import chain

import msgspec
import pytest

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import MAX_CLOCK_SKEW_MS, LoggedEvent
from srp4ctr.streams.events.schema import Click, Impression, item_key
from srp4ctr.streams.state.label_join import (
    CLICKED,
    CLICKED_LATE,
    UNCLICKED,
    ImpressionLabel,
)
from srp4ctr.streams.state.reducers import fold_users
from srp4ctr.streams.state.sequences import EXPOSURE_LENGTH
from srp4ctr.streams.state.user_state import UserState
from srp4ctr.testing.ebnerd import STREAM, impressions_and_clicks
from srp4ctr.testing.fault_injection.reference_stream import Identity, identity
from srp4ctr.testing.raw_logs import END_MS, Known, labels_of, punctual

pytestmark = pytest.mark.skipif(
    not STREAM.is_file(), reason=f"needs EB-NeRD: there is no {STREAM}"
)

EXPOSURES, POSITIVES = 583_054, 50_273
POSITIVES_WITHIN_S = {10: 10_655, 60: 41_172, 300: 49_510, 600: 49_982, 1800: POSITIVES}
DAY_MS = 86_400_000


@cache
def clicked_stream() -> list[Impression | Click]:
    """Return the clicks and what they were on: no other exposure can be a positive."""
    events = list(impressions_and_clicks())
    clicked = {identity(event) for event in events if isinstance(event, Click)}
    return [event for event in events if identity(event) in clicked]


def joined(
    events: Iterable[Known], window_s: int = 1800
) -> dict[Identity, ImpressionLabel]:
    """Return the label that holds of each impression at the end."""
    held: dict[Identity, ImpressionLabel] = {}
    for label in labels_of(events, window_s * 1000, DAY_MS):
        before = held.get(identity(label))
        if before is None or before.revision < label.revision:
            held[identity(label)] = label
    return held


def revisions(held: dict[Identity, ImpressionLabel]) -> Counter[int]:
    return Counter(label.revision for label in held.values())


def test_the_whole_stream_joins_to_each_distinct_positive() -> None:
    assert revisions(joined(punctual(impressions_and_clicks()))) == {
        CLICKED: POSITIVES,
        UNCLICKED: EXPOSURES - POSITIVES,
    }


@pytest.mark.parametrize(("window_s", "positives"), POSITIVES_WITHIN_S.items())
def test_a_shorter_window_has_fewer_positives_and_corrects_the_rest(
    window_s: int, positives: int
) -> None:
    late = POSITIVES - positives
    counted = revisions(joined(punctual(clicked_stream()), window_s))
    assert counted == Counter({CLICKED: positives, CLICKED_LATE: late})


def test_duplicates_change_nothing() -> None:
    twice = chain.from_iterable((event, event) for event in clicked_stream())
    assert joined(punctual(twice)) == joined(punctual(clicked_stream()))


def test_a_replay_a_thousand_times_as_fast_gives_the_same_labels() -> None:
    began_ms, replayed_ms = clicked_stream()[0].occurred_at, END_MS // 2
    fast = (
        (event, replayed_ms + (event.occurred_at - began_ms) // 1000)
        for event in clicked_stream()
    )
    assert joined(fast, 60) == joined(punctual(clicked_stream()), 60)


def test_one_user_whose_clock_is_ahead_closes_nobodys_window() -> None:
    ((user, _),) = Counter(event.user_id for event in clicked_stream()).most_common(1)

    def of_others(events: Iterable[Known]) -> list[ImpressionLabel]:
        return [
            label for label in labels_of(events, 60_000, DAY_MS) if label.user_id != user
        ]

    def ahead(event: Impression | Click) -> Impression | Click:
        at_ms = event.occurred_at + (MAX_CLOCK_SKEW_MS if event.user_id == user else 0)
        return msgspec.structs.replace(event, occurred_at=at_ms)

    skewed = [(ahead(event), event.occurred_at) for event in clicked_stream()]
    assert of_others(skewed) == of_others(punctual(clicked_stream()))


def test_each_reader_keeps_what_was_shown_last() -> None:
    logged = [
        LoggedEvent(event=event, offset=offset, known_at_ms=event.occurred_at)
        for offset, event in enumerate(clicked_stream())
    ]
    kept: dict[str, UserState] = {}
    for start in range(0, len(logged), 2000):
        batch = logged[start : start + 2000]
        kept |= fold_users(kept, [(each, True) for each in batch], StreamConfig())
    shown: dict[str, set[tuple[int, int]]] = {}
    for event in clicked_stream():
        if isinstance(event, Impression):
            exposure = (event.occurred_at, item_key(event.item_id))
            shown.setdefault(event.user_id, set()).add(exposure)
    latest = {user: sorted(each)[-EXPOSURE_LENGTH:] for user, each in shown.items()}
    found = {
        user: [
            (element.occurred_at, element.item_key) for element in row.exposures.elements
        ]
        for user, row in kept.items()
    }
    assert {user: each for user, each in found.items() if each} == latest
