from pathlib import Path

import numpy as np

from benchmarks.quality import shift
from benchmarks.quality.shift import Policy, verdict
from srp4ctr.streams.events.schema import Impression
from srp4ctr.streams.state.label_join import ImpressionLabel

EXCESSES = (0.01, 0.05, 0.06, 0.02, 0.03)  # of -10, 0, 10, … minutes


def rows_of(*excesses: float) -> list[dict[str, float]]:
    return [{"minute": 10 * n - 10, "hourly": each} for n, each in enumerate(excesses)]


def test_half_of_the_harm_is_undone_from_where_it_stays_so() -> None:
    found = verdict(Policy(name="hourly", refused=2), rows_of(*EXCESSES))
    assert found["recovered_min"] == 20
    assert found["refused"] == 2
    assert verdict(Policy(name="hourly"), rows_of(*EXCESSES, 0.04))["recovered_min"] is None


def test_what_served_is_the_last_that_was_promoted_before() -> None:
    policy = Policy(name="", served=[(0, Path("v1")), (60, Path("v2"))])
    assert [policy.at(each).name for each in (0, 59, 60, 99)] == ["v1", "v1", "v2", "v2"]


def test_a_label_is_published_with_the_click_or_at_the_windows_end() -> None:
    published, truth = shift.feed(minutes=20)
    assert truth.shape == (20 * shift.A_MINUTE, shift.SLATE)
    shown = [each for each, _ in published if isinstance(each, Impression)]
    waited_s = {True: [], False: []}  # type: dict[bool, list[float]]
    for each, known_ms in published:
        if isinstance(each, ImpressionLabel):
            waited_s[each.clicked].append((known_ms - each.impression_at) / 1000)
    assert len(shown) == truth.size == sum(map(len, waited_s.values()))
    assert max(waited_s[True]) < 1
    assert min(waited_s[False]) == shift.STREAMS.label_window_s
    assert abs(len(waited_s[True]) - truth.sum()) < 4 * np.sqrt(truth.sum())
