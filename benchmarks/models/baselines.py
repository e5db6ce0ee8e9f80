"""The deep models that SRP4CTR is compared with; ``BASELINES`` lists them by name.

They share its tokens, counters, context and head, and differ in how they read a history.

Shapes: B requests, L history, N candidates, H heads, D width, F fields.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from benchmarks.models.baseline import Baseline
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.click_model import ClickModel, Tensors
from srp4ctr.training.model.embeddings import FieldVectors, TableSizes
from srp4ctr.training.model.products import FieldProducts, masked_mean, product_counts
from srp4ctr.training.model.transformer import TransformerLayer

_HIDDEN = -1e9  # added to the score of padding
_CO_ACTION = (16, 8, 4)  # widths of a candidate's network, as in its authors' code
_ORDERS = 3  # powers of what it reads


class DIN(Baseline):
    """The sum of the history's tokens, weighted again for each candidate.

    Deep Interest Network (Zhou et al., KDD 2018): the attention MLP reads [behaviour ;
    candidate ; difference ; product] through layers of 80 and 40; its weights are not
    normalised, so that a strong interest stays strong.
    """

    def __init__(self, config: ModelConfig, sizes: TableSizes, more_width: int = 0) -> None:
        super().__init__(config, sizes, reading_width=config.width + more_width)
        self.of_behavior = nn.Linear(config.width, 80)
        self.of_candidate = nn.Linear(config.width, 80)
        self.of_product = nn.Linear(config.width, 80, bias=False)
        self.narrow = nn.Sequential(
            nn.PReLU(), nn.Linear(80, 40), nn.PReLU(), nn.Linear(40, 1)
        )

    def readings(self, tensors: Tensors) -> list[Tensor]:
        """Return the weighted sums (B, N, D).

        A linear layer over [h ; c ; h - c ; h * c] is one over h, one over c and one over
        the product: the first is only the user's, computed once for all candidates.
        """
        history = self.history_tokens(tensors)  # (B, L, D)
        candidates = self.candidate_tokens(tensors)  # (B, N, D)
        product = history[:, None] * candidates[:, :, None]  # (B, N, L, D)
        hidden = self.of_product(product) + self.of_behavior(history)[:, None]
        hidden = hidden + self.of_candidate(candidates)[:, :, None]  # (B, N, L, 80)
        weights = self.narrow(hidden).squeeze(-1)  # (B, N, L)
        present = (tensors["history_item_rows"] != 0)[:, None]
        weights = torch.where(present, weights, 0.0)
        return [weights @ history]


class BST(Baseline):
    """The candidate's own state after self-attention over [history ; candidate].

    Behavior Sequence Transformer (Chen et al., 2019): each candidate joins the history as
    its last token, and its own state after one block, which its authors found best, is
    what the head reads. As published the states of the whole history are read as well,
    again for each candidate; here nothing else of the block is computed, and the history's
    keys and values once per request: BST at its cheapest.
    """

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        super().__init__(config, sizes, reading_width=config.width)
        self.block = TransformerLayer(config, with_keys=True)

    def readings(self, tensors: Tensors) -> list[Tensor]:
        """Return the candidates' states (B, N, D)."""
        history = self.history_tokens(tensors)  # (B, L, D)
        candidates = self.candidate_tokens(tensors)  # (B, N, D)
        valid = (tensors["history_item_rows"] != 0).to(history.dtype)
        block = self.block
        gathered = block.output(self._gathered(candidates, history, valid))
        states = block.attention_norm(candidates + block.dropout(gathered))
        widened = block.dropout(block.feed_forward(states))
        return [block.output_norm(states + widened)]

    def _gathered(self, candidates: Tensor, history: Tensor, valid: Tensor) -> Tensor:
        """Return what each candidate attends to of the history and itself (B, N, D)."""
        block = self.block
        queries, own_keys, own_values = (
            self._heads(project(candidates))
            for project in (block.query, block.key, block.value)
        )  # (B, H, N, D/H) each
        keys, values = self._heads(block.key(history)), self._heads(block.value(history))
        far = queries @ keys.transpose(-1, -2)  # (B, H, N, L)
        near = (queries * own_keys).sum(-1, keepdim=True)
        scores = torch.cat([far, near], dim=-1) / math.sqrt(queries.shape[-1])
        hidden = torch.nn.functional.pad((1.0 - valid) * _HIDDEN, (0, 1))
        weights = torch.softmax(scores + hidden[:, None, None], dim=-1)
        gathered = weights[..., :-1] @ values + weights[..., -1:] * own_values
        return gathered.transpose(1, 2).flatten(2)

    def _heads(self, states: Tensor) -> Tensor:
        """Return (B, T, D) as (B, H, T, D/H)."""
        rows, tokens, _ = states.shape
        return states.reshape(rows, tokens, self.block.heads, -1).transpose(1, 2)


