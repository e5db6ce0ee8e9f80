from dataclasses import replace

from srp4ctr.monitoring.collector.consumer_lag import (
    CAUGHT_UP_MS,
    UNREACHABLE,
    IdlePeriod,
    WorkerProgress,
)

START_MS = 1_750_000_000_000
CAUGHT_UP = WorkerProgress(is_running=True, committed={0: 5, 1: 7}, ends={0: 5, 1: 7})


def settled_after(*seen: WorkerProgress | None) -> list[int | None]:
    """Return the settled times, relative to START_MS, of a read every two seconds."""
    period = IdlePeriod()
    answers: list[int | None] = []
    for number, progress in enumerate(seen):
        if progress is None:
            period.reset()
            continue
        until_ms = period.observe(progress, START_MS + 2000 * number)
        answers.append(None if until_ms is None else until_ms - START_MS)
    return answers


def test_a_worker_that_stays_caught_up_lets_the_clock_settle() -> None:
    assert settled_after(*[CAUGHT_UP] * 3) == [None, None, 4000 - CAUGHT_UP_MS]


def test_without_a_worker_nothing_is_settled() -> None:
    gone = replace(CAUGHT_UP, is_running=False)
    assert settled_after(*[gone] * 5, *[UNREACHABLE] * 5) == [None] * 10


def test_a_worker_that_is_behind_settles_nothing() -> None:
    behind = replace(CAUGHT_UP, committed={0: 5, 1: 6})
    assert settled_after(*[behind] * 5) == [None] * 5


def test_a_partition_without_a_commit_is_behind_unless_it_is_empty() -> None:
    assert not replace(CAUGHT_UP, committed={0: 5}).is_caught_up
    assert replace(CAUGHT_UP, committed={0: 5}, ends={0: 5, 1: 0}).is_caught_up


def test_a_worker_that_restarted_starts_a_new_period() -> None:
    seen = [CAUGHT_UP, CAUGHT_UP, UNREACHABLE, CAUGHT_UP, CAUGHT_UP]
    assert settled_after(*seen) == [None] * 5


def test_a_label_or_an_event_resets_the_period() -> None:
    assert settled_after(CAUGHT_UP, CAUGHT_UP, None, CAUGHT_UP, CAUGHT_UP) == [None] * 4
    later = replace(CAUGHT_UP, committed={0: 6, 1: 7}, ends={0: 6, 1: 7})
    assert settled_after(CAUGHT_UP, CAUGHT_UP, later, later) == [None] * 4
