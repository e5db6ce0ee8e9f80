"""The products of fields → what the head reads of them, each pair where it is cheapest.

In: ``FieldProducts`` in evaluation mode. Out: the head's part of products between a
candidate's fields and a request's, of a candidate's own, and of a request's own, which are
computed once for all its candidates.

Shapes: B requests, T candidates, S states, D width, C the context's, H the head's; I item
fields and K fields of a request, F both, P wide; V the user fields' widths together.
"""

import torch
from torch import Tensor, nn

from srp4ctr.training.model.products import (
    PRODUCT_WIDTH,
    FieldProducts,
    masked_mean,
    pairs,
)


class FoldedProducts(nn.Module):
    """The products times their part of the head's projection of candidates."""

    def __init__(self, products: FieldProducts, weight: Tensor) -> None:
        """``weight`` (F (F - 1) / 2, H) is of all products, in their order."""
        super().__init__()
        self.history, self.context = products.history, products.context
        self.items = products.item_fields
        self.of_both, of_item, of_request = torch.split(weight, products.widths)
        self.of_item = _of_every_pair(of_item, products.item_fields)
        self.of_request = _of_every_pair(of_request, products.request_fields)

    def fields(
        self, history: tuple[Tensor, Tensor], context: Tensor, user: Tensor
    ) -> Tensor:
        """Return the request's fields (B, K, P).

        Of the ``history``'s values (B, S, D) and their mask, the ``context`` (B, C) and the
        user's fields (B, (K - 2) P), which are projected already.
        """
        fields = [self.history(masked_mean(*history)), self.context(context), user]
        return torch.cat(fields, dim=1).reshape(context.shape[0], -1, PRODUCT_WIDTH)

    def forward(self, theirs: Tensor, items: Tensor, request: Tensor, batch: int) -> Tensor:
        """Return ``theirs`` (B T, H) with the products of ``items`` (B T, I P) added."""
        turned = request.transpose(1, 2)  # (B, P, K)
        own = (request @ turned).flatten(1) @ self.of_request  # (B, H)
        both = items.reshape(batch, -1, PRODUCT_WIDTH) @ turned  # (B, T I, K)
        theirs = torch.addmm(theirs, both.reshape(-1, len(self.of_both)), self.of_both)
        if self.items > 1:
            each = items.reshape(-1, self.items, PRODUCT_WIDTH)  # (B T, I, P)
            alone = (each @ each.transpose(1, 2)).flatten(1)  # (B T, I I)
            theirs = torch.addmm(theirs, alone, self.of_item)
        width = theirs.shape[1]
        added: Tensor = theirs.reshape(batch, -1, width) + own[:, None]
        return added.reshape(-1, width)


def _of_every_pair(weight: Tensor, fields: int) -> Tensor:
    """Return the ``weight`` (F (F - 1) / 2, H) of F fields for all pairs (F F, H).

    Zeros for a field with itself, and for a pair the other way round.
    """
    each = torch.zeros(fields, fields, weight.shape[1])
    each[pairs(fields)] = weight
    return each.flatten(0, 1)


def user_weight(products: FieldProducts) -> Tensor:
    """Return the projection (V, (K - 2) P) of the user's attributes side by side."""
    own = products.user.weight.t().contiguous()
    return torch.kron(torch.eye(products.request_fields - 2), own)
