"""Fields of a candidate and of its request → the inner products of all their pairs.

A product says from the first batch on how well two values go together, where the crosses
of the head must find it in sums of all fields. It pays with few labels, where users have
attributes; a model without any has no products.

Serving computes the products of a request's own fields once for all its candidates, and
reads of the products what the head does: ``FoldedProducts``.

Shapes: B requests, N candidates, T candidates of any kind, S states, D width, C the
context's, H the head's, V the user fields' widths together; I item fields and K fields of a
request, F = I + K, P a field's width.
"""

import torch
from torch import Tensor, nn

from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.embeddings import (
    CONTEXT_WIDTH,
    ITEM_FIELD_WIDTH,
    USER_FIELD_WIDTH,
    TableSizes,
)

PRODUCT_WIDTH = ITEM_FIELD_WIDTH
"""P. Vectors of another width are projected; an item's attributes have this one."""


class FieldProducts(nn.Module):
    """The inner products of a product-based network (Qu et al., PNN, ICDM 2016).

    An item's fields are its id and each of its attributes; a request's are the mean of
    what was encoded of its history, its context and each of its user's attributes.
    """

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__()
        self.item_fields = 1 + len(sizes.item_fields)
        """I."""
        self.request_fields = 2 + len(sizes.user_fields)
        """K."""
        self.widths = product_counts(sizes)
        self.item, self.history, self.context, self.user = (
            nn.Linear(width, PRODUCT_WIDTH, bias=False)
            for width in (config.width, config.width, CONTEXT_WIDTH, USER_FIELD_WIDTH)
        )

    def forward(
        self,
        item: tuple[Tensor, Tensor],
        request: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """Return the products (B, N, F (F - 1) / 2).

        ``item`` are the candidates' ids' vectors (B, N, D) and their attributes' (B, N,
        (I - 1) P); ``request`` the history's mean (B, D), the context (B, C) and the user's
        attributes (B, V).
        """
        theirs = torch.cat([self.item(item[0]), item[1]], dim=-1)
        shape = *theirs.shape[:2], self.item_fields, PRODUCT_WIDTH  # (B, N, I, P)
        theirs = theirs.reshape(shape)
        ours = self.fields(*request)
        both = theirs @ ours[:, None].transpose(-1, -2)  # (B, N, I, K)
        own = _of_pairs(ours)[:, None].expand(-1, both.shape[1], -1)
        return torch.cat([both.flatten(2), _of_pairs(theirs), own], dim=-1)

    def fields(self, history: Tensor, context: Tensor, user: Tensor) -> Tensor:
        """Return the request's fields (B, K, P)."""
        fields = user.shape[1] // USER_FIELD_WIDTH
        of_user = self.user(user.reshape(len(user), fields, USER_FIELD_WIDTH))
        others = [self.history(history)[:, None], self.context(context)[:, None]]
        return torch.cat([*others, of_user], dim=1)


def product_counts(sizes: TableSizes) -> list[int]:
    """Return how many products there are: of both, of an item and of a request alone."""
    items, request = 1 + len(sizes.item_fields), 2 + len(sizes.user_fields)
    alone = (fields * (fields - 1) // 2 for fields in (items, request))
    return [items * request, *alone]


def pairs(fields: int) -> tuple[Tensor, Tensor]:
    """Return the first and the second of each pair of ``fields``."""
    first, second = torch.triu_indices(fields, fields, 1)
    return first, second


def _of_pairs(fields: Tensor) -> Tensor:
    """Return the products (…, F (F - 1) / 2) of ``fields`` (…, F, P) with one another."""
    first, second = pairs(fields.shape[-2])
    products: Tensor = (fields @ fields.transpose(-1, -2))[..., first, second]
    return products


def masked_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """Return the mean (B, D) of ``vectors`` (B, S, D) where ``mask`` (B, S) is 1.

    Zeros where it is 1 nowhere.
    """
    summed = (mask[:, None] @ vectors).squeeze(1)
    mean: Tensor = summed / mask.sum(-1, keepdim=True).clamp(min=1.0)
    return mean


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
