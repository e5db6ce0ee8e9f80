"""Item ids, forgotten now and then while training, so that a new item is nothing new.

In: the tensors of a batch of requests. Out: the same with some item ids replaced by rows
that unknown items share. So those rows, and all that does not need an id, learn to score.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from features.vocabulary import FIRST_OOV_ROW
from training.model.draws import draw_salt, uniform_of

ITEM_ROWS = ("history_item_rows", "candidate_item_rows")


def without_ids(
    tensors: Mapping[str, Tensor], share: float, num_oov_rows: int
) -> dict[str, Tensor]:
    """Return ``tensors`` with a random ``share`` of the known items made unknown.

    An item is unknown in the whole batch, in histories and among candidates alike: a new
    item is nowhere known either. The row it gets is always the same, as serving's is.
    """
    changed = dict(tensors)
    if share == 0.0:
        return changed
    salt = draw_salt()
    for name in ITEM_ROWS:
        if name in tensors:
            rows = tensors[name]
            dropped = uniform_of(rows, salt) < share
            known = rows >= FIRST_OOV_ROW + num_oov_rows
            shared = FIRST_OOV_ROW + rows % num_oov_rows
            changed[name] = torch.where(known & dropped, shared, rows)
    return changed
