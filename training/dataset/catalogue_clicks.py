"""Held-out clicks on items that were new to their users, to rank the whole catalogue for.

Cut with the training set, because the evaluation needs what only the log has: the counters
of all items as of each click. Out: files in the folder of the training set.

Shapes: Q clicks by time, L history, W exposures, I items with a counted event.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.offline.item_replay import CountedEvents
from srp4ctr.features.tensors.arrays import ActivityArrays, ExposureArrays, SequenceArrays
from srp4ctr.training.dataset.batches import Slates
from srp4ctr.training.dataset.item_attributes import ItemAttributes

MAX_CLICKS = 2_000  # a Hit@10 of 0.5 then has a standard error of about 0.011
WINDOWS_MS = {"popular_2h": 2 * 3_600_000, "popular_24h": 24 * 3_600_000}
"""The windows of rules of popularity."""
PREFIX = "catalogue_clicks"

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CatalogueClicks:
    """Q held-out clicks, and what a request just before each could see."""

    slates: Slates
    """(Q,): the features of users and requests; its candidates are not those to rank."""
    clicked_keys: Int64s  # (Q,)
    sequences: SequenceArrays  # (Q, L)
    exposures: ExposureArrays  # (Q, W)
    total: ActivityArrays  # (Q,), of all items together
    counted: CountedEvents
    attributes: ItemAttributes

    def __len__(self) -> int:
        return len(self.clicked_keys)

    def write(self, folder: Path) -> None:
        """Write the arrays into the ``folder`` of a training set."""
        for name, array in _arrays(self).items():
            np.save(folder / f"{PREFIX}.{name}.npy", array)


def read(folder: Path) -> CatalogueClicks | None:
    """Return the clicks in the ``folder`` of a training set, mapped; None without any."""
    files = sorted(folder.glob(f"{PREFIX}.*.npy"))
    named = {
        path.name.removeprefix(f"{PREFIX}.").removesuffix(".npy"): np.load(
            path, mmap_mode="r", allow_pickle=False
        )
        for path in files
    }
    if not named:
        return None
    tensors = _under("slates.tensors", named)
    own = {n: each for n, each in _under("slates", named).items() if "." not in n}
    return CatalogueClicks(
        slates=Slates(tensors=tensors, **own),
        clicked_keys=named["clicked_keys"],
        sequences=SequenceArrays(**_under("sequences", named)),
        exposures=ExposureArrays(**_under("exposures", named)),
        total=ActivityArrays(**_under("total", named)),
        counted=CountedEvents(**_under("counted", named)),
        attributes=ItemAttributes(**_under("attributes", named)),
    )


def _arrays(value: Any) -> dict[str, NDArray[Any]]:
    """Return the arrays in ``value``, a dataclass, by the path of their names."""
    found: dict[str, NDArray[Any]] = {}
    for field in fields(value):
        part = getattr(value, field.name)
        if isinstance(part, np.ndarray):
            found[field.name] = part
            continue
        inner = part if isinstance(part, dict) else _arrays(part)
        found |= {f"{field.name}.{name}": array for name, array in inner.items()}
    return found


def _under(path: str, named: dict[str, Any]) -> dict[str, Any]:
    prefix = f"{path}."
    return {n.removeprefix(prefix): a for n, a in named.items() if n.startswith(prefix)}
