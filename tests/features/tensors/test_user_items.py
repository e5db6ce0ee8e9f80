import math

import numpy as np
import pytest

from srp4ctr.features.tensors.arrays import (
    ExposureArrays,
    ItemExposures,
    SequenceArrays,
    empty_sequences,
)
from srp4ctr.features.tensors.transforms import (
    NEVER_S,
    attribute_affinity,
    exposure_features,
    item_exposures,
)
from srp4ctr.streams.events.schema import action_code

NOON_MS = 1_700_049_600_000
HOUR_MS = 3_600_000


def some_exposures() -> ExposureArrays:
    """Return one user's exposures: padding, 7 twice and 8 once."""
    return ExposureArrays(
        item_keys=np.array([[0, 7, 8, 7]]),
        shown_at_ms=np.array([[5, NOON_MS - 3 * HOUR_MS, NOON_MS - HOUR_MS, NOON_MS - 1]]),
    )


def test_what_was_shown_is_counted_and_its_last_time_known() -> None:
    shown = item_exposures(some_exposures(), np.array([[7, 8, 9, 0]]), [NOON_MS])
    assert shown.counts.tolist() == [[2, 1, 0, 0]]
    assert shown.last_shown_ms.tolist() == [[NOON_MS - 1, NOON_MS - HOUR_MS, 0, 0]]


def test_exposures_at_or_after_the_request_do_not_count() -> None:
    shown = item_exposures(some_exposures(), np.array([[7]]), [NOON_MS - 1])
    assert shown.counts.tolist() == [[1]]
    assert shown.last_shown_ms.tolist() == [[NOON_MS - 3 * HOUR_MS]]


def test_columns_are_logs_and_never_is_a_year_ago() -> None:
    shown = ItemExposures(
        counts=np.array([[2, 0, 1]]),
        last_shown_ms=np.array([[NOON_MS - HOUR_MS, 0, NOON_MS - 9000 * HOUR_MS]]),
    )
    often, since = np.moveaxis(exposure_features(shown, [NOON_MS]), -1, 0)
    assert often[0] == pytest.approx([math.log(3), 0, math.log(2)])
    never = math.log1p(NEVER_S / 3600)
    assert since[0] == pytest.approx([math.log(2), never, never])


def test_an_unknown_user_has_no_exposures() -> None:
    nothing = np.zeros((2, 3), dtype=np.int64)
    none = ExposureArrays(item_keys=nothing, shown_at_ms=nothing)
    shown = item_exposures(none, np.array([[7, 0], [8, 9]]), [NOON_MS] * 2)
    assert not shown.counts.any()
    assert not shown.last_shown_ms.any()


def test_affinity_counts_behaviours_on_items_with_the_same_attributes() -> None:
    at_ms = NOON_MS + 168 * HOUR_MS * np.array([0, 0, 0, 1, 1])  # a week later two more
    sequences = SequenceArrays(
        item_keys=np.array([[0, 0, 101, 102, 103]]),
        action_codes=np.array([[9, 9, 3, 3, action_code("click")]]),
        occurred_at_ms=at_ms[None],
        values=np.full((1, 5), math.nan),
    )
    history = np.array([[[0, 0]] * 2 + [[5, 0], [5, 6], [6, 0]]])  # the first two pad
    candidates = np.array([[[5, 0], [6, 5], [9, 0], [0, 0]]])
    now_ms = [NOON_MS + 168 * HOUR_MS]
    found = attribute_affinity(sequences, history, candidates, now_ms)
    acted = np.array([1.5, (2 + 1.5) / 2, 0, 0])
    clicked = np.array([0, (1 + 0) / 2, 0, 0])
    np.testing.assert_allclose(found[0, :, 0], (clicked + 0.5) / (acted + 1))
    np.testing.assert_allclose(found[0, :, 1], np.log1p(acted))


def test_affinity_of_many_requests_is_that_of_each() -> None:
    rng = np.random.default_rng(3)
    count, length = 300, 4  # over one batch's size
    sequences = empty_sequences(count, length)
    sequences.item_keys[:] = rng.integers(0, 3, (count, length))
    sequences.occurred_at_ms[:] = NOON_MS - rng.integers(0, HOUR_MS, (count, length))
    history = rng.integers(0, 6, (count, length, 2))
    candidates = rng.integers(0, 6, (count, 5, 2))
    times = np.full(count, NOON_MS)
    together = attribute_affinity(sequences, history, candidates, times)
    for row in (0, 255, 256, 299):
        one = slice(row, row + 1)
        alone = attribute_affinity(
            sequences.take(one), history[one], candidates[one], times[one]
        )
        np.testing.assert_array_equal(together[one], alone)
