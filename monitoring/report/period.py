"""``24h`` or an ISO time → the period of a report."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from srp4ctr.errors import MistakeError

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From one instant to a later one, in Unix seconds."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """How long it is."""
        return self.end_s - self.start_s

    def __str__(self) -> str:
        """Return both instants to the minute."""
        return f"{utc_minute(self.start_s)} to {utc_minute(self.end_s)} UTC"

    def step_s(self, points: int, at_least_s: float) -> float:
        """Return the shortest step in whole seconds that gives at most ``points``."""
        return max(at_least_s, float(-(-self.length_s // points)))


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
