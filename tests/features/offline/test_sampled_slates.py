"""Sampled slates: only what was known before a click decides, and its event_id."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srp4ctr.features.offline import point_in_time, sampled_slates
from srp4ctr.features.offline.event_tables import opened
from srp4ctr.features.offline.sampled_slates import NEGATIVES, with_sampled_slates
from srp4ctr.streams.events.schema import Click, item_key
from srp4ctr.testing.raw_logs import Published, label_of, write_log
from tests.builders import NOON_MS, a_behavior, a_click, an_impression

Slates = dict[str, dict[str, tuple[int, bool]]]
"""request_id → item → its position, and whether it was clicked."""
ITEMS = [f"i{n}" for n in range(40)]
NAMES = {item_key(item): item for item in ITEMS}


def sampled(folder: Path, *published: Published) -> Slates:
    with opened(write_log(folder, published)) as log:
        log = with_sampled_slates(log)
        rows = log.rows(log.shown.inner_join(log.labels, ("request_id", "item_key")))
    found: Slates = {}
    for row in rows.to_pylist():
        slate = found.setdefault(row["request_id"], {})
        slate[NAMES[row["item_key"]]] = row["position"], row["clicked"]
    return found


def clicks(count: int = 600, users: int = 30) -> list[tuple[Click, int]]:
    """Clicks, each known as soon as it happens; the first of ITEMS are popular."""
    chance = np.random.default_rng(0)
    made: list[Click] = []
    for n in range(count):
        item = ITEMS[int(40 * chance.random() ** 2)]
        user = f"u{chance.integers(users)}"
        made.append(a_click(item, at_ms=NOON_MS + n * 1000, user_id=user, event_id=f"e{n}"))
    return [(event, event.occurred_at) for event in made]


@pytest.fixture(scope="module")
def log() -> list[tuple[Click, int]]:
    return clicks()


def test_a_slate_is_a_click_and_items_that_others_had_clicked_before(
    tmp_path: Path, log: list[tuple[Click, int]]
) -> None:
    slates = sampled(tmp_path, *log)
    known: set[str] = set()
    used: dict[str, set[str]] = {}
    for event, _ in log:
        slate = slates.get(event.event_id)
        mine = used.setdefault(event.user_id, set())
        item = event.item_id
        if slate is None:
            assert item in mine or item not in known or not known - mine - {item}
        else:
            others = {each for each, (_, clicked) in slate.items() if not clicked}
            assert {*slate} - others == {item}
            assert item in known - mine
            assert others <= known - mine
            assert 1 <= len(others) <= NEGATIVES
            assert sorted(place for place, _ in slate.values()) == [*range(len(slate))]
        known.add(item)
        mine.add(item)
    assert len(slates) > 200


def test_what_happens_later_changes_no_slate(
    tmp_path: Path, log: list[tuple[Click, int]]
) -> None:
    """The future is cut off, or is another one."""
    whole, past = sampled(tmp_path / "whole", *log), sampled(tmp_path / "past", *log[:300])
    assert past == {name: whole[name] for name in past}
    at_ms = NOON_MS + 10**6
    others = [
        (a_click(item, at_ms=at_ms, user_id=f"u{user}", event_id=f"{item}{user}"), at_ms)
        for item in ITEMS
        for user in range(30)
    ]
    other = [*log[:300], *others]
    assert past.items() <= sampled(tmp_path / "other", *other).items()


def test_a_click_that_arrives_late_is_neither_popular_nor_used_before_it_is_known(
    tmp_path: Path,
) -> None:
    late = a_click("i1", at_ms=NOON_MS, user_id="u9", event_id="late")
    early = a_click("i2", at_ms=NOON_MS, user_id="u8", event_id="early")
    same = a_click("i3", at_ms=NOON_MS, user_id="u8", event_id="same")
    mine = a_click("i3", at_ms=NOON_MS + 1000, user_id="u1", event_id="mine")
    found = sampled(
        tmp_path,
        (early, NOON_MS),
        (same, NOON_MS),
        (mine, mine.occurred_at),
        (late, mine.occurred_at + 1),
    )
    assert set(found["mine"]) == {"i2", "i3"}


def test_slates_follow_from_the_events_not_from_their_order(
    tmp_path: Path, log: list[tuple[Click, int]]
) -> None:
    """Nor from repetitions: a redelivered click is the same click."""
    again = sampled(tmp_path / "again", *log[::-1], *log[:50])
    assert again == sampled(tmp_path / "once", *log)


def test_popular_items_are_drawn_more_often(tmp_path: Path) -> None:
    slates = sampled(tmp_path, *clicks(users=10_000)).values()
    drawn = Counter(
        i for slate in slates for i, (_, clicked) in slate.items() if not clicked
    )
    popular = sum(drawn[item] for item in ITEMS[:10])
    assert popular > 1.5 * sum(drawn[item] for item in ITEMS[30:])


def test_no_place_says_what_was_clicked(
    tmp_path: Path, log: list[tuple[Click, int]]
) -> None:
    slates = [s for s in sampled(tmp_path, *log).values() if len(s) == NEGATIVES + 1]
    places = Counter(p for s in slates for p, clicked in s.values() if clicked)
    assert set(places) == {*range(NEGATIVES + 1)}
    assert max(places.values()) < 0.25 * len(slates)


def test_an_item_that_was_used_before_makes_no_slate(tmp_path: Path) -> None:
    others = [a_click(f"i{n}", at_ms=NOON_MS - 9, user_id="u2") for n in range(22)]
    events: list[Any] = [
        *others,
        a_behavior("i20", at_ms=NOON_MS - 5),
        a_click("i20", at_ms=NOON_MS, event_id="again"),
        a_click("i21", at_ms=NOON_MS, event_id="new"),
    ]
    found = sampled(tmp_path, *((event, event.occurred_at) for event in events))
    assert "again" not in found
    assert "i21" in found["new"]
    assert "i20" not in found["new"]


def test_features_are_as_of_the_click_and_no_sampled_item_was_shown(
    tmp_path: Path, log: list[tuple[Click, int]]
) -> None:
    with opened(write_log(tmp_path, [*log])) as opened_log:
        found = point_in_time.snapshot(with_sampled_slates(opened_log), 5, 90.0)
    requests = found.candidate_requests
    assert not found.candidate_activity.impressions.any()
    assert not found.user_activity.impressions.any()
    assert not found.candidate_exposures.counts.any()
    # All are known before, else "never clicked yet" would give the click away.
    assert found.candidate_activity.clicks.all()
    assert (found.candidate_log_draw < 0.0).all()
    histories = found.sequences.item_keys[requests]
    assert not (histories == found.candidate_item_keys[:, None]).any()
    at_ms = found.times_ms[:, None]
    assert (found.sequences.occurred_at_ms < at_ms).all()


def draws(folder: Path, *published: Published) -> dict[str, dict[str, tuple[float, bool]]]:
    """Return request_id → item → its log_draw, and whether it was clicked."""
    with opened(write_log(folder, published)) as log:
        log = with_sampled_slates(log)
        rows = log.rows(log.labels).to_pylist()
    found: dict[str, dict[str, tuple[float, bool]]] = {}
    for row in rows:
        slate = found.setdefault(row["request_id"], {})
        slate[NAMES[row["item_key"]]] = row["log_draw"], row["clicked"]
    return found


def test_a_candidate_has_the_probability_that_its_share_of_recent_clicks_is_drawn(
    tmp_path: Path, log: list[tuple[Click, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a count of its own; every draw of a full slate is one of at least nine."""
    monkeypatch.setattr(sampled_slates, "RECENT_CLICKS", 100)
    found, known = draws(tmp_path, *log), [event.item_id for event, _ in log]
    assert len(found) > 100
    for request, slate in found.items():
        number = int(request.removeprefix("e"))
        recent = known[max(number - 100, 0) : number]
        tries = set()
        for item, (log_draw, _) in slate.items():
            share = max(recent.count(item), 1) / len(recent)
            tries.add(round(np.log1p(-np.exp(log_draw)) / np.log1p(-share), 3))
        (same,) = tries
        assert same == round(same)
        is_full = len(slate) == NEGATIVES + 1
        assert NEGATIVES <= same <= 24 if is_full else same == 24


