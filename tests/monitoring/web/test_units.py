"""Numbers as text, and the round numbers of an axis."""

import math

import pytest

from srp4ctr.monitoring.dashboards import UNITS
from srp4ctr.monitoring.web.units import clock_step_s, text_of, tick_texts, ticks


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (0.6142, "percentunit", None, "61.4%"),
        (0.6142, "percentunit", 0, "61%"),
        (-0.0, "percentunit", None, "0%"),
        (-0.031, "percentunit", 1, "−3.1%"),
        (-0.00001, "percentunit", 1, "0.0%"),
        (0.00432, "s", None, "4.32 ms"),
        (59.9999, "s", None, "1 min"),
        (5400, "s", None, "1.5 h"),
        (0, "s", None, "0 s"),
        (1234, "none", None, "1,234"),
        (0.7631, "none", 2, "0.76"),
        (17_532, "short", None, "17.5k"),
        (88.31, "reqps", None, "88.3 req/s"),
        (7.4e10, "flops", None, "74 GFLOP/s"),
        (512, "flops", None, "512 FLOP/s"),
        (0.00111, "currency:", None, "0.00111 EUR"),
        (1234.5, "currency:", None, "1,234.50 EUR"),
        (-0.5, "currency:", None, "−0.5 EUR"),
        (None, "s", None, "–"),
        (math.inf, "none", None, "∞"),
    ],
)
def test_a_number_is_written_in_its_unit(
    value: float | None, unit: str, decimals: int | None, text: str
) -> None:
    assert text_of(value, unit, decimals, "EUR") == text


@pytest.mark.parametrize("unit", sorted(UNITS - {"none"}))
def test_every_unit_of_the_dashboards_is_written_in_its_own_way(unit: str) -> None:
    assert text_of(1234, unit, None, "EUR") != text_of(1234, "none", None, "EUR")


@pytest.mark.parametrize(
    ("low", "high", "unit", "expected"),
    [
        (0, 1, "none", [0, 0.5, 1]),
        (0, 5400, "s", [0, 1800, 3600, 5400]),
        (-3, 3, "none", [-2, 0, 2]),
    ],
)
def test_ticks_are_round_in_their_unit(
    low: float, high: float, unit: str, expected: list[float]
) -> None:
    assert ticks(low, high, 4, unit) == expected


def test_ticks_have_decimals_enough_to_differ() -> None:
    assert tick_texts([0.1234, 0.1235], "percentunit", None, "") == ["12.34%", "12.35%"]
    assert tick_texts([0.0, 0.5], "none", 0, "") == ["0.0", "0.5"]


@pytest.mark.parametrize(
    ("rough_s", "step_s"), [(7, 10), (400, 600), (40_000, 43_200), (150_000, 172_800)]
)
def test_a_step_of_time_is_a_clocks(rough_s: float, step_s: float) -> None:
    assert clock_step_s(rough_s) == step_s
