import math

import numpy as np
import pytest

from srp4ctr.features.tensors.exposures import (
    ExposureArrays,
    ItemExposures,
    empty_exposures,
    exposure_features,
    item_exposures,
)
from srp4ctr.features.tensors.transforms import NEVER_S

NOON_MS = 1_700_049_600_000
HOUR_MS = 3_600_000


def some_exposures() -> ExposureArrays:
    """Return what one user was shown: 7 twice, 8 once, and what a slot's padding says."""
    return ExposureArrays(
        item_keys=np.array([[0, 7, 8, 7]]),
        shown_at_ms=np.array([[5, NOON_MS - 3 * HOUR_MS, NOON_MS - HOUR_MS, NOON_MS - 1]]),
    )


def test_what_was_shown_is_counted_and_its_last_time_known() -> None:
    shown = item_exposures(some_exposures(), np.array([[7, 8, 9, 0]]), [NOON_MS])
    assert shown.counts.tolist() == [[2, 1, 0, 0]]
    assert shown.last_shown_ms.tolist() == [[NOON_MS - 1, NOON_MS - HOUR_MS, 0, 0]]


def test_what_is_shown_from_the_request_on_is_not_seen() -> None:
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


def test_a_stranger_was_shown_nothing() -> None:
    shown = item_exposures(empty_exposures(2, 3), np.array([[7, 0], [8, 9]]), [NOON_MS] * 2)
    assert not shown.counts.any()
    assert not shown.last_shown_ms.any()
