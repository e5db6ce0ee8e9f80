"""Windows that are added up touch, and never overlap, whatever the traffic does."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from srp4ctr.monitoring.report.prometheus.windows import Snapshot, choose_looks

HOUR = 3600.0
LAG = 1800.0  # the label window
STEP = 30.0
Ends = Sequence[tuple[float, float]]


def ends_of(end_at: Callable[[float], float], hours: float) -> Ends:
    times = [n * STEP for n in range(int(hours * HOUR / STEP) + 1)]
    return [(at, end_at(at)) for at in times]


def windows(looks: Sequence[Snapshot]) -> list[tuple[float, float]]:
    return [(each.window_end_s - HOUR, each.window_end_s) for each in looks]


def overlaps(looks: Sequence[Snapshot]) -> bool:
    spans = sorted(windows(looks))
    return any(a[1] > b[0] for a, b in pairwise(spans))


def test_under_steady_traffic_an_hour_is_looked_at_each_hour() -> None:
    looks = choose_looks(ends_of(lambda at: at - LAG, 6), HOUR, start_s=0.0)
    assert [each.at_s / HOUR for each in looks] == [6, 5, 4, 3, 2, 1]
    assert not overlaps(looks)


def test_what_was_settled_before_the_period_is_not_looked_at() -> None:
    ends = ends_of(lambda at: at - LAG, 6)
    assert len(choose_looks(ends, HOUR, start_s=4 * HOUR)) == 2
    assert len(choose_looks(ends, HOUR, start_s=5.9 * HOUR)) == 1  # never none


def test_a_window_that_stands_still_counts_once() -> None:
    def quiet_from_two_to_five(at: float) -> float:
        return min(at, 2 * HOUR) if at < 5 * HOUR else at - 1e-3

    looks = choose_looks(ends_of(quiet_from_two_to_five, 6), HOUR, start_s=0.0)
    assert not overlaps(looks)
    assert [round(end / HOUR) for _, end in windows(looks)] == [6, 5, 2, 1]


def test_a_monitor_that_reads_the_past_anew_is_not_looked_at_meanwhile() -> None:
    def restarted_at_three(at: float) -> float:
        reading = (at - 3 * HOUR) * 60  # an hour a minute
        return min(at, reading) if at >= 3 * HOUR else at

    looks = choose_looks(ends_of(restarted_at_three, 6), HOUR, start_s=0.0)
    assert not overlaps(looks)
    read_by = 3 * HOUR + 3 * 60
    assert not [each for each in looks if 3 * HOUR <= each.at_s < read_by]
    assert len(looks) == 6


def test_a_backlog_is_not_looked_at_while_it_is_read() -> None:
    def first_started_at_three(at: float) -> float:
        return min(at, (at - 3 * HOUR) * 60)

    ends = [e for e in ends_of(first_started_at_three, 6) if e[0] >= 3 * HOUR]
    looks = choose_looks(ends, HOUR, start_s=0.0)
    assert [each.at_s / HOUR for each in looks] == [6, 5, 4, 3.05]  # read by then


def test_without_a_settled_impression_there_is_nothing_to_look_at() -> None:
    assert choose_looks((), HOUR, start_s=0.0) == ()
