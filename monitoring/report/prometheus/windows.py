"""A window that slides → instants at which its windows touch and never overlap.

The monitor's figures cover the last hour of event time. A report over a day adds up a day's
hours; but the window stands still while nobody is shown anything, runs through the past
while a monitor that was restarted reads it anew, and would count impressions twice.

In: when the window ended, by the clock. Out: when to look.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

MOST_LOOKS = 1000  # each is a question to Prometheus, of some milliseconds
_SLACK = 0.1  # of a window: partitions settle by turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """When to look, and when the newest impression of that window was shown."""

    at_s: float
    window_end_s: float


def choose_looks(
    ends: Sequence[tuple[float, float]], window_s: float, start_s: float
) -> tuple[Snapshot, ...]:
    """Return when to look, the newest first: at least once, if ``ends`` has anything.

    ``ends`` are instants and the window's end then. Looks go on as long as most of a
    window was settled after ``start_s``.
    """
    looks: list[Snapshot] = []
    for look in _furthest(ends):
        if looks and not _is_before(look, looks[-1], window_s):
            continue
        if looks and look.at_s - window_s / 2 < start_s:
            break
        looks.append(look)
        if len(looks) == MOST_LOOKS:
            break
    return tuple(looks)


def _furthest(ends: Sequence[tuple[float, float]]) -> Iterator[Snapshot]:
    """Yield, the newest first, when the window was as far as it had ever been."""
    furthest = accumulate((end for _, end in ends), max)
    reached = [
        Snapshot(at_s=at, window_end_s=end)
        for (at, end), far in zip(ends, furthest, strict=True)
        if end == far
    ]
    return reversed(reached)


def _is_before(look: Snapshot, later: Snapshot, window_s: float) -> bool:
    """Tell whether the windows of both are apart.

    By the clock too: where event time runs faster, a backlog is being read, of which half
    the partitions may have been read yet.
    """
    return (
        look.window_end_s <= later.window_end_s - window_s
        and look.at_s <= later.at_s - window_s * (1 - _SLACK)
    )