def test_log_draw_is_how_often_an_item_is_drawn(tmp_path: Path) -> None:
    """Of many slates with one past: the shares of those that have the item."""
    past = [event for event, _ in clicks(400, users=10_000)]
    at_ms = past[-1].occurred_at + 1
    unpopular = "i39"
    now = [
        a_click(unpopular, at_ms=at_ms, user_id=f"new{n}", event_id=f"now{n}")
        for n in range(600)
    ]
    found = draws(tmp_path, *((event, event.occurred_at) for event in [*past, *now]))
    slates = [slate for name, slate in found.items() if name.startswith("now")]
    assert len(slates) == 600
    shares = {i: [each.item_id for each in past].count(i) / 400 for i in ITEMS}
    clicked = np.array([slate[unpopular][0] for slate in slates])
    tries = np.log1p(-np.exp(clicked)) / np.log1p(-shares[unpopular])
    for item in ITEMS[:39]:
        drawn = np.mean([item in slate for slate in slates])
        expected = np.mean(1.0 - (1.0 - shares[item]) ** tries)
        assert drawn == pytest.approx(expected, abs=0.06)


def test_what_was_shown_was_not_drawn(tmp_path: Path) -> None:
    shown = an_impression("i1", at_ms=NOON_MS)
    published: list[Published] = [(shown, NOON_MS), (label_of(shown), NOON_MS + 1)]
    with opened(write_log(tmp_path, published)) as log:
        found = point_in_time.snapshot(log, 5, 90.0)
    assert found.candidate_log_draw.tolist() == [0.0]
