"""What a user was shown last → how often, and how long ago, each candidate was among it.

In: the exposures that the store has (serving), or counts cut from the event log (training).
Out: two columns of ``candidate_features``, in numpy alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from srp4ctr.features.tensors.transforms import MS_PER_HOUR, NEVER_S, Floats, Int64s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExposureArrays:
    """The last items shown to users, of shape (…, W), newest last; key 0 pads."""

    item_keys: Int64s
    shown_at_ms: Int64s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemExposures:
    """How items had been shown to the user who is to see them, of shape (…, N)."""

    counts: Int64s
    """Among the exposures that are kept."""
    last_shown_ms: Int64s
    """0: never."""

    def take(self, index: Any) -> "ItemExposures":
        """Return the rows ``index`` (numbers, mask or slice) of both arrays."""
        return ItemExposures(
            counts=self.counts[index], last_shown_ms=self.last_shown_ms[index]
        )


def empty_exposures(count: int, length: int) -> ExposureArrays:
    """Return the exposures (count, W) of users who were shown nothing."""
    return ExposureArrays(
        item_keys=np.zeros((count, length), dtype=np.int64),
        shown_at_ms=np.zeros((count, length), dtype=np.int64),
    )


def item_exposures(
    exposures: ExposureArrays, item_keys: Int64s, request_time_ms: ArrayLike
) -> ItemExposures:
    """Return how often, and when last, each of ``item_keys`` (…, N) was shown before.

    ``exposures`` are (…, W), as the store has them. What was shown from the request's
    time (…) on, be it its own impressions, is not seen.
    """
    at_ms = np.asarray(request_time_ms, dtype=np.int64)[..., None]
    before = (exposures.item_keys != 0) & (exposures.shown_at_ms < at_ms)
    same = item_keys[..., :, None] == exposures.item_keys[..., None, :]
    same &= before[..., None, :]  # (…, N, W)
    times = np.where(same, exposures.shown_at_ms[..., None, :], 0)
    return ItemExposures(counts=same.sum(axis=-1), last_shown_ms=times.max(axis=-1))


def exposure_features(shown: ItemExposures, request_time_ms: ArrayLike) -> Floats:
    """Return (…, N, 2): log(1 + how often) and log(1 + hours since) items were shown."""
    at_ms = np.asarray(request_time_ms, dtype=np.int64)[..., None]
    hours = np.maximum(at_ms - shown.last_shown_ms, 0) / MS_PER_HOUR
    hours = np.where(shown.counts > 0, np.minimum(hours, NEVER_S / 3600), NEVER_S / 3600)
    features: Floats = np.log1p(np.stack([shown.counts, hours], axis=-1))
    return features
