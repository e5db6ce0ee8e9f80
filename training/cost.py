"""What inference costs: FLOPs of a request, folded and unfolded, counted and by formula.

In: a model. Out: a cost card, which travels in the bundle. The paper's two measures are
the cost at one candidate and at a hundred. A multiply and an add are two FLOPs; softmax,
LayerNorm and element-wise work are left out, by the counter and by the formula alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from srp4ctr.features.schema import (
    CANDIDATE_FEATURES,
    CANDIDATE_TENSORS,
    CONTEXT_SLOTS,
    HISTORY_TENSORS,
    REQUEST_FEATURES,
    REQUEST_TENSORS,
)
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.context import CONTEXT_WIDTH
from srp4ctr.training.model.embeddings import FIELD_SIZES, FIELD_WIDTH, TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR

CANDIDATES = 100  # of a request, as in the paper


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCost:
    """FLOPs of one request with K candidates."""

    encoder: int
    """One encoding of the history."""
    head: int
    """The rest: the querying transformer once, and K candidates."""
    unfolded: int
    """The whole model anew for each candidate."""

    @property
    def folded(self) -> int:
        """One encoding, shared by all candidates."""
        return self.encoder + self.head


def sizes_of(config: ModelConfig, tables: TableSizes) -> dict[str, int]:
    """Return the numbers of the schema's symbols for a model of these sizes."""
    return {
        "L": tables.length,
        "S": tables.length + 1,
        "D": config.width,
        "E": config.num_layers,
        "M": config.num_queries if config.use_querying else 1,
        "A": tables.attribute_slots,
        "X": CONTEXT_SLOTS,
        "R": len(REQUEST_FEATURES),
        "C": len(CANDIDATE_FEATURES),
    }


@torch.no_grad()
def count(model: SRP4CTR, sizes: Mapping[str, int], candidates: int) -> RequestCost:
    """Return the counted FLOPs of one request with so many candidates."""
    model.eval()
    one = sample(sizes, requests=1, candidates=candidates)
    tiled = sample(sizes, requests=candidates, candidates=1)
    with FlopCounterMode(display=False) as encoding:
        states = model.encode(one)
    with FlopCounterMode(display=False) as scoring:
        model.score({**one, **states})
    with FlopCounterMode(display=False) as everything:
        model.score({**tiled, **model.encode(tiled)})
    return RequestCost(
        encoder=encoding.get_total_flops(),
        head=scoring.get_total_flops(),
        unfolded=everything.get_total_flops(),
    )


def formula(config: ModelConfig, tables: TableSizes, candidates: int) -> RequestCost:
    """Return the same by arithmetic, from the sizes alone.

    Multiply-adds, with T = L + 1 states, K candidates, N layers, M queries, P the joined
    fields' width (G of it the item's), V = 2 D + G + C, h the head's width, r = h / 2::

        encoder   = L P D + N (12 T D^2 + 2 T^2 D)
        querying  = R D + (14 M + 2 T) D^2 + 2 M^2 D + 2 M T D
        candidate = P D + N (10 D^2 + 2 T D) + V h + crosses 4 h r + 2 h h + h r + 2 h + r
        matching  = P D + N (10 D^2 + 2 T D) once, (I + 1) D a candidate

    I is the width of what of P tells the item.
    """
    d, n, m, h = config.width, config.num_layers, config.num_queries, config.head_width
    length, states, rank = tables.length, tables.length + 1, config.head_width // 2
    joined = d + tables.attribute_width + len(FIELD_SIZES) * FIELD_WIDTH
    encoded = 1 + config.num_spans
    request = len(REQUEST_FEATURES) * encoded + CONTEXT_WIDTH
    encoder = length * joined * d + n * (12 * states * d**2 + 2 * states**2 * d)
    querying = request * d + (14 * m + 2 * states) * d**2
    querying += 2 * m**2 * d + 2 * m * states * d + (m * d + request) * h
    if not config.use_querying:
        querying = (d + request) * h
    seen = 2 * d + 1 + tables.attribute_width + len(CANDIDATE_FEATURES) * encoded
    crossing = n * (10 * d**2 + 2 * states * d) if config.use_cross_attention else 0
    querying += joined * d + crossing  # a [MASK] among the candidates
    candidate = joined * d + crossing + (d + tables.attribute_width + 1) * d + seen * h
    candidate += config.num_cross_layers * 4 * h * rank + 2 * h * h + h * rank
    candidate += 2 * h + rank
    return RequestCost(
        encoder=2 * encoder,
        head=2 * (querying + candidates * candidate),
        unfolded=2 * candidates * (encoder + querying + candidate),
    )


def card(config: ModelConfig, tables: TableSizes) -> dict[str, float]:
    """Return the bundle's cost card: FLOPs of a request, at 1 and at 100 candidates.

    ``folded_flops`` and ``unfolded_flops`` are at 100. By the formula, to which a test
    holds the counter exactly: the counter's first use costs 7 s of imports.
    """
    one, hundred = formula(config, tables, 1), formula(config, tables, CANDIDATES)
    return {
        "encoder_flops": float(hundred.encoder),
        "head_flops_per_1": float(one.head),
        "head_flops_per_100": float(hundred.head),
        "folded_flops": float(hundred.folded),
        "unfolded_flops": float(hundred.unfolded),
        "folded_flops_per_1": float(one.folded),
        "unfolded_flops_per_1": float(one.unfolded),
    }


def sample(
    sizes: Mapping[str, int], *, requests: int, candidates: int
) -> dict[str, Tensor]:
    """Return the model's inputs, all of row 1, of the right shapes."""
    known = {**sizes, "N": candidates}
    kinds = {"int64": torch.int64, "float32": torch.float32}
    return {
        spec.name: torch.ones((requests, *spec.dims(known)), dtype=kinds[spec.dtype])
        for spec in (*HISTORY_TENSORS, *REQUEST_TENSORS, *CANDIDATE_TENSORS)
    }
