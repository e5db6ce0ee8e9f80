"""The periodic refresh, from event log to serving bundle: the recipe, top to bottom.

In: the raw event log and items' profiles. Out: a bundle in ``bundles_dir``, promoted if it
passes its gates. Nothing here knows Triton: promotion is a callable that takes a folder.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from features import bundle, vocabulary
from features.bundle import BundleManifest
from features.config import FeatureConfig
from features.vocabulary import FIRST_OOV_ROW
from streams.config import StreamConfig
from training import cost, export
from training.batches import EXAMPLE_NAMES, HISTORY_NAMES, Slates, torch_rows
from training.config import RefreshConfig
from training.finetuning import STAGE as FINETUNE
from training.finetuning import finetune
from training.fitting import FitOptions
from training.judging import Verdict, judge
from training.model.embeddings import TableSizes
from training.model.srp4ctr import SRP4CTR
from training.pretraining import STAGE as PRETRAIN
from training.pretraining import pretrain
from training.progress import ProgressListener, silent
from training.training_set import TrainingSet, read_training_set

GOLDEN_REQUESTS = 8  # enough to meet padding, unknown items and short histories
PRETRAINING_SHARE = (
    0.5  # of ``max_seconds``: at the default epochs both stages take as long
)
UNFINISHED = "unfinished"  # checkpoints of the refresh that is running, or was cut off


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshReport:
    """What a refresh made, how good it is, and whether it serves."""

    version: str
    folder: Path
    metrics: Mapping[str, float]
    cost: Mapping[str, float]
    counts: Mapping[str, int]
    seconds: Mapping[str, float]
    """By step."""
    refusals: tuple[str, ...]
    """The gates that failed: why it was not promoted."""
    promoted: bool


@dataclass(slots=True)
class _Clock:
    """Announces steps and keeps the seconds that each took."""

    progress: ProgressListener
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Announce ``name`` as a step of one unit, and time it."""
        self.progress(name, 0, 1)
        with self.timed(name):
            yield
        self.progress(name, 1, 1)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time a step that announces itself."""
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began


def refresh(
    config: RefreshConfig,
    features: FeatureConfig,
    streams: StreamConfig,
    promote: Callable[[Path], object] | None = None,
    progress: ProgressListener = silent,
) -> RefreshReport:
    """Train a model on the event log, and promote it if it passes its gates.

    Raises ``ValueError`` with what to do when the log has too little to learn from. A run
    that was cut off resumes where it was, as long as log and recipe are the same.
    """
    clock = _Clock(progress)
    with clock.step("examples"):
        lessons = read_training_set(config, features, streams.sequence_length)
    model = _train(lessons, config, streams.sequence_length, clock)
    with clock.step("judge"):
        verdict = judge(model, lessons.parts, config)
    with clock.step("export"):
        folder = _write_bundle(model, lessons, verdict, config)
    is_promoted = promote is not None and not verdict.refusals
    if promote is not None and is_promoted:
        with clock.step("promote"):
            promote(folder)
    card = bundle.read(folder)
    return RefreshReport(
        version=card.version,
        folder=folder,
        metrics=card.metrics,
        cost=card.cost,
        counts=card.counts,
        seconds=clock.seconds,
        refusals=verdict.refusals,
        promoted=is_promoted,
    )


def _train(
    lessons: TrainingSet, config: RefreshConfig, length: int, clock: _Clock
) -> SRP4CTR:
    """Return the model after both stages, resuming from their checkpoints."""
    sizes = TableSizes(
        item_rows=lessons.words.num_item_rows,
        attribute_rows=lessons.words.num_attribute_rows,
        length=length,
    )
    torch.manual_seed(config.seed)
    model = SRP4CTR(config.model, sizes).to(_device(config.device))
    checkpoints = Path(config.bundles_dir) / UNFINISHED
    recipe = _recipe(config, sizes, lessons)
    options = FitOptions(recipe=recipe, progress=clock.progress)
    pretraining_share = 0.0 if config.pretraining == "none" else PRETRAINING_SHARE
    shares = {PRETRAIN: pretraining_share, FINETUNE: 1.0 - pretraining_share}
    for stage, share in shares.items():
        seconds = None if config.max_seconds is None else share * config.max_seconds
        file = checkpoints / f"{stage}.safetensors"
        own = replace(options, checkpoint=file, seconds=seconds)
        with clock.timed(stage):
            if stage == PRETRAIN:
                pretrain(model, lessons.windows, config, own)
            else:
                finetune(model, lessons.parts.train, config, own)
    return model


def _write_bundle(
    model: SRP4CTR, lessons: TrainingSet, verdict: Verdict, config: RefreshConfig
) -> Path:
    """Write the bundle's files, check the exported model, and close with the manifest."""
    bundles = Path(config.bundles_dir)
    version = bundle.next_version(bundles)
    folder = bundles / version
    folder.mkdir(parents=True)
    length = lessons.windows.tensors["history_item_rows"].shape[1]
    sizes = cost.sizes_of(config.model, length)
    parts = lessons.parts
    export.export(model, sizes, folder)
    golden = golden_requests(parts.judge)
    export.write_golden(model, golden, folder)
    export.check(load_file(folder / bundle.GOLDEN_FILE), export.run_onnx(folder, golden))
    vocabulary.save(lessons.words, folder / bundle.VOCABULARY_FILE)
    card = BundleManifest(
        version=version,
        created_at_ms=time.time_ns() // 1_000_000,
        sizes=sizes,
        window_start_ms=int(parts.train.request_at_ms[0]),
        window_end_ms=int(parts.judge.request_at_ms[-1]),
        calibration_scale=verdict.calibration.scale,
        calibration_bias=verdict.calibration.bias,
        metrics=verdict.metrics,
        cost=cost.card(config.model, length),
        counts=lessons.counts,
    )
    bundle.write_card(folder, card)
    bundle.write_manifest(folder)
    shutil.rmtree(bundles / UNFINISHED, ignore_errors=True)
    return folder


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


def _recipe(config: RefreshConfig, sizes: TableSizes, lessons: TrainingSet) -> str:
    """Return a digest of what may not differ if a checkpoint is to be resumed."""
    described = repr((replace(config, bundles_dir=""), sizes, lessons.counts))
    digest = hashlib.sha256(described.encode())
    for array in (lessons.parts.train.request_at_ms, lessons.parts.train.clicked):
        digest.update(array.tobytes())
    digest.update(repr(lessons.words.attribute_values).encode())
    digest.update(lessons.words.item_keys.tobytes())
    return digest.hexdigest()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
