"""Windows that are added up touch and never overlap, at any traffic."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from srp4ctr.monitoring.report.prometheus.coverage import Snapshot, choose_snapshots

HOUR = 3600.0
LAG = 1800.0  # the label window
STEP = 30.0
Ends = Sequence[tuple[float, float]]


def ends_of(end_at: Callable[[float], float], hours: float) -> Ends:
    times = [n * STEP for n in range(int(hours * HOUR / STEP) + 1)]
    return [(at, end_at(at)) for at in times]


def windows(snapshots: Sequence[Snapshot]) -> list[tuple[float, float]]:
    return [(each.window_end_s - HOUR, each.window_end_s) for each in snapshots]


def overlaps(snapshots: Sequence[Snapshot]) -> bool:
    spans = sorted(windows(snapshots))
    return any(a[1] > b[0] for a, b in pairwise(spans))


def test_steady_traffic_has_a_snapshot_every_hour() -> None:
    snapshots = choose_snapshots(ends_of(lambda at: at - LAG, 6), HOUR, start_s=0.0)
    assert [each.at_s / HOUR for each in snapshots] == [6, 5, 4, 3, 2, 1]
    assert not overlaps(snapshots)


def test_windows_that_matured_before_the_period_are_left_out() -> None:
    ends = ends_of(lambda at: at - LAG, 6)
    assert len(choose_snapshots(ends, HOUR, start_s=4 * HOUR)) == 2
    assert len(choose_snapshots(ends, HOUR, start_s=5.9 * HOUR)) == 1  # never none


def test_a_window_that_does_not_move_counts_once() -> None:
    def quiet_from_two_to_five(at: float) -> float:
        return min(at, 2 * HOUR) if at < 5 * HOUR else at - 1e-3

    snapshots = choose_snapshots(ends_of(quiet_from_two_to_five, 6), HOUR, start_s=0.0)
    assert not overlaps(snapshots)
    assert [round(end / HOUR) for _, end in windows(snapshots)] == [6, 5, 2, 1]


def test_there_is_no_snapshot_while_a_restarted_monitor_reads_the_past() -> None:
    def restarted_at_three(at: float) -> float:
        reading = (at - 3 * HOUR) * 60  # an hour a minute
        return min(at, reading) if at >= 3 * HOUR else at

    snapshots = choose_snapshots(ends_of(restarted_at_three, 6), HOUR, start_s=0.0)
    assert not overlaps(snapshots)
    read_by = 3 * HOUR + 3 * 60
    assert not [each for each in snapshots if 3 * HOUR <= each.at_s < read_by]
    assert len(snapshots) == 6


def test_there_is_no_snapshot_while_a_backlog_is_read() -> None:
    def first_started_at_three(at: float) -> float:
        return min(at, (at - 3 * HOUR) * 60)

    ends = [e for e in ends_of(first_started_at_three, 6) if e[0] >= 3 * HOUR]
    snapshots = choose_snapshots(ends, HOUR, start_s=0.0)
    assert [each.at_s / HOUR for each in snapshots] == [6, 5, 4, 3.05]  # read by then


def test_without_a_matured_impression_there_is_no_snapshot() -> None:
    assert choose_snapshots((), HOUR, start_s=0.0) == ()
