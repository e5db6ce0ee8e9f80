"""Pre-trained encoder → the files that retrieve candidates: the next item, and all items.

In: the model as pre-training left it, before it learned clicks, and the items that it
knows. Out: ``retriever.onnx``, which appends a [MASK] to a history and returns its state,
and ``items.safetensors``: each item's output vector, whose product with that state is
pre-training's logit of the item; its id, and how often it occurred.

Shapes: V known items, L history, D width.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from srp4ctr.features.bundles import bundle
from srp4ctr.features.tensors.schema import ENCODER_INPUTS, NEXT_ITEM_TENSORS
from srp4ctr.features.tensors.vocabulary import MASK_ROW
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.cache import Catalogue
from srp4ctr.training.export.onnx_export import export_onnx, sample
from srp4ctr.training.export.serving_graph import ServingEncoder
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.pretraining_heads import MaskedHeads

_ITEMS_AT_ONCE = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """A model that has learned which item comes next, and no clicks since."""

    model: SRP4CTR
    item_bias: Tensor

    @classmethod
    def of(
        cls, model: SRP4CTR, heads: MaskedHeads, config: RefreshConfig
    ) -> "Pretrained | None":
        """Return a copy of both; None where items are not predicted by whole histories."""
        if config.pretraining not in ("items", "both"):
            return None
        kept = copy.deepcopy(model).eval().requires_grad_(False).cpu()
        return cls(model=kept, item_bias=heads.item_bias.detach().clone().cpu())


def export(
    pretrained: Pretrained, catalogue: Catalogue, sizes: Mapping[str, int], folder: Path
) -> None:
    """Write both files of retrieval into ``folder``."""
    export_onnx(
        Retriever(pretrained.model),
        sample(sizes, requests=2, candidates=1),
        ENCODER_INPUTS,
        NEXT_ITEM_TENSORS,
        folder / bundle.RETRIEVER_FILE,
    )
    vectors = item_vectors(pretrained, catalogue.attribute_rows)
    save_file(
        {
            **(in_lists(vectors) if len(vectors) > MAX_EXACT else {"vectors": vectors}),
            "id_letters": np.array(catalogue.id_letters),
            "id_ends": np.array(catalogue.id_ends),
            "counts": np.array(catalogue.counts),
        },
        folder / bundle.ITEMS_FILE,
    )


MAX_EXACT = 200_000
"""Items up to which serving multiplies all vectors: it takes no longer than lists."""
_SAMPLE, _ROUNDS = 64, 6  # vectors a list, and turns, of k-means
_VECTORS_AT_ONCE = 20_000


@torch.no_grad()
def in_lists(
    vectors: NDArray[np.float32], seed: int = 0
) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
    """Return ``vectors`` parted into lists of near ones: see ``serving/nearest.py``.

    k-means on a sample; then each vector goes to its nearest centre.
    """
    count = 2 * math.isqrt(len(vectors))
    rng = np.random.default_rng(seed)
    sample = rng.permutation(len(vectors))[: _SAMPLE * count]
    known = torch.from_numpy(vectors[sample])
    centres = known[:count].clone()
    for _ in range(_ROUNDS):
        of = _nearest(known, centres)
        sums = torch.zeros_like(centres).index_add_(0, of, known)
        sizes = torch.bincount(of, minlength=count)[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
    of = _nearest(torch.from_numpy(vectors), centres)
    rows = torch.argsort(of, stable=True).numpy()
    return {
        "vectors": vectors[rows],
        "rows": rows,
        "list_ends": torch.bincount(of, minlength=count).cumsum(0).numpy(),
        "centres": centres.numpy(),
    }


def _nearest(vectors: Tensor, centres: Tensor) -> Tensor:
    """Return the nearest of ``centres`` (C, any) for each of ``vectors`` (n, any)."""
    half = (centres * centres).sum(1) / 2
    parts = torch.split(vectors, _VECTORS_AT_ONCE)
    return torch.cat([(part @ centres.T - half).argmax(1) for part in parts])


class Retriever(nn.Module):
    """The state of a [MASK] behind a history: what pre-training expects next."""

    def __init__(self, model: SRP4CTR) -> None:
        super().__init__()
        self.encoder = ServingEncoder(model)
        self.length = len(model.embedding.slots)
        self.mask_codes = model.embedding.mask_codes

    def forward(self, item_rows: Tensor, attribute_rows: Tensor, codes: Tensor) -> Tensor:
        """Return (B, D + 1) of (B, L), (B, L, A) and (B, L, F); the last number is 1.

        A full history loses its oldest behaviour.
        """
        masks = (
            torch.full_like(item_rows[:, :1], MASK_ROW),
            torch.full_like(attribute_rows[:, :1], MASK_ROW),
            torch.zeros_like(codes[:, :1]) + self.mask_codes,
        )
        given = (item_rows, attribute_rows, codes)
        appended = (
            torch.cat(pair, dim=1)[:, -self.length :]
            for pair in zip(given, masks, strict=True)
        )
        state: Tensor = self.encoder(*appended)[2][:, -1]
        return torch.cat([state, torch.ones_like(state[:, :1])], dim=1)


@torch.no_grad()
def item_vectors(
    pretrained: Pretrained, attribute_rows: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Return the known items' output vectors and biases (V, D + 1)."""
    first = len(pretrained.item_bias) - len(attribute_rows)
    parts = [np.zeros((0, pretrained.model.embedding.project.out_features + 1), np.float32)]
    for start in range(0, len(attribute_rows), _ITEMS_AT_ONCE):
        attributes = attribute_rows[start : start + _ITEMS_AT_ONCE].astype(np.int64)
        rows = torch.arange(first + start, first + start + len(attributes))
        of_items = rows, torch.from_numpy(attributes)
        vectors = pretrained.model.embedding.item_vectors(*of_items)
        bias = pretrained.item_bias[rows, None]
        parts.append(torch.cat([vectors, bias], dim=1).numpy())
    return np.concatenate(parts)
