"""Which users a check takes: so many at most, and no more events than it can hold."""

from pathlib import Path

import pytest

from benchmarks.harness.raw_logs import write_log
from srp4ctr.features.consistency import check
from srp4ctr.streams.events.schema import UserEvent
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
    found, cut = check._sampled(log_dir, "user_id", sample)
    assert len(set(found)) == users
    assert cut == set()


def test_a_log_of_nobody_has_no_sample(tmp_path: Path) -> None:
    assert check._sampled(tmp_path, "user_id", 200) == ([], set())
