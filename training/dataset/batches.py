"""Examples → batches: their order in an epoch, and the tensors of a batch on the device.

In: named numpy arrays with a leading axis of requests or history windows. Out: the same
tensors of chosen rows in torch. Arrays are kept as small integers; rows become int64 only
in a batch. The order depends on the seed only, so that a resumed run and every process see
the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srp4ctr.features.tensors.schema import (
    CANDIDATE_TENSORS,
    HISTORY_TENSORS,
    MODEL_INPUTS,
    USER_TENSORS,
)

Arrays = Mapping[str, NDArray[np.generic]]
HISTORY_NAMES = tuple(spec.name for spec in HISTORY_TENSORS)
EXAMPLE_NAMES = tuple(spec.name for spec in MODEL_INPUTS)
USER_NAMES = tuple(spec.name for spec in USER_TENSORS)

ROWS_AT_ONCE = 65_536  # of arrays on disk
POOL_BATCHES = 32  # sorted together: batches stay random mixtures, and little is padding


@dataclass(frozen=True, slots=True, kw_only=True)
class Slates:
    """R requests, each with up to N impressions: features at the request, and labels."""

    tensors: Arrays
    """``EXAMPLE_NAMES``, each with a leading axis R; with user fields USER_NAMES, too."""
    clicked: NDArray[np.float32]  # (R, N), 0 for padding
    positions: NDArray[np.int64]  # (R, N), 0 is the top
    log_draw: NDArray[np.float32]
    """(R, N): log of the probability that a sampled slate draws the candidate; 0 for what
    was shown, and for padding."""
    request_at_ms: NDArray[np.int64]  # (R,)
    user_ids: NDArray[np.str_]  # (R,)

    def __len__(self) -> int:
        return len(self.request_at_ms)

    @property
    def shown(self) -> NDArray[np.bool_]:
        """Where (R, N) there is an impression rather than padding."""
        present: NDArray[np.bool_] = self.tensors["candidate_item_rows"] != 0
        return present

    def without_positions(self) -> "Slates":
        """Return the same as if all impressions stood at the top, as serving scores."""
        return replace(self, positions=np.zeros_like(self.positions))

    @property
    def are_sampled(self) -> bool:
        """Whether negatives were drawn: then they were for all slates."""
        return bool(self.log_draw[:1].any())

    def take(self, rows: NDArray[np.int64] | slice) -> "Slates":
        """Return the requests ``rows`` in that order; a slice is not copied."""
        return Slates(
            tensors={name: array[rows] for name, array in self.tensors.items()},
            clicked=self.clicked[rows],
            positions=self.positions[rows],
            log_draw=self.log_draw[rows],
            request_at_ms=self.request_at_ms[rows],
            user_ids=self.user_ids[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """W windows of L behaviours each, newest last."""

    tensors: Arrays
    """``HISTORY_NAMES``, each with a leading axis W."""

    def __len__(self) -> int:
        return len(self.tensors["history_item_rows"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The batch of one step of fine-tuning."""

    tensors: dict[str, Tensor]
    clicked: Tensor  # (B, N)
    positions: Tensor  # (B, N)
    log_draw: Tensor  # (B, N)
    shown: Tensor  # (B, N) bool


def history_lengths(tensors: Arrays) -> NDArray[np.int64]:
    """Return how many behaviours each history has."""
    return _lengths(tensors["history_item_rows"])


def slate_lengths(slates: Slates) -> NDArray[np.int64]:
    """Return the length of each slate, and of its history: (R, 2)."""
    shown = _lengths(slates.tensors["candidate_item_rows"])
    return np.stack([shown, history_lengths(slates.tensors)], axis=1)


def in_parts(rows: int) -> Iterator[slice]:
    """Yield slices of ``rows`` that are read at once, where arrays lie on disk."""
    for start in range(0, rows, ROWS_AT_ONCE):
        yield slice(start, start + ROWS_AT_ONCE)


def _lengths(item_rows: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the number of items in each row; 0 is padding."""
    lengths = np.zeros(len(item_rows), dtype=np.int64)
    for part in in_parts(len(item_rows)):
        lengths[part] = (item_rows[part] != 0).sum(axis=1)
    return lengths


def slate_batch(
    slates: Slates,
    rows: NDArray[np.int64],
    longest: NDArray[np.int64],
    device: torch.device,
) -> Batch:
    """Return the requests ``rows``, cut to the ``longest`` slate and history."""
    shown = max(int(longest[0]), 1)
    tensors = newest(torch_rows(slates.tensors, rows, device), int(longest[1]))
    for spec in CANDIDATE_TENSORS:
        tensors[spec.name] = tensors[spec.name][:, :shown]
    return Batch(
        tensors=tensors,
        clicked=torch.from_numpy(slates.clicked[rows, :shown]).to(device),
        positions=torch.from_numpy(slates.positions[rows, :shown]).to(device),
        log_draw=torch.from_numpy(slates.log_draw[rows, :shown]).to(device),
        shown=tensors["candidate_item_rows"] != 0,
    )


def newest(tensors: Mapping[str, Tensor], length: int) -> dict[str, Tensor]:
    """Return ``tensors`` with histories cut to the newest ``length``, at least one slot."""
    cut = {name: tensors[name][:, -max(length, 1) :] for name in HISTORY_NAMES}
    return {**tensors, **cut}


def torch_rows(
    arrays: Arrays, rows: NDArray[np.int64], device: torch.device
) -> dict[str, Tensor]:
    """Return ``arrays`` at ``rows``: integers as int64, the rest as float32."""
    return {name: _tensor(array[rows]).to(device) for name, array in arrays.items()}


def _tensor(array: NDArray[np.generic]) -> Tensor:
    kind = np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32
    return torch.from_numpy(array.astype(kind, copy=False))


def epoch_batches(
    rows: NDArray[np.int64],
    lengths: NDArray[np.int64] | None,
    batch_rows: int,
    seed: int,
) -> list[NDArray[np.int64]]:
    """Return ``rows`` in batches of ``batch_rows``, one of them perhaps smaller.

    ``lengths`` (rows, kinds) are of each of ``rows``, the costliest kind last; None mixes
    all lengths.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(rows))
    if lengths is not None and len(rows):
        order = np.concatenate(
            [
                pool[np.lexsort(lengths[pool].T)]
                for pool in in_order(order, POOL_BATCHES * batch_rows)
            ]
        )
    cut = in_order(rows[order], batch_rows)
    if lengths is None:
        return cut
    return [cut[place] for place in random.permutation(len(cut))]


def in_order(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Return ``rows`` as they are, ``size`` at a time."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
