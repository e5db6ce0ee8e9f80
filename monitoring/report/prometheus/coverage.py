"""Prometheus and a period → when the monitor was scraped, and snapshots to add up.

The monitor's figures cover a sliding window, the last hour of event time. A report over a
day adds up windows that touch and do not overlap. The window does not move without
traffic, and a restarted monitor reads past impressions again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from srp4ctr.errors import OutageError
from srp4ctr.monitoring.prometheus import Prometheus
from srp4ctr.monitoring.report.period import Period
from srp4ctr.monitoring.report.prometheus import promql

# A window's end is known to a step; impressions within that step fall between two windows.
POINTS = 10_000  # Prometheus returns 11,000 at most
FINEST_STEP_S = 5.0
MAX_SNAPSHOTS = 1000  # each is a query of some milliseconds
_SLACK = 0.1  # of a window: partitions are not labelled at the same time


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """An instant to query, and the end of the monitor's window then."""

    at_s: float
    window_end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """The monitor's data in Prometheus."""

    period: Period
    """From the first figures within the requested period to the last."""
    share: float
    """Share of ``period`` for which there are figures."""
    window_s: float
    snapshots: tuple[Snapshot, ...]
    """The newest first; at least one."""

    @property
    def events(self) -> Period:
        """When the impressions of all snapshots were shown."""
        return Period(
            start_s=self.snapshots[-1].window_end_s - self.window_s,
            end_s=self.snapshots[0].window_end_s,
        )


def measure_coverage(prometheus: Prometheus, period: Period) -> Coverage:
    """Return the monitor's data in ``period``; ``OutageError`` if there is none."""
    step_s = period.step_s(POINTS, FINEST_STEP_S)
    windows = prometheus.over(promql.WINDOW, period.start_s, period.end_s, step_s)
    if not windows:
        raise OutageError(
            f"{prometheus.url} has nothing of the monitor from {period}: does `srp4ctr "
            "monitor run` run, and does that Prometheus scrape it? For an earlier start: "
            "--since 7d"
        )
    points = windows[0].points
    covered = Period(start_s=points[0][0], end_s=points[-1][0])
    window_s = windows[0].newest
    ends = prometheus.over(promql.WINDOW_END, covered.start_s, covered.end_s, step_s)
    snapshots = choose_snapshots(ends[0].points if ends else (), window_s, covered.start_s)
    # No impression is matured yet, or the monitor is too old to export the window's end.
    only = Snapshot(at_s=covered.end_s, window_end_s=covered.end_s)
    return Coverage(
        period=covered,
        share=len(points) / (covered.length_s / step_s + 1),
        window_s=window_s,
        snapshots=snapshots or (only,),
    )


def choose_snapshots(
    ends: Sequence[tuple[float, float]], window_s: float, start_s: float
) -> tuple[Snapshot, ...]:
    """Return snapshots whose windows do not overlap, the newest first.

    ``ends`` are instants and the window's end then; unless it is empty, there is at least
    one snapshot. Windows that matured mostly before ``start_s`` are left out.
    """
    chosen: list[Snapshot] = []
    for each in _furthest(ends):
        if chosen and not _is_before(each, chosen[-1], window_s):
            continue
        if chosen and each.at_s - window_s / 2 < start_s:
            break
        chosen.append(each)
        if len(chosen) == MAX_SNAPSHOTS:
            break
    return tuple(chosen)


def _furthest(ends: Sequence[tuple[float, float]]) -> Iterator[Snapshot]:
    """Yield the snapshots at which the window's end was at its maximum, newest first."""
    furthest = accumulate((end for _, end in ends), max)
    reached = [
        Snapshot(at_s=at, window_end_s=end)
        for (at, end), far in zip(ends, furthest, strict=True)
        if end == far
    ]
    return reversed(reached)


def _is_before(earlier: Snapshot, later: Snapshot, window_s: float) -> bool:
    """Return whether the two windows are disjoint.

    They must be apart by the clock too: event time that runs faster is a backlog, of which
    some partitions may not have been read yet.
    """
    return (
        earlier.window_end_s <= later.window_end_s - window_s
        and earlier.at_s <= later.at_s - window_s * (1 - _SLACK)
    )
