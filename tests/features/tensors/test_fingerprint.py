"""A changed formula has another fingerprint; a last bit of a result has not."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from srp4ctr.features.tensors import (
    caller_numbers,
    fingerprint,
    transforms,
    vocabulary,
)

OURS = fingerprint.fingerprint()


def finer_values(values: Any, size: int) -> Any:
    """Return codes of values in steps of a fifth of a power of two, not of a fourth."""
    positive = np.clip(np.nan_to_num(values), 0.0, 2.0**62)
    buckets = 2 + np.rint(5.0 * np.log2(1.0 + positive)).astype(np.int64)
    return np.where(np.isnan(values), 1, np.minimum(buckets, size - 1))


@pytest.mark.parametrize(
    ("module", "name", "changed"),
    [
        (transforms, "_value_buckets", finer_values),
        (transforms, "_GAP_BOUNDS_MS", transforms._GAP_BOUNDS_MS + 1000),
        (transforms, "PRIOR_RATE", 0.49),
        (transforms, "PRIOR_IMPRESSIONS", 5.1),
        (transforms, "SHARE_SCALE", 10_100.0),
        (transforms, "NEVER_S", transforms.NEVER_S * 0.9),
        (transforms, "AFFINITY_DECAY_PER_MS", transforms.AFFINITY_DECAY_PER_MS * 1.01),
        (transforms, "DECAY_PER_MS", transforms.DECAY_PER_MS * 1.01),
        (caller_numbers, "MIDDLE_RANK", 0.4),
        (vocabulary, "NUM_CONTEXT_ROWS", 1023),
        (vocabulary, "FIRST_OOV_ROW", 3),
        (fingerprint, "item_key", hash),
        (fingerprint, "action_code", len),
    ],
)
def test_a_changed_formula_changes_the_fingerprint(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, changed: Any
) -> None:
    monkeypatch.setattr(module, name, changed)
    assert fingerprint.fingerprint() != OURS


@pytest.mark.parametrize("change", [lambda x: x * (1 + 1e-6), lambda x: x * (1 - 1e-6)])
def test_the_last_bits_of_another_processor_do_not_change_it(
    change: Callable[[float], float],
) -> None:
    for array in fingerprint.formulas():
        if array.dtype.kind == "f":
            for result in map(float, array.ravel()):
                assert fingerprint.rounded(change(result)) == fingerprint.rounded(result)
                assert abs(result) > 1e-3 or result == 0.0  # no rest of a cancellation


def test_the_fixed_inputs_reach_every_column() -> None:
    _, of_request, of_candidates, *_ = fingerprint.formulas()
    assert (of_request[0, :-7] != 0).all()  # one number of the context is given
    assert (of_candidates[0] != 0).any(axis=0).all()