class PNN(Baseline):
    """The inner products of all pairs of fields, and the mean of the history's tokens.

    Product-based Neural Network with inner products (Qu et al., ICDM 2016); SRP4CTR has
    the same products, of the mean of its encoder's values.
    """

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        width = config.width + sum(product_counts(sizes))
        super().__init__(config, sizes, reading_width=width)
        self.products = FieldProducts(config, sizes)

    def readings(self, tensors: Tensors) -> list[Tensor]:
        """Return the history's mean (B, N, D) and the products (B, N, F (F - 1) / 2)."""
        rows = tensors["candidate_item_rows"]
        attributes = self.embedding.attributes.means(tensors["candidate_attribute_rows"])
        shown = (tensors["history_item_rows"] != 0).float()
        mean = masked_mean(self.history_tokens(tensors), shown)  # (B, D)
        context = self.context(tensors["context_rows"])
        user = context[:, :0]
        if self.user_fields:
            user = self.user_fields(tensors["user_attribute_rows"])
        item, request = (self.embedding.items(rows), attributes), (mean, context, user)
        each = mean[:, None].expand(-1, rows.shape[1], -1)
        return [each, self.products(item, request)]


class CAN(DIN):
    """DIN, and small networks of each candidate's own, over the history's items.

    Co-Action Network (Bian et al., WSDM 2022), as its authors' code has it: rows of a table
    of parameters are the weights of two layers, 16 to 8 to 4, with tanh between them. They
    read vectors that are kept for this alone, their squares and cubes; the outputs of both
    layers are summed over the history. There is a network for the item, and one for each
    of its attributes.
    """

    def __init__(self, config: ModelConfig, sizes: TableSizes) -> None:
        read, hidden, made = _CO_ACTION
        networks = 1 + len(sizes.item_fields)
        more = networks * _ORDERS * (hidden + made)
        super().__init__(config, sizes, more_width=more)
        self.weights, self.acted_on = (
            nn.ModuleList(
                [
                    nn.Embedding(sizes.item_rows, width, padding_idx=0),
                    FieldVectors(sizes.item_fields, width),
                ]
            )
            for width in ((read + made) * hidden, read)
        )
        for table in (*self.weights, *self.acted_on):
            with torch.no_grad():  # a product of 16 of them is about 1 / 4
                table.weight *= read**-0.5

    def readings(self, tensors: Tensors) -> list[Tensor]:
        """Return DIN's (B, N, D) and the co-actions (B, N, 36) of each network."""
        weights = self._rows(self.weights, tensors, "candidate")
        acted_on = self._rows(self.acted_on, tensors, "history")
        pairs = zip(weights, acted_on, strict=True)
        return [*super().readings(tensors), *(_co_action(*pair) for pair in pairs)]

    def _rows(self, tables: nn.ModuleList, tensors: Tensors, of: str) -> list[Tensor]:
        """Return each network's part, (B, N or L, width), of candidates or histories."""
        items, attributes = tables
        found = [items(tensors[f"{of}_item_rows"])]
        if self.embedding.item_fields:
            means = attributes.means(tensors[f"{of}_attribute_rows"])  # type: ignore[operator]
            found += torch.split(means, found[0].shape[-1], dim=-1)
        return found


def _co_action(weights: Tensor, behaviors: Tensor) -> Tensor:
    """Return what networks (B, N, 160) make of behaviours (B, L, 16): (B, N, 36)."""
    read, hidden, made = _CO_ACTION
    candidates = weights.shape[:2]
    first, second = torch.split(weights, [read * hidden, hidden * made], dim=-1)
    first = first.reshape(*candidates, read, hidden)
    second = second.reshape(*candidates, hidden, made)
    outputs = []
    for order in range(1, _ORDERS + 1):
        inner = torch.tanh(behaviors[:, None] ** order @ first)  # padding gives zeros
        outputs += [inner.sum(-2), (inner @ second).sum(-2)]
    return torch.cat(outputs, dim=-1)


BASELINES: Mapping[str, Callable[[ModelConfig, TableSizes], ClickModel]] = {
    "dcnv2": Baseline,
    "pnn": PNN,
    "din": DIN,
    "can": CAN,
    "bst": BST,
}
