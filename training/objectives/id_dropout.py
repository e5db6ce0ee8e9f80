"""Random dropout of item ids in training, so that unknown items are scored well.

In: item rows of a batch. Out: the same with some replaced by rows that unknown items share.
This also trains those rows, and all parts that do not need an id.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from srp4ctr.features.tensors.vocabulary import FIRST_OOV_ROW
from srp4ctr.training.model.batch_rng import draw_salt, uniform_of

ITEM_ROWS = ("history_item_rows", "candidate_item_rows")


def id_dropper(share: float, num_oov_rows: int) -> Callable[[Tensor], Tensor]:
    """Return a function that makes a random ``share`` of known items unknown, in rows (…).

    An item is unknown in the whole batch, as a new item is in serving. It always gets the
    same row, as in serving.
    """
    if share == 0.0:
        return lambda rows: rows
    salt = draw_salt()

    def drop(rows: Tensor) -> Tensor:
        dropped = uniform_of(rows, salt) < share
        known = rows >= FIRST_OOV_ROW + num_oov_rows
        return torch.where(known & dropped, FIRST_OOV_ROW + rows % num_oov_rows, rows)

    return drop


def without_ids(
    tensors: Mapping[str, Tensor], share: float, num_oov_rows: int
) -> dict[str, Tensor]:
    """Return ``tensors`` with a random ``share`` of the known items made unknown."""
    drop = id_dropper(share, num_oov_rows)
    changed = {name: drop(tensors[name]) for name in ITEM_ROWS if name in tensors}
    return {**tensors, **changed}
