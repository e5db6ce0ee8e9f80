"""Compares the figures of two versions, or of one version counted in two ways."""

from dataclasses import asdict
from typing import Any

import pytest

from srp4ctr.monitoring.quality.quality_sums import ModelQuality


def assert_same(found: ModelQuality, expected: ModelQuality) -> None:
    """Counts are equal, sums but for the order of their additions."""
    one, other = asdict(found), asdict(expected)
    curves = zip(one.pop("calibration_bins"), other.pop("calibration_bins"), strict=True)
    for ours, theirs in [(one, other), *curves]:
        for name, value in flat(theirs).items():
            assert flat(ours)[name] == pytest.approx(value, nan_ok=True), name


def flat(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the values of ``fields`` and of the dicts in it."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            found |= {f"{name}.{key}": each for key, each in flat(value).items()}
        else:
            found[name] = value
    return found
