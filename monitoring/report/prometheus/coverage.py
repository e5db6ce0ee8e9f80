"""Prometheus → when the monitor was heard within a period, and when to look at it."""

from dataclasses import dataclass

from srp4ctr.monitoring.report.period import Period
from srp4ctr.monitoring.report.prometheus import promql
from srp4ctr.monitoring.report.prometheus.prometheus_http import Prometheus
from srp4ctr.monitoring.report.prometheus.windows import Snapshot, choose_looks

# A window's end is found to a step; what is shown within it falls between two windows.
POINTS = 10_000  # Prometheus gives 11,000
FINEST_STEP_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """The monitor, as Prometheus heard it."""

    period: Period
    """From the first figures in the period asked for to the last."""
    share: float
    """Of the time in between."""
    window_s: float
    looks: tuple[Snapshot, ...]
    """The newest first; at least one."""

    @property
    def events(self) -> Period:
        """When the impressions were shown that the looks see."""
        return Period(
            start_s=self.looks[-1].window_end_s - self.window_s,
            end_s=self.looks[0].window_end_s,
        )


def hear(prometheus: Prometheus, period: Period) -> Coverage:
    """Return when the monitor was heard; ``ValueError`` if never."""
    step_s = period.step_s(POINTS, FINEST_STEP_S)
    windows = prometheus.over(promql.WINDOW, period, step_s)
    if not windows:
        raise ValueError(
            f"{prometheus.url} has nothing of the monitor from {period}: does `srp4ctr "
            "monitor run` run, and does that Prometheus scrape it? --since 7d looks "
            "farther back"
        )
    points = windows[0].points
    heard = Period(start_s=points[0][0], end_s=points[-1][0])
    window_s = windows[0].newest
    ends = prometheus.over(promql.WINDOW_END, heard, step_s)
    looks = choose_looks(ends[0].points if ends else (), window_s, heard.start_s)
    # A monitor that has settled nothing yet, or is older than that figure.
    only = Snapshot(at_s=heard.end_s, window_end_s=heard.end_s)
    return Coverage(
        period=heard,
        share=len(points) / (heard.length_s / step_s + 1),
        window_s=window_s,
        looks=looks or (only,),
    )
