"""A tiny model and random inputs of the schema's shapes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from srp4ctr.features.tensors.item_fields import places
from srp4ctr.features.tensors.schema import NUM_CONTEXT_ROWS, Field
from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.dataset.batches import EXAMPLE_NAMES, HISTORY_NAMES, Slates, Windows
from srp4ctr.training.export.bundle_writer import sizes_of
from srp4ctr.training.export.onnx_export import sample
from srp4ctr.training.model.embeddings import FIELD_SIZES, TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR

LENGTH = 6
TINY = ModelConfig(width=8, num_queries=2, head_width=8, dropout=0.1)
FIELDS = (
    Field(name="brand", kind="categorical", size=3),
    Field(name="genres", kind="multi", size=5, slots=3),
    Field(name="price", kind="numeric", size=4),
)
SIZES = TableSizes(item_rows=40, item_fields=FIELDS, length=LENGTH)
RECIPE = RefreshConfig(
    model=TINY, pretrain_epochs=2, finetune_epochs=2, batch_users=8, batch_requests=8
)


@pytest.fixture
def a_model() -> SRP4CTR:
    """A model with random weights, ready to serve."""
    torch.manual_seed(0)
    model = SRP4CTR(TINY, SIZES)
    with torch.no_grad():
        for parameter in model.parameters():  # zeros would hide a wrong shape
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


@pytest.fixture
def requests_of() -> Callable[..., dict[str, Tensor]]:
    """Return a maker of random requests: histories of several lengths, one empty."""
    return random_requests


def random_requests(count: int = 4, candidates: int = 5) -> dict[str, Tensor]:
    """Return ``count`` requests; the first has no history, the second a full one."""
    torch.manual_seed(0)
    tensors = sample(sizes_of(TINY, SIZES), requests=count, candidates=candidates)
    limits = {
        "history_item_rows": SIZES.item_rows,
        "context_rows": NUM_CONTEXT_ROWS,
        "candidate_item_rows": SIZES.item_rows,
    }
    for name, limit in limits.items():
        tensors[name] = torch.randint(2, limit, tensors[name].shape)
    for name in ("history_attribute_rows", "candidate_attribute_rows"):
        for place in places(FIELDS):
            first, shape = place.first_row, tensors[name][..., place.slots].shape
            drawn = torch.randint(first, first + place.field.size, shape)
            tensors[name][..., place.slots] = drawn
    for field, size in enumerate(FIELD_SIZES):
        shape = tensors["history_item_rows"].shape
        tensors["history_behavior_codes"][..., field] = torch.randint(1, size, shape)
    for name in ("request_features", "candidate_features"):
        tensors[name] = torch.randn(tensors[name].shape)
    for request in range(count):
        empty = LENGTH - (0 if request == 0 else max(LENGTH + 1 - request, 1))
        for name in HISTORY_NAMES:
            tensors[name][request, :empty] = 0
    return tensors


def random_slates(count: int = 40, candidates: int = 5) -> Slates:
    """Return slates whose clicks follow from the candidate's item and the history."""
    tensors = random_requests(count, candidates)
    arrays = {name: tensors[name].numpy() for name in EXAMPLE_NAMES}
    liked = arrays["candidate_item_rows"] % 2 == 0
    return Slates(
        tensors=arrays,
        clicked=liked.astype(np.float32),
        positions=np.tile(np.arange(candidates), (count, 1)),
        log_draw=np.zeros((count, candidates), dtype=np.float32),
        request_at_ms=np.arange(count, dtype=np.int64),
        user_ids=np.array([f"u{i % 7}" for i in range(count)]),
    )


def random_windows(count: int = 24) -> Windows:
    """Return windows of random behaviours."""
    tensors = random_requests(count)
    return Windows(tensors={name: tensors[name].numpy() for name in HISTORY_NAMES})


@pytest.fixture
def slates() -> Slates:
    """Forty slates of five."""
    return random_slates()


@pytest.fixture
def windows() -> Windows:
    """Twenty-four windows."""
    return random_windows()


@pytest.fixture
def recipe() -> RefreshConfig:
    """Two epochs of each stage of a tiny model."""
    return RECIPE


@pytest.fixture
def sizes() -> TableSizes:
    """The sizes of the tiny model."""
    return SIZES
