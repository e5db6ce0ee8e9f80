"""Which users a check takes: so many at most, and no more events than it can hold."""

from pathlib import Path

import pytest

from benchmarks.harness.raw_logs import write_log
from srp4ctr.features.consistency import check
from srp4ctr.features.consistency.replay import places
from srp4ctr.streams.events.schema import TOTAL_ITEM, UserEvent
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
def test_the_sample_ends_where_it_holds_so_many_users_or_events(
    log_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    sample: int,
    most_events: int,
    users: int,
) -> None:
    monkeypatch.setattr(check, "_MOST_EVENTS", most_events)
    found, cut = check._sampled(log_dir, places(log_dir, "user_id"), sample)
    assert len(set(found)) == users
    assert cut == set()


def test_a_log_of_nobody_has_no_sample(tmp_path: Path) -> None:
    assert check._sampled(tmp_path, places(tmp_path, "user_id"), 200) == ([], set())


def test_the_total_of_a_partition_that_is_neither_too_long_nor_cut_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = {("i1", 0): 3, ("i2", 0): 3, ("i1", 1): 5, ("i1", 2): 1}
    monkeypatch.setattr(check, "_MOST_OF_TOTAL", 5)
    drawn = {place for _ in range(50) for place in check._sampled_total(shown, cut={2})}
    assert drawn == {(TOTAL_ITEM, 1)}
    assert check._sampled_total({}, cut=()) == []
