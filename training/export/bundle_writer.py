"""Trained model → bundle: its files in a folder that appears whole or not at all.

In: an evaluated model and what it was trained on. Out: a folder in ``bundles_dir``. It is
made in the folder of the checkpoints and moved to its place last: a killed process leaves
nothing that looks like a bundle.
"""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from srp4ctr.features.bundles import bundle, drift_reference
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.features.bundles.gates import Gate
from srp4ctr.features.tensors import vocabulary
from srp4ctr.features.tensors.vocabulary import FIRST_OOV_ROW
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import (
    EXAMPLE_NAMES,
    HISTORY_NAMES,
    Slates,
    torch_rows,
)
from srp4ctr.training.dataset.build import TrainingSet
from srp4ctr.training.evaluation.evaluate import Evaluation
from srp4ctr.training.export import flops, onnx_export
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.refresh import reports
from srp4ctr.training.refresh.reports import RefreshReport

GOLDEN_REQUESTS = 8  # enough to meet padding, unknown items and short histories
UNFINISHED = "unfinished"  # of the refresh that is running, or was cut off


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The origin of a bundle: fields of its manifest."""

    recipe: str
    parent: str
    window_start_ms: int


def export_bundle(
    model: SRP4CTR,
    dataset: TrainingSet,
    evaluation: Evaluation,
    config: RefreshConfig,
    origin: Origin,
) -> BundleManifest:
    """Write the bundle's files into the folder of unfinished files; return its manifest.

    ``ValueError`` if the exported model's outputs differ from torch's.
    """
    version = bundle.next_version(Path(config.bundles_dir))
    folder = staged(config, version)
    shutil.rmtree(folder, ignore_errors=True)  # of a refresh that was killed here
    folder.mkdir(parents=True)
    tables = TableSizes.of(dataset.vocabulary, dataset.length)
    sizes = flops.sizes_of(config.model, tables)
    onnx_export.export(model, sizes, folder)
    golden = golden_requests(dataset.parts.judge)
    onnx_export.write_golden(model, golden, folder)
    answered = onnx_export.run_onnx(folder, golden)
    worst = onnx_export.check(load_file(folder / bundle.GOLDEN_FILE), answered)
    vocabulary.save(dataset.vocabulary, folder / bundle.VOCABULARY_FILE)
    drift_reference.write_reference(folder, _reference(dataset, evaluation))
    evaluation = replace(evaluation, gates=(*evaluation.gates, _exported_gate(worst)))
    card = replace(
        _evaluated_card(version, dataset, evaluation),
        sizes=sizes | {"W": dataset.exposure_length},
        cost=flops.card(model, sizes),
        window_start_ms=origin.window_start_ms,
        parent=origin.parent,
        recipe=origin.recipe,
    )
    bundle.write_card(folder, card)
    bundle.write_manifest(folder)
    return card


def _reference(dataset: TrainingSet, evaluation: Evaluation) -> drift_reference.Reference:
    """Return the distributions of the evaluation slates, the reference of drift."""
    slates = dataset.parts.judge
    is_known = dataset.vocabulary.is_known(slates.tensors["candidate_item_rows"])
    scores = evaluation.judged.probabilities
    return drift_reference.reference_of(slates.tensors, is_known, slates.shown, scores)


def _evaluated_card(
    version: str, dataset: TrainingSet, evaluation: Evaluation
) -> BundleManifest:
    return BundleManifest(
        version=version,
        created_at_ms=time.time_ns() // 1_000_000,
        sizes={},
        window_end_ms=int(dataset.parts.judge.request_at_ms[-1]),
        boundary_ms=dataset.boundary_ms,
        calibration_scale=evaluation.calibration.scale,
        calibration_bias=evaluation.calibration.bias,
        metrics=evaluation.metrics,
        counts=dataset.counts,
        gates=evaluation.gates,
    )


def publish(report: RefreshReport, config: RefreshConfig) -> None:
    """Move the exported bundle with its ``report`` to its place; drop the checkpoints."""
    folder = staged(config, report.version)
    reports.write(replace(report, folder=folder))
    folder.rename(report.folder)
    shutil.rmtree(folder.parent, ignore_errors=True)


def unfinished(config: RefreshConfig) -> Path:
    """Return the folder of examples, checkpoints and the bundle that is being made."""
    return Path(config.bundles_dir) / UNFINISHED


def staged(config: RefreshConfig, version: str) -> Path:
    """Return where the bundle of ``version`` is made."""
    return unfinished(config) / version


def _exported_gate(worst: float) -> Gate:
    return Gate(
        gate="exported",
        passed=True,  # export.check has raised otherwise
        value=worst,
        limit=onnx_export.TOLERANCE,
        note="greatest difference of a probability, ONNX against torch",
    )


def golden_requests(slates: Slates) -> dict[str, NDArray[Any]]:
    """Return the first few of ``slates`` as serving sends them, and odd ones among them.

    The first has no history, the last an unknown item; short slates bring padding.
    """
    rows = np.arange(min(GOLDEN_REQUESTS, len(slates)))
    tensors = torch_rows(slates.tensors, rows, torch.device("cpu"))
    golden = {name: tensors[name].numpy().copy() for name in EXAMPLE_NAMES}
    for name in HISTORY_NAMES:
        golden[name][0] = 0
    golden["candidate_item_rows"][-1, 0] = FIRST_OOV_ROW
    golden["candidate_attribute_rows"][-1, 0] = 0
    return golden
