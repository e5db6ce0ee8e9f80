"""Pre-trained encoder → the files that retrieve candidates: the next item, and all items.

In: the model as pre-training left it, before it learned clicks, and the items that it
knows. Out: ``retriever.onnx``, which appends a [MASK] to a history and returns its state;
``items.safetensors``: each item's output vector, whose product with that state is
pre-training's logit of the item, its id, and how often it occurred; and ``products.onnx``,
which estimates that product of all items.

Shapes: V known items, L history, D width.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from srp4ctr.features.bundles import bundle
from srp4ctr.features.tensors.schema import ENCODER_INPUTS, NEXT_ITEM_TENSORS
from srp4ctr.features.tensors.vocabulary import MASK_ROW
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.cache import Catalogue
from srp4ctr.training.export.onnx_export import OPSET, export_onnx, sample
from srp4ctr.training.export.serving_graph import ServingEncoder
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.pretraining import MaskedHeads

_ITEMS_AT_ONCE = 100_000
_BLOCK, _GREATEST = 32, 7  # numbers that share a scale, and the largest of their codes


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
    """Write the files of retrieval into ``folder``."""
    export_onnx(
        Retriever(pretrained.model),
        sample(sizes, requests=2, candidates=1),
        ENCODER_INPUTS,
        NEXT_ITEM_TENSORS,
        folder / bundle.RETRIEVER_FILE,
    )
    vectors = item_vectors(pretrained, catalogue.attribute_rows)
    write_products(vectors, folder / bundle.PRODUCTS_FILE)
    save_file(
        {
            "vectors": vectors,
            "id_letters": np.array(catalogue.id_letters),
            "id_ends": np.array(catalogue.id_ends),
            "counts": np.array(catalogue.counts),
        },
        folder / bundle.ITEMS_FILE,
    )


def write_products(vectors: NDArray[np.float32], path: Path) -> None:
    """Write a graph: a state (1, D + 1) → about its products with ``vectors``, (1, V).

    Four bits a number, and a scale for ``_BLOCK`` of them: 40 bytes an item of width 64.
    State and items are turned first by one matrix, which keeps products: the random
    rotation makes the numbers of a block about equally great (as in QuIP, Chee et al.
    2023).
    """
    turn = _turn(vectors)
    codes, scales = _four_bits(vectors, turn)
    constants = {"turn": turn, "codes": codes, "scales": scales.ravel()}
    node, value, number = (
        onnx.helper.make_node,
        onnx.helper.make_tensor_value_info,
        onnx.TensorProto.FLOAT,
    )
    [spec] = NEXT_ITEM_TENSORS
    multiply = node(
        "MatMulNBits",
        ["turned", "codes", "scales"],
        ["products"],
        domain="com.microsoft",
        K=turn.shape[1],
        N=len(vectors),
        bits=4,
        block_size=_BLOCK,
        accuracy_level=4,  # the state in eight bits
    )
    graph = onnx.helper.make_graph(
        [node("MatMul", [spec.name, "turn"], ["turned"]), multiply],
        "products",
        [value(spec.name, number, ["B", len(turn)])],
        [value("products", number, ["B", len(vectors)])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [
        onnx.helper.make_opsetid("", OPSET),
        onnx.helper.make_opsetid("com.microsoft", 1),
    ]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


def _four_bits(
    vectors: NDArray[np.float32], turn: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the turned vectors as ``MatMulNBits`` reads them, and their blocks' scales."""
    blocks = turn.shape[1] // _BLOCK
    codes = np.empty((len(vectors), blocks, _BLOCK // 2), dtype=np.uint8)
    scales = np.empty((len(vectors), blocks), dtype=np.float32)
    for start in range(0, len(vectors), _ITEMS_AT_ONCE):
        part = slice(start, start + _ITEMS_AT_ONCE)
        turned = (vectors[part] @ turn).reshape(-1, blocks, _BLOCK)
        scales[part] = np.maximum(np.abs(turned).max(axis=-1), 1e-9) / _GREATEST
        numbers = np.rint(turned / scales[part][..., None]).astype(np.int8)
        numbers += _GREATEST + 1
        low, high = numbers[..., ::2].view(np.uint8), numbers[..., 1::2].view(np.uint8)
        codes[part] = low | high << 4
    return codes, scales


def _turn(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a matrix (D + 1, K) that keeps products; K is D, filled up to whole blocks.

    Where D fills them already, it leaves out the axis along which the items differ least:
    a block more for one number would cost half as much again.
    """
    width = -(-(vectors.shape[1] - 1) // _BLOCK) * _BLOCK
    _, axes = np.linalg.eigh((vectors.T @ vectors).astype(np.float64))
    kept = axes[:, -width:]  # in the order of how much the items differ
    noise = np.random.default_rng(0).standard_normal((width, width))
    rotation, _ = np.linalg.qr(noise)
    return np.asarray(kept @ rotation[: kept.shape[1]], dtype=np.float32)


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
        state = self.encoder.prediction(*appended)
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
