"""Both stages of training, in the process that refreshes and in those that train along.

In: a training set, and the bundles so far. Out: a trained model. All processes begin with
the same weights and read the same examples; only the first writes.
"""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from srp4ctr.features import bundle
from srp4ctr.training import example_files, warm_start
from srp4ctr.training.bundling import unfinished
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.finetuning import STAGE as FINETUNE
from srp4ctr.training.finetuning import finetune
from srp4ctr.training.fitting import FitOptions
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.parallel import Processes, device_of
from srp4ctr.training.pretraining import STAGE as PRETRAIN
from srp4ctr.training.pretraining import pretrain
from srp4ctr.training.progress import Clock, ScalarLog, silent, unlogged
from srp4ctr.training.training_set import TrainingSet
from srp4ctr.training.warm_start import Parent

PRETRAINING_SHARE = (
    0.5  # of ``max_seconds``: at the default epochs both stages take as long
)
_NOTHING = -1  # instead of the number of the bundle to go on from; 0 is none
# Settings that leave the result as it is: resumed with others, a run goes on.
_CHANGE_NOTHING: Mapping[str, Any] = {
    "bundles_dir": "",
    "tensorboard_dir": "",
    "max_gpu_memory_share": 1.0,
    "niceness": 0,
    "accumulate": 1,
    "checkpoint_every_s": 0.0,
}


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is learnt, from what, and where."""

    config: RefreshConfig
    lessons: TrainingSet
    from_scratch: bool
    """Do not go on from an earlier bundle."""
    processes: Processes
    clock: Clock

    @functools.cached_property
    def recipe(self) -> str:
        """A digest of what may not differ if a checkpoint is to be resumed."""
        return _recipe(self.config, self.lessons, self.from_scratch)


def begin(training: Training, serving: Path | None) -> tuple[SRP4CTR, Parent | None, str]:
    """Return the model to train, the bundle that it goes on from, and why so.

    Processes that wait in ``follow`` are told, and begin likewise.
    """
    found: Parent | str = "as asked"
    if not training.from_scratch:
        bundles = bundle.list_bundles(Path(training.config.bundles_dir))
        found = warm_start.find_parent(bundles, training.lessons, serving)
    number = 0 if isinstance(found, str) else int(found.card.version.removeprefix("v"))
    training.processes.agree(number)
    return _started(training, found)


def dismiss(processes: Processes) -> None:
    """Tell the processes that wait in ``follow`` that there is nothing to train."""
    processes.agree(_NOTHING)


def follow(config: RefreshConfig, processes: Processes, from_scratch: bool) -> None:
    """Train along with the process that refreshes; it alone reads, judges and writes."""
    number = int(processes.agree(_NOTHING))
    if number == _NOTHING:
        return
    found = example_files.read(unfinished(config) / example_files.FOLDER)
    assert found is not None  # the first process has just written it
    training = Training(
        config=config,
        lessons=found[1],
        from_scratch=from_scratch,
        processes=processes,
        clock=Clock(silent),
    )
    folder = Path(config.bundles_dir) / f"v{number}"
    parent = warm_start.parent_in(folder) if number else "as told"
    model, own, _ = _started(training, parent)
    train(model, own, training)


def _started(
    training: Training, parent: Parent | str
) -> tuple[SRP4CTR, Parent | None, str]:
    config, words = training.config, training.lessons.words
    length = training.lessons.windows.tensors["history_item_rows"].shape[1]
    torch.manual_seed(config.seed)
    model = SRP4CTR(config.model, TableSizes.of(words, length))
    model.to(device_of(config.device))
    if isinstance(parent, str):
        return model, None, f"from scratch: {parent}"
    try:
        return model, parent, warm_start.carry_over(model, words, parent)
    except ValueError as error:
        return model, None, f"from scratch: {error}"


def train(
    model: SRP4CTR, parent: Parent | None, training: Training, log: ScalarLog = unlogged
) -> None:
    """Train ``model`` in both stages, resuming from their checkpoints."""
    config, lessons = training.config, training.lessons
    if parent is not None:
        lessons = warm_start.since(lessons, parent.card.boundary_ms, config)
        config = warm_start.shortened(config)
    recipe = f"{training.recipe} {parent.card.version if parent else ''}"
    options = FitOptions(
        recipe=recipe,
        progress=training.clock.progress,
        log=log,
        processes=training.processes,
    )
    pretraining_share = 0.0 if config.pretraining == "none" else PRETRAINING_SHARE
    shares = {PRETRAIN: pretraining_share, FINETUNE: 1.0 - pretraining_share}
    for stage, share in shares.items():
        seconds = None if config.max_seconds is None else share * config.max_seconds
        file = unfinished(config) / f"{stage}.safetensors"
        own = replace(options, checkpoint=file, seconds=seconds)
        with training.clock.timed(stage):
            if stage == FINETUNE:
                finetune(model, lessons.parts.train, config, own)
            elif parent is None:
                pretrain(model, lessons.windows, config, own)
            else:
                with warm_start.kept_candidate_stream(model):
                    pretrain(model, lessons.windows, config, own)


def _recipe(config: RefreshConfig, lessons: TrainingSet, from_scratch: bool) -> str:
    """Return a digest of what may not differ if a checkpoint is to be resumed."""
    own = replace(config, **_CHANGE_NOTHING)
    length = lessons.windows.tensors["history_item_rows"].shape[1]
    lengths = length, lessons.exposure_length
    described = repr((own, from_scratch, lengths, lessons.counts))
    digest = hashlib.sha256(described.encode())
    for array in (lessons.parts.train.request_at_ms, lessons.parts.train.clicked):
        digest.update(array.tobytes())
    digest.update(repr(lessons.words.item_fields).encode())
    digest.update(lessons.words.item_keys.tobytes())
    return digest.hexdigest()
