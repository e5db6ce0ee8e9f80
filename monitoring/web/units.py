"""A number and Grafana's name of its unit → text, and round numbers for an axis."""

import math
from collections.abc import Sequence
from datetime import datetime

UNKNOWN = "–"
MINUS = "−"
MONEY = "currency:"  # Grafana's unit of money without a sign
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_TIMES = (
    (86_400.0, " d"),
    (3600.0, " h"),
    (60.0, " min"),
    (1.0, " s"),
    (1e-3, " ms"),
    (1e-6, " µs"),
    (1e-9, " ns"),
)
# Counts have a suffix (17.5k), quantities a prefix of their unit (1.2 GFLOP/s).
_COUNTED = {"short": "", "reqps": " req/s", "cps": "/s"}
_MEASURED = {"flops": "FLOP/s", "watt": "W"}
_RATES = ("reqps", "cps", "flops")
_CLOCK_S = (
    *(1, 2, 5, 10, 15, 30),
    *(60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 10_800, 14_400, 21_600, 43_200, 86_400),
)
_ROUNDED_UP = 0.9995  # 59.996 s is written as 1 min, not as 60.00 s


def is_rate(unit: str) -> bool:
    """Return whether ``unit`` is of a rate, whose axis starts at 0."""
    return unit in _RATES


def text_of(
    value: float | None, unit: str, decimals: int | None = None, currency: str = ""
) -> str:
    """Return ``value`` in ``unit``; without ``decimals`` with three significant digits."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    text = _written(value, unit, decimals)
    if unit == MONEY:
        text = f"{text} {currency}".rstrip()
    return text.replace("-", MINUS, 1) if text.startswith("-") else text


def _written(value: float, unit: str, decimals: int | None) -> str:
    if unit == "percentunit":
        return f"{_digits(100 * value, decimals, most=1)}%"
    if unit == "dateTimeAsIso":
        return (
            datetime.fromtimestamp(value / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        )
    if unit == "s":
        return _scaled(value, _TIMES, decimals, " s")
    if unit in _MEASURED:
        name = _MEASURED[unit]
        steps = [(size, f" {prefix}{name}") for size, prefix in _PREFIXES]
        return _scaled(value, [*steps, (1.0, f" {name}")], decimals, f" {name}")
    if unit in _COUNTED:
        steps = [(size, f"{prefix}{_COUNTED[unit]}") for size, prefix in _PREFIXES]
        return _scaled(value, [*steps, (1.0, _COUNTED[unit])], decimals, _COUNTED[unit])
    if unit == MONEY and (abs(value) >= 1 or value == 0):
        return _digits(value, 2 if decimals is None else decimals)
    return _digits(value, decimals)


def _scaled(
    value: float, steps: Sequence[tuple[float, str]], decimals: int | None, of_zero: str
) -> str:
    """Return ``value`` in the largest unit of ``steps`` that it reaches."""
    if value == 0:
        return f"0{of_zero}"
    reached = (step for step in steps if abs(value) >= _ROUNDED_UP * step[0])
    size, name = next(reached, steps[-1])
    return f"{_digits(value / size, decimals)}{name}"


def _digits(value: float, decimals: int | None, most: int = 12) -> str:
    """Return ``value`` with ``decimals``, else with three significant digits.

    Of those at most ``most`` are decimals, unless the value is below 1; a whole number has
    all its digits.
    """
    if decimals is not None:
        text = f"{value:,.{decimals}f}"
        return text.removeprefix("-") if not float(text.replace(",", "")) else text
    if abs(value) >= 1e15:
        return f"{value:.1e}"
    if value == round(value):
        return f"{value + 0.0:,.0f}"  # of -0.0 that is 0
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    places = min(places, most if abs(value) >= 1 else 12)
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def ticks(low: float, high: float, count: int, unit: str = "none") -> list[float]:
    """Return about ``count`` round numbers from ``low`` to ``high``."""
    if not high > low:
        return [low]
    step = _round_step((high - low) / count, unit)
    first = math.ceil(low / step - 1e-9)
    last = min(math.floor(high / step + 1e-9), first + 2 * count)
    return [place * step for place in range(first, last + 1)]


def clock_step_s(rough_s: float) -> float:
    """Return the shortest step of a clock that is at least ``rough_s`` long."""
    days = math.ceil(rough_s / 86_400) * 86_400.0
    return next((float(each) for each in _CLOCK_S if each >= rough_s), days)


def tick_texts(
    values: Sequence[float], unit: str, decimals: int | None, currency: str
) -> list[str]:
    """Return the texts of an axis's ``values``, with decimals enough to differ."""
    texts = [text_of(value, unit, decimals, currency) for value in values]
    if len(set(texts)) == len(texts):
        return texts
    step = (values[1] - values[0]) * (100 if unit == "percentunit" else 1)
    places = max(0, min(8, math.ceil(-math.log10(step) - 1e-9)))
    return [text_of(value, unit, places, currency) for value in values]


def _round_step(rough: float, unit: str) -> float:
    if unit == "s" and rough > 1:
        return clock_step_s(rough)
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(each for each in (1, 2, 5, 10) if each * power >= 0.999 * rough)
