"""The range of values → an axis: round ticks, and what is written beside them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, floor, log10

from srp4ctr.monitoring.report.amounts import MINUS

# Between two ticks of a time axis, in seconds.
_TIMES_S = (
    *(15, 30, 60, 300, 600, 1800, 3600, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600),
    *(day * 86_400 for day in (1, 2, 7, 14, 28, 56, 91, 182, 364)),
)
DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """From ``low`` to ``high``, and where it is marked with what."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def share(self, value: float) -> float:
        """Return how far along ``value`` is: 0 at ``low``, 1 at ``high``."""
        return (value - self.low) / (self.high - self.low)


def value_axis(values: Iterable[float], num_ticks: int = 4, suffix: str = "") -> Axis:
    """Return an axis that holds ``values`` and ends at round numbers."""
    known = list(values)
    low, high = min(known), max(known)
    if high - low <= 1e-9 * max(abs(high), abs(low)):  # a level line: in the middle
        room = abs(high) / 10 or 1.0
        low, high = low - room if low else 0.0, high + room
    step = _round_step((high - low) / num_ticks)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    places = max(0, -floor(log10(step) + 1e-9))
    ticks = ((n * step, _written(n * step, places, suffix)) for n in range(first, last + 1))
    return Axis(low=first * step, high=last * step, ticks=tuple(ticks))


def time_axis(start_s: float, end_s: float, num_ticks: int = 5) -> Axis:
    """Return an axis of UTC times: clock times, and the date where a day begins."""
    end_s = max(end_s, start_s + 1)
    wanted_s = (end_s - start_s) / num_ticks
    step_s = next((each for each in _TIMES_S if each >= wanted_s), _TIMES_S[-1])
    first = ceil(start_s / step_s)
    times = (n * step_s for n in range(first, floor(end_s / step_s) + 1))
    ticks = tuple((at, _clock(at)) for at in times)
    return Axis(low=start_s, high=end_s, ticks=ticks)


def _round_step(at_least: float) -> float:
    """Return the next of 1, 2, 5, 10 times a power of ten."""
    power = 10.0 ** floor(log10(at_least))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= at_least * (1 - 1e-9))


def _written(value: float, places: int, suffix: str) -> str:
    text = f"{abs(value):,.{places}f}"
    sign = MINUS if value < 0 and float(text.replace(",", "")) else ""
    return f"{sign}{text}{suffix}"


def _clock(at_s: float) -> str:
    at = datetime.fromtimestamp(at_s, UTC)
    if at_s % DAY_S == 0:
        return f"{at.day} {at:%b}"
    return f"{at:%H:%M:%S}" if at_s % 60 else f"{at:%H:%M}"
