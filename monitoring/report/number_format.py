"""Numbers → text with as few digits as matter, and with their unit; ``–`` if unknown."""

from math import floor, isfinite, log10

from srp4ctr.monitoring.quality.confidence_intervals import Interval
from srp4ctr.monitoring.report.report_contents import Estimate

UNKNOWN = "–"
MINUS = "−"
SPACE = "\u00a0"  # no line ends between a number and its unit


def count(value: float) -> str:
    """Return a whole number: ``17,500``."""
    return f"{value:,.0f}" if isfinite(value) else UNKNOWN


def decimal(value: float, places: int) -> str:
    """Return ``value`` with ``places`` decimals and a real minus sign."""
    if not isfinite(value):
        return UNKNOWN
    text = f"{abs(value):,.{places}f}"
    return f"{MINUS}{text}" if value < 0 and float(text.replace(",", "")) else text


def significant(value: float, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` significant digits, never as a power of ten."""
    if not isfinite(value) or value == 0:
        return decimal(value, 0)
    places = digits - 1 - floor(log10(abs(value)))
    return decimal(round(value, places), max(0, places))


def percent(value: float, places: int = 1) -> str:
    """Return a share: ``61.2 %``."""
    return f"{decimal(100 * value, places)}{SPACE}%" if isfinite(value) else UNKNOWN


def seconds(value: float) -> str:
    """Return a short time: ``9.8 ms``, ``1.24 s``."""
    if not isfinite(value):
        return UNKNOWN
    if value >= 1:
        return f"{significant(value)}{SPACE}s"
    return f"{significant(1000 * value)}{SPACE}ms"


def money(value: float, currency: str) -> str:
    """Return a price: ``0.0123 USD``."""
    return f"{significant(value)}{SPACE}{currency}" if isfinite(value) else UNKNOWN


def signed(value: float, places: int) -> str:
    """Return ``value`` with its sign: ``+1.80``."""
    text = decimal(value, places)
    return f"+{text}" if value > 0 and float(text.replace(",", "")) else text


def interval_text(interval: Interval, places: int, scale: float = 1.0) -> str:
    """Return an interval: ``58.3 to 64.1``."""
    low, high = scale * interval.low, scale * interval.high
    if not (isfinite(low) and isfinite(high)):
        return UNKNOWN
    return f"{decimal(low, places)} to {decimal(high, places)}"


def estimate(found: Estimate, places: int, scale: float = 1.0) -> str:
    """Return a figure with its interval: ``1.02 (0.97 to 1.07)``."""
    value = decimal(scale * found.value, places)
    interval = interval_text(found.interval, places, scale)
    return value if interval == UNKNOWN else f"{value} ({interval})"


def duration(length_s: float) -> str:
    """Return a length of time in the largest unit that fits: ``30 min``, ``2.5 days``."""
    for unit_s, one, many in (
        (86_400, "day", "days"),
        (3600, "h", "h"),
        (60, "min", "min"),
    ):
        if length_s >= unit_s:
            text = f"{length_s / unit_s:.1f}".removesuffix(".0")
            return f"{text}{SPACE}{one if text == '1' else many}"
    return f"{length_s:.0f}{SPACE}s"
