"""What inference costs: FLOPs of a request, encoded once or once per candidate.

In: a model. Out: a cost card, which travels in the bundle. The paper's two measures are
the cost at one candidate and at a hundred. Torch's counter counts them: a multiply and an
add are two FLOPs; softmax, LayerNorm and element-wise work are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from srp4ctr.features.tensors.schema import (
    CANDIDATE_FEATURES,
    CANDIDATE_TENSORS,
    CONTEXT_SLOTS,
    HISTORY_TENSORS,
    REQUEST_FEATURES,
    REQUEST_TENSORS,
)
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR

CANDIDATES = 100  # of a request, as in the paper


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCost:
    """FLOPs of one request with K candidates."""

    encoder: int
    """One encoding of the history."""
    head: int
    """The querying transformer once, and K candidates."""
    unfolded: int
    """The whole model again for each candidate."""

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
    """Return the counted FLOPs of one request with ``candidates`` candidates."""
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


def card(model: SRP4CTR, sizes: Mapping[str, int]) -> dict[str, float]:
    """Return the bundle's cost card: FLOPs of a request, at 1 and at 100 candidates.

    ``folded_flops`` and ``unfolded_flops`` are at 100.
    """
    one, hundred = count(model, sizes, 1), count(model, sizes, CANDIDATES)
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
