"""The two mask sets of FG-BERT: which positions hide their item, which their behaviour.

In: item rows of a batch of histories. Out: two sets of positions, and the history with
those fields hidden.

Shapes: B windows, L history, A attribute slots, F behaviour fields.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from srp4ctr.features.tensors.vocabulary import MASK_ROW
from srp4ctr.training.model.batch_rng import uniform
from srp4ctr.training.model.embeddings import MASK_CODES


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """Where (B, L) item-related and behaviour-related fields are hidden."""

    items: Tensor
    behaviors: Tensor


def draw_masks(
    item_rows: Tensor, ratio: float, arm: str = "both", last_share: float = 0.3
) -> Masks:
    """Return two independent sets, each about ``ratio`` of the positions, padding never.

    ``arm`` is ``RefreshConfig.pretraining``: a set that it does not use is empty. In
    ``last_share`` of the windows the newest item's elements are also hidden. Elements of
    one item are hidden together: a click next to the hidden rating of the same item would
    give the answer away.
    """
    items, behaviors = (_draw(item_rows, ratio, last_share) for _ in range(2))
    nothing = torch.zeros_like(items)
    return Masks(
        items=nothing if arm == "behaviors" else items,
        behaviors=behaviors if arm in ("behaviors", "both") else nothing,
    )


def hide(history: dict[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """Return ``history`` with [MASK] in the fields that ``masks`` hide; input unchanged."""
    rows = history["history_item_rows"]
    attributes = history["history_attribute_rows"]
    codes = history["history_behavior_codes"]
    hidden_codes = torch.tensor(MASK_CODES, device=codes.device)
    return {
        "history_item_rows": rows.masked_fill(masks.items, MASK_ROW),
        # In every slot, so that the mean over any field's slots is [MASK] too.
        "history_attribute_rows": attributes.masked_fill(masks.items[..., None], MASK_ROW),
        "history_behavior_codes": torch.where(
            masks.behaviors[..., None], hidden_codes, codes
        ),
    }


def prefixes(history: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return ``history`` with a ``share`` of its windows cut to their beginning.

    A window is cut after a random behaviour, and keeps at least two: one to be predicted
    from the other. So a user gives as many examples as it had requests. The prefix moves to
    the end, where a history's newest behaviour is.
    """
    rows = history["history_item_rows"]  # (B, L)
    (windows, length), device = rows.shape, rows.device
    is_cut = uniform(windows, device=device) < share
    most = ((rows != 0).sum(1) - 2).clamp(min=0)
    drawn = (uniform(windows, device=device) * (most + 1)).long()
    dropped = torch.where(is_cut, drawn, 0)  # (B,)
    source = torch.arange(length, device=device) - dropped[:, None]  # (B, L)
    is_padding, source = source < 0, source.clamp(min=0)
    moved = {}
    for name, tensor in history.items():
        trailing = (1,) * (tensor.dim() - 2)
        index = source.reshape(windows, length, *trailing).expand_as(tensor)
        padding = is_padding.reshape(windows, length, *trailing)
        moved[name] = tensor.gather(1, index).masked_fill(padding, 0)
    return moved


def ids_only(history: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return ``history`` with [MASK] in all fields but the item's id, as in plain BERT."""
    everywhere = torch.ones_like(history["history_item_rows"], dtype=torch.bool)
    hidden = hide(history, Masks(items=everywhere, behaviors=everywhere))
    return hidden | {"history_item_rows": history["history_item_rows"]}


def _draw(item_rows: Tensor, ratio: float, last_share: float) -> Tensor:
    """Return one set (B, L), drawn per distinct item of each window."""
    same = item_rows[:, :, None] == item_rows[:, None, :]  # (B, L, L)
    first = same.to(torch.int8).argmax(dim=2)  # (B, L): the first position of this item
    (windows, length), device = item_rows.shape, item_rows.device
    drawn = uniform(windows, length, device=device) < ratio
    last_too = uniform(windows, 1, device=device) < last_share
    chosen: Tensor = drawn.gather(1, first) | (same[:, -1] & last_too)
    return chosen & (item_rows != 0)
