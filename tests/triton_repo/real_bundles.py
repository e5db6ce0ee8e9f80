"""A bundle of a small model with random weights, exported as training exports it."""

from pathlib import Path

import torch

from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.features.tensors import vocabulary
from srp4ctr.features.tensors.fingerprint import fingerprint
from srp4ctr.streams.state.sequences import EXPOSURE_LENGTH
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.export import onnx_export
from srp4ctr.training.export.bundle_writer import sizes_of
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from tests.triton_repo.tiny_graphs import L

MODEL = ModelConfig(width=8, num_queries=2, head_width=8)


def a_bundle(folder: Path, words: vocabulary.Vocabulary) -> Path:
    """Write a bundle of a model with random weights, as training would."""
    folder.mkdir(parents=True)
    torch.manual_seed(1)
    tables = TableSizes.of(words, L)
    model = SRP4CTR(MODEL, tables).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases begin as zeros
            parameter.add_(torch.randn_like(parameter) * 0.2)
        if model.user_fields is not None:
            for table in (model.user_fields.vectors, model.user_fields.biases):
                table.weight[0] = 0.0
    sizes = sizes_of(MODEL, tables)
    onnx_export.export(model, sizes, folder)
    golden = onnx_export.sample(sizes, requests=2, candidates=3)
    onnx_export.write_golden(model, {n: t.numpy() for n, t in golden.items()}, folder)
    vocabulary.save(words, folder / bundle.VOCABULARY_FILE)
    card = BundleManifest(
        version=folder.name,
        created_at_ms=1,
        sizes=sizes | {"W": EXPOSURE_LENGTH},
        schema_fingerprint=fingerprint(sizes),
    )
    bundle.write_card(folder, card)
    bundle.write_manifest(folder)
    return folder
