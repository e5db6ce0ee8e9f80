"""``24h`` or an ISO time → a period, and the steps at which its lines have points."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, floor

from srp4ctr.errors import MistakeError

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
MAX_POINTS = 240  # of a line: about one per pixel of the narrowest plots
MIN_STEP_S = 2  # the scrape interval of the embedded stack
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From one instant to a later one, in Unix seconds."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """Its length in seconds."""
        return self.end_s - self.start_s

    @property
    def step_s(self) -> int:
        """The distance of a line's points: whole seconds, ``MAX_POINTS`` points at most."""
        return max(MIN_STEP_S, ceil(self.length_s / MAX_POINTS))

    @property
    def times_s(self) -> tuple[int, ...]:
        """The times of a line's points.

        They are multiples of the step, because otherwise a line would have other points
        after each refresh.
        """
        step_s = self.step_s
        last = floor(self.end_s / step_s)
        first = last - floor(self.length_s / step_s)
        return tuple(step_s * place for place in range(first, last + 1))

    def __str__(self) -> str:
        """Return both instants to the minute."""
        return f"{utc_minute(self.start_s)} to {utc_minute(self.end_s)} UTC"


def parse_period(since: str, until: str | None, now_s: float) -> Period:
    """Return the period from ``since`` to ``until`` (None: now).

    ``since`` may be a length before ``until``, and ``until`` a length before now. A time
    without a zone is UTC. Raises ``MistakeError`` if one is neither, or none is left.
    """
    end_s = now_s if until is None else _instant("--until", until, now_s)
    start_s = _instant("--since", since, end_s)
    if end_s > now_s + 1:
        raise MistakeError(f"--until {until} is in the future")
    if end_s - start_s < 1:
        raise MistakeError(f"--since {since} is not before the report's end")
    return Period(start_s=start_s, end_s=end_s)


def utc_minute(at_s: float) -> str:
    """Return an instant to the minute, in UTC."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M")


def _instant(option: str, text: str, before_s: float) -> float:
    if length := _LENGTH.fullmatch(text):
        return before_s - float(length[1]) * UNITS_S[length[2]]
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise MistakeError(
            f"{option} {text}: write 30m, 24h, 7d, or a time as 2026-11-01T12:00"
        ) from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
