"""Trained model → bundle: its files in a folder that appears whole or not at all.

In: an evaluated model and what it was trained on. Out: a folder in ``bundles_dir``. It is
made in the folder of the checkpoints and moved to its place last: a killed process leaves
nothing that looks like a bundle.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch.utils.flop_counter import FlopCounterMode

from srp4ctr.features import columns
from srp4ctr.features.bundles import bundle, drift_reference
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.features.bundles.bundle_items import ids_of
from srp4ctr.features.bundles.gates import SCORE_TOLERANCES, Gate
from srp4ctr.features.tensors import vocabulary
from srp4ctr.features.tensors.fingerprint import fingerprint
from srp4ctr.features.tensors.schema import CONTEXT_SLOTS
from srp4ctr.features.tensors.vocabulary import FIRST_OOV_ROW
from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.dataset.batches import (
    HISTORY_NAMES,
    Slates,
    torch_rows,
)
from srp4ctr.training.dataset.cache import Catalogue, TrainingSet
from srp4ctr.training.evaluation.evaluate import Scored, served_probabilities
from srp4ctr.training.export import onnx_export, retrieval
from srp4ctr.training.export.onnx_export import sample
from srp4ctr.training.export.retrieval import Pretrained
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.model.transformer import num_states

GOLDEN_REQUESTS = 8  # enough to meet padding, unknown items and short histories
UNFINISHED = "unfinished"  # of the refresh that is running, or was cut off


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model after its training."""

    model: SRP4CTR
    pretrained: Pretrained | None
    """Predicts items, for retrieval; None where pre-training does not."""


def export_bundle(
    trained: Trained,
    dataset: TrainingSet,
    judged: Scored,
    config: RefreshConfig,
    card: BundleManifest,
) -> BundleManifest:
    """Write the bundle's files into the folder of unfinished files; return its manifest.

    That is ``card`` with sizes, costs and one more gate. ``ArtifactError`` if the exported
    model's outputs differ from torch's.
    """
    model, folder = trained.model, _emptied(staged(config, card.version))
    sizes = sizes_of(config.model, TableSizes.of(dataset.vocabulary, dataset.length))
    onnx_export.export(model, sizes, folder)
    if trained.pretrained is not None and dataset.catalogue is not None:
        retrieval.export(trained.pretrained, dataset.catalogue, sizes, folder)
    bundle.write_golden_items(folder, golden_items(dataset.catalogue))
    golden = golden_requests(dataset.parts.judge)
    onnx_export.write_golden(model, golden, folder)
    vocabulary.save(dataset.vocabulary, folder / bundle.VOCABULARY_FILE)
    _write_reference(dataset, judged, folder)
    card = replace(
        card,
        schema_fingerprint=fingerprint(sizes),
        sizes=sizes | {"W": dataset.exposure_length},
        cost=cost_card(model, sizes),
        gates=(*card.gates, exported_gate(folder, golden)),
    )
    bundle.write_card(folder, card)
    bundle.write_manifest(folder)
    return card


def exported_gate(folder: Path, golden: Mapping[str, NDArray[Any]]) -> Gate:
    """Compare the exported files' answers to ``golden`` with torch's, in ``folder``.

    Raises ``ArtifactError`` where they differ by more than is accepted.
    """
    answered = onnx_export.scorer(folder)(golden)
    return Gate(
        gate="exported",
        passed=True,  # check raises otherwise
        value=onnx_export.check(load_file(folder / bundle.GOLDEN_FILE), answered),
        limit=SCORE_TOLERANCES["click_probability"],
        note="greatest difference of a probability, ONNX against torch",
    )


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)  # of a refresh that was killed here
    folder.mkdir(parents=True)
    return folder


def _write_reference(dataset: TrainingSet, judged: Scored, folder: Path) -> None:
    """Write what requests and scores look like at the end of training."""
    slates = dataset.parts.judge
    words = dataset.vocabulary
    reference = drift_reference.reference_of(
        slates.tensors,
        words.is_known(slates.tensors["candidate_item_rows"]),
        slates.shown,
        served_probabilities(slates, judged),
        words.candidate_columns.layout.names,
    )
    drift_reference.write_reference(folder, reference)


def unfinished(config: RefreshConfig) -> Path:
    """Return the folder of examples, checkpoints and the bundle that is being made."""
    return Path(config.bundles_dir) / UNFINISHED


def staged(config: RefreshConfig, version: str) -> Path:
    """Return where the bundle of ``version`` is made."""
    return unfinished(config) / version


def golden_requests(slates: Slates) -> dict[str, NDArray[Any]]:
    """Return the first few of ``slates`` as serving sends them, and odd ones among them.

    The first has no history, the last an unknown item; short slates bring padding.
    """
    rows = np.arange(min(GOLDEN_REQUESTS, len(slates)))
    tensors = torch_rows(slates.tensors, rows, torch.device("cpu"))
    golden = {name: array.numpy().copy() for name, array in tensors.items()}
    for name in HISTORY_NAMES:
        golden[name][0] = 0
    golden["candidate_item_rows"][-1, 0] = FIRST_OOV_ROW
    golden["candidate_attribute_rows"][-1, 0] = 0
    return golden


def golden_items(catalogue: Catalogue | None) -> list[str]:
    """Return the ids of some known items: the first row, the last, and others between."""
    if catalogue is None or not len(catalogue.id_ends):
        return []
    rows = np.linspace(0, len(catalogue.id_ends) - 1, GOLDEN_REQUESTS).round()
    letters: dict[str, NDArray[Any]] = {
        "id_ends": catalogue.id_ends,
        "id_letters": catalogue.id_letters,
    }
    return [each.decode() for each in ids_of(letters, np.unique(rows).astype(np.int64))]


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
    of_users = {"U": tables.user_slots} if tables.user_fields else {}
    of_numbers = {"J": tables.number_width} if tables.number_width else {}
    return {
        **of_users,
        **of_numbers,
        "L": tables.length,
        "S": num_states(config, tables.length),
        "D": config.width,
        "E": config.num_layers,
        "M": config.num_queries,
        "A": tables.attribute_slots,
        "X": CONTEXT_SLOTS,
        "R": columns.REQUEST.width,
        "C": tables.candidate_width,
    }


@torch.no_grad()
def count_flops(model: SRP4CTR, sizes: Mapping[str, int], candidates: int) -> RequestCost:
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


def cost_card(model: SRP4CTR, sizes: Mapping[str, int]) -> dict[str, float]:
    """Return the bundle's cost card: FLOPs of a request, at 1 and at 100 candidates.

    ``folded_flops`` and ``unfolded_flops`` are at 100.
    """
    one, hundred = count_flops(model, sizes, 1), count_flops(model, sizes, CANDIDATES)
    return {
        "encoder_flops": float(hundred.encoder),
        "head_flops_per_1": float(one.head),
        "head_flops_per_100": float(hundred.head),
        "folded_flops": float(hundred.folded),
        "unfolded_flops": float(hundred.unfolded),
        "folded_flops_per_1": float(one.folded),
        "unfolded_flops_per_1": float(one.unfolded),
    }
