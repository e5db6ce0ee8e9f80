"""Adds the other forms of serving a bundle to a running Triton.

All have the same features: ``benchmarks/serving/serving.py`` says what each is.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from google.protobuf import text_format
from torch import Tensor, nn
from tritonclient.grpc import InferenceServerClient, model_config_pb2

from benchmarks.models import trees_onnx
from benchmarks.models.baselines import BASELINES
from srp4ctr.features.tensors import schema
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.export import onnx_export
from srp4ctr.training.model.click_model import ClickModel
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import model_config

PYTHON, TILED, DIN, TREES = FORMS = (
    "rank_in_python",
    "rank_tiled",
    "rank_din",
    "rank_lightgbm",
)
SHELLS = Path(__file__).parent / "shells"
WHOLE = "whole_scoring.py"
SCORINGS = {TILED: "tiled_scoring.py", DIN: WHOLE, TREES: WHOLE}


def add_forms(
    triton: TritonConfig, sizes: Mapping[str, int], words: Vocabulary, forms: Sequence[str]
) -> None:
    """Load ``forms``, each an ensemble, next to the bundle of ``words`` that is served."""
    limits = model_config.Limits(max_batch_size=triton.max_batch_size, sizes=sizes)
    repository = Path(triton.repository)
    served = next(repository.glob(f"{model_names.CLICK_RANKER}_v*"))
    parameters = _parameters(served)
    for name in forms:
        steps = model_config.one_step(name, parameters, triton.instances)
        (step,) = steps
        folder = repository / step.name
        shutil.copytree(served, folder)
        (folder / "config.pbtxt").write_text(model_config.step_text(step, limits))
        if name in SCORINGS:
            scoring = folder / "1" / "srp4ctr/triton_repo/serving/onnx_scorer.py"
            scoring.rename(folder / "1" / "served_scoring.py")
            shutil.copyfile(SHELLS / SCORINGS[name], scoring)
        if name == DIN:
            _export_din(sizes, words, folder / "whole.onnx")
        elif name == TREES:
            booster = trees_onnx.drawn_booster(sizes["C"])
            trees_onnx.export_trees(booster, folder / "whole.onnx")
        _place_ensemble(repository, name, steps, limits)
    with InferenceServerClient(triton.grpc) as client:
        for name in forms:
            client.load_model(name)


def _parameters(served: Path) -> dict[str, str]:
    """Return the parameters of the other forms' shells."""
    config = text_format.Parse(
        (served / "config.pbtxt").read_text(), model_config_pb2.ModelConfig()
    )
    return {name: value.string_value for name, value in config.parameters.items()}


def _place_ensemble(
    repository: Path,
    name: str,
    steps: Sequence[model_config.StepConfig],
    limits: model_config.Limits,
) -> None:
    """Write the ensemble ``name`` of ``steps``."""
    rank, *_ = model_config.ensembles(steps)
    (repository / name / "1").mkdir(parents=True)
    text = model_config.ensemble_text(replace(rank, name=name), limits)
    (repository / name / "config.pbtxt").write_text(text)


class _Whole(nn.Module):
    """A click model with positional tensors, as ONNX wants them."""

    def __init__(self, model: ClickModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        names = (spec.name for spec in model_names.MODEL_INPUTS)
        named = dict(zip(names, tensors, strict=True))
        probability = torch.sigmoid(self.model(named).click)
        return probability, torch.ones_like(probability)


def _export_din(sizes: Mapping[str, int], words: Vocabulary, path: Path) -> None:
    """Write a fresh DIN for histories as long as ``sizes`` has them."""
    torch.manual_seed(0)
    din = BASELINES["din"](ModelConfig(), TableSizes.of(words, sizes["L"])).eval()
    inputs = onnx_export.sample(sizes, requests=2, candidates=3)
    read, written = model_names.MODEL_INPUTS, schema.SCORE_TENSORS
    onnx_export.export_onnx(_Whole(din), inputs, read, written, path)
