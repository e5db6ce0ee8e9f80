"""A check takes a limited number of users, and no more events than it can hold."""

import random
from collections import Counter
from pathlib import Path

import pytest

from srp4ctr.features.consistency import check
from srp4ctr.features.consistency.replay import places
from srp4ctr.streams.events.schema import TOTAL_ITEM, UserEvent
from srp4ctr.testing.raw_logs import write_log
from tests.builders import NOON_MS, a_behavior


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    """Ten users with five views each."""
    views: list[UserEvent] = [a_behavior(user_id=f"u{n % 10}") for n in range(50)]
    return write_log(tmp_path, [(view, NOON_MS) for view in views])


@pytest.mark.parametrize(
    ("sample", "most_events", "users"),
    [
        (200, 50_000, 10),
        (3, 50_000, 3),
        (200, 20, 4),
        (200, 16, 4),
        (200, 1, 1),
        (2, 20, 2),
    ],
)
def test_the_sample_ends_at_its_limit_of_users_or_events(
    log_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    sample: int,
    most_events: int,
    users: int,
) -> None:
    monkeypatch.setattr(check, "_MOST_EVENTS", most_events)
    found = check._short(places(log_dir, "user_id", sample))
    assert len(set(found)) == users


def test_a_log_without_users_has_no_sample(tmp_path: Path) -> None:
    assert check._short(places(tmp_path, "user_id", 200)) == []


def test_each_user_is_drawn_as_often_as_others(log_dir: Path) -> None:
    every = places(log_dir, "user_id", 1000)
    random.seed(1)  # The same draws each time: a fair one, too, fails at times.
    drawn = Counter(place for _ in range(200) for place in places(log_dir, "user_id", 1))
    assert drawn.keys() == every.keys()
    # 20 each are expected; hashes joined by exclusive or gave one user 53 to 59.
    assert max(drawn.values()) < 2 * 200 / len(every)


def test_partitions_are_left_out(log_dir: Path) -> None:
    [(_, partition), *_] = places(log_dir, "user_id", 1000)
    left = places(log_dir, "user_id", 1000, without={partition})
    assert partition not in {each for _, each in left}


def test_the_total_of_a_partition_that_is_not_too_long_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check, "_MOST_OF_TOTAL", 5)
    last = {0: 5, 1: 4}
    drawn = {place for _ in range(50) for place in check._sampled_total(last)}
    assert drawn == {(TOTAL_ITEM, 1)}
    assert check._sampled_total({}) == []
