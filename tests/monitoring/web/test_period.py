import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.monitoring.web.period import Period, parse_period

NOW_S = 1_763_000_000.0  # 2025-11-13 02:13:20 UTC


@pytest.mark.parametrize(
    ("since", "length_s"), [("30m", 1800), ("24h", 86_400), ("7d", 604_800), ("1.5h", 5400)]
)
def test_a_length_counts_back_from_now(since: str, length_s: float) -> None:
    period = parse_period(since, None, NOW_S)
    assert period == Period(start_s=NOW_S - length_s, end_s=NOW_S)


def test_a_length_counts_back_from_the_end_that_was_named() -> None:
    period = parse_period("1h", "2025-11-12T12:00", NOW_S)
    assert str(period) == "2025-11-12 11:00 to 2025-11-12 12:00 UTC"
    assert parse_period("2h", "1h", NOW_S).end_s == NOW_S - 3600


def test_a_time_without_a_zone_is_utc() -> None:
    plain = parse_period("2025-11-12T12:00", None, NOW_S)
    assert plain == parse_period("2025-11-12T13:00+01:00", None, NOW_S)


@pytest.mark.parametrize(
    ("since", "until", "message"),
    [
        ("yesterday", None, "write 30m, 24h, 7d"),
        ("24", None, "write 30m, 24h, 7d"),
        ("24h", "tomorrow", "--until tomorrow"),
        ("2025-11-12", "2025-11-11", "not before the report's end"),
        ("0m", None, "not before the report's end"),
        ("1h", "2999-01-01", "in the future"),
    ],
)
def test_an_invalid_period_is_refused(since: str, until: str | None, message: str) -> None:
    with pytest.raises(MistakeError, match=message):
        parse_period(since, until, NOW_S)


def test_a_line_has_at_most_241_points_at_multiples_of_its_step() -> None:
    day = Period(start_s=1000.0, end_s=87_400.5)
    assert day.step_s == 361
    assert len(day.times_s) <= 241
    assert all(at_s % 361 == 0 for at_s in day.times_s)
    assert day.end_s - 361 < day.times_s[-1] <= day.end_s
    assert Period(start_s=0, end_s=60).step_s == 2
