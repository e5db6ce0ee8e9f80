import pytest

from srp4ctr.monitoring.report.axes import time_axis, value_axis


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ((0.0, 87.0), ["0", "50", "100"]),
        ((0.0, 3.9), ["0", "1", "2", "3", "4"]),
        ((0.31, 0.38), ["0.30", "0.32", "0.34", "0.36", "0.38"]),
        ((-0.013, 0.02), ["−0.02", "−0.01", "0.00", "0.01", "0.02"]),
        ((0.0, 0.00112), ["0.0000", "0.0005", "0.0010", "0.0015"]),
        ((0.0, 12_345.0), ["0", "5,000", "10,000", "15,000"]),
    ],
)
def test_ticks_are_round_and_hold_the_values(
    values: tuple[float, ...], ticks: list[str]
) -> None:
    axis = value_axis(values)
    assert [text for _, text in axis.ticks] == ticks
    assert axis.low <= min(values) <= max(values) <= axis.high


@pytest.mark.parametrize("value", [0.0, 1.0, 20.0, 1e-6, -3.0])
def test_a_level_line_has_room_above_and_below(value: float) -> None:
    axis = value_axis([value])
    assert axis.low <= value < axis.high
    assert 2 <= len(axis.ticks) <= 6


def test_places_are_shares_of_the_axis() -> None:
    axis = value_axis((0.0, 4.0))
    assert [axis.share(each) for each in (0.0, 1.0, 4.0)] == [0.0, 0.25, 1.0]


def test_a_day_is_marked_at_clock_times_and_its_date() -> None:
    midnight = 1_762_992_000.0  # 2025-11-13 00:00 UTC
    axis = time_axis(midnight - 10 * 3600, midnight + 14 * 3600)
    assert [text for _, text in axis.ticks] == ["18:00", "13 Nov", "06:00", "12:00"]


@pytest.mark.parametrize("length_s", [1, 30, 180, 3600, 86_400, 7 * 86_400, 400 * 86_400])
def test_no_time_is_marked_too_often(length_s: float) -> None:
    axis = time_axis(1_762_992_000.0, 1_762_992_000.0 + length_s)
    assert 1 <= len(axis.ticks) <= 7
