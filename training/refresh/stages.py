"""The stages of training, in the process that refreshes and in its worker processes.

In: a training set, and the bundles so far. Out: a trained model. All processes begin with
the same weights and read the same examples; only the first writes.
"""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srp4ctr.features.bundles import bundle
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset import cache, caller_order, familiar_items
from srp4ctr.training.dataset.cache import TrainingSet
from srp4ctr.training.evaluation.champion import EarlierBundle, NoBundle
from srp4ctr.training.export.bundle_writer import unfinished
from srp4ctr.training.export.retrieval import Pretrained
from srp4ctr.training.loop.distributed import Processes, cpu_threads, device_of
from srp4ctr.training.loop.progress import Clock, ScalarLog, silent, unlogged
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives import feedback, finetuning, pretraining
from srp4ctr.training.objectives.pretraining import MaskedHeads
from srp4ctr.training.refresh import warm_start

_NOTHING = -1  # instead of the number of the parent bundle; 0 is none
# Of what is trained, in which order: a checkpoint of another release does not fit.
_STAGES = (
    "masks of items, attributes, action and value; feedback; clicks, by keys and values"
)
# Settings that leave the result as it is: a run resumes with others, too.
_CHANGE_NOTHING: Mapping[str, Any] = {
    "bundles_dir": "",
    "bundles_uri": "",
    "mlflow_uri": "",
    "max_gpu_memory_share": 1.0,
    "niceness": 0,
    "accumulate": 1,
    "threads": 1,  # changes only the last bits of sums: a slow refresh may resume with more
}


@dataclass(frozen=True, kw_only=True)
class Training:
    """The recipe, data and processes of one training."""

    config: RefreshConfig
    dataset: TrainingSet
    from_scratch: bool
    """Start without an earlier bundle."""
    processes: Processes
    clock: Clock

    @functools.cached_property
    def recipe(self) -> str:
        """A digest of what may not differ if a checkpoint is to be resumed."""
        return _recipe(self.config, self.dataset, self.from_scratch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A model before its first step."""

    model: SRP4CTR
    parent: EarlierBundle | None
    """The bundle whose weights it has; None: from scratch."""
    note: str
    """Why so, for the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What the stages made besides the weights."""

    pretrained: Pretrained | None
    """What predicted items before it learned clicks; None where nothing did."""
    note: str
    """For the report: whether feedback was trained on, and if fine-tuning ended early."""


def begin(training: Training, serving: Path | None) -> Start:
    """Return the model to train, with the weights of the newest bundle that fits.

    Worker processes receive its number, and load the same weights.
    """
    found: EarlierBundle | NoBundle = NoBundle("as requested")
    if not training.from_scratch:
        bundles = bundle.list_bundles(Path(training.config.bundles_dir))
        found = warm_start.find_parent(bundles, training.dataset, serving)
    number = (
        int(found.card.version.removeprefix("v")) if isinstance(found, EarlierBundle) else 0
    )
    training.processes.broadcast(number)
    return _start(training, found)


def release_workers(processes: Processes) -> None:
    """Release the processes that wait in ``run_worker``: there is nothing to train."""
    processes.broadcast(_NOTHING)


def run_worker(config: RefreshConfig, processes: Processes, from_scratch: bool) -> None:
    """Take part in the training; only the first process evaluates and writes."""
    number = int(processes.broadcast(_NOTHING))
    if number == _NOTHING:
        return
    dataset = cache.read(unfinished(config) / cache.FOLDER)
    assert dataset is not None  # the first process has just written it
    training = Training(
        config=config,
        dataset=dataset,
        from_scratch=from_scratch,
        processes=processes,
        clock=Clock(silent),
    )
    folder = Path(config.bundles_dir) / f"v{number}"
    found = EarlierBundle.read(folder) if number else NoBundle("as the first process")
    with cpu_threads(config.threads):
        train(_start(training, found), training)


def _start(training: Training, found: EarlierBundle | NoBundle) -> Start:
    config, vocabulary = training.config, training.dataset.vocabulary
    torch.manual_seed(config.seed)
    model = SRP4CTR(config.model, TableSizes.of(vocabulary, training.dataset.length))
    model.to(device_of(config.device))
    if isinstance(found, NoBundle):
        return Start(model=model, parent=None, note=f"from scratch: {found.reason}")
    try:
        note = warm_start.carry_over(model, vocabulary, found)
    except ValueError as error:
        return Start(model=model, parent=None, note=f"from scratch: {error}")
    return Start(model=model, parent=found, note=note)


def train(start: Start, training: Training, log: ScalarLog = unlogged) -> TrainingResult:
    """Train ``start.model`` in all stages, resuming from their checkpoints."""
    config, dataset, parent = training.config, training.dataset, start.parent
    every_slate, held_out = dataset.parts.train, dataset.parts.calibrate
    order = caller_order.shown_order(every_slate, dataset.vocabulary.candidate_numbers)
    config, of_ids = familiar_items.with_id_dropout(config, every_slate, held_out)
    if parent is not None:
        dataset = warm_start.since(dataset, parent.card.boundary_ms, config)
        config = warm_start.shortened(config)
    parts = dataset.parts
    options = FitOptions(
        checkpoints=unfinished(config),
        recipe=f"{training.recipe} {parent.card.version if parent else ''}",
        progress=training.clock.progress,
        log=log,
        processes=training.processes,
    )
    with (
        training.clock.timed(pretraining.STAGE),
        warm_start.kept_candidate_stream(start.model, parent),
    ):
        torch.manual_seed(config.seed)
        heads = MaskedHeads(config.model, start.model.embedding)
        pretraining.pretrain(start.model, dataset.windows, config, options, heads)
        pretrained = Pretrained.of(start.model, heads, config)
        before: tuple[float, ...] = ()
        if parent is None:  # else its head knows more than a window says
            before = feedback.pretrain_on_feedback(
                start.model, dataset.windows, parts.train, config, options
            )
    with training.clock.timed(finetuning.STAGE):
        # A handful of new requests would move the scales under the parent's weights.
        finetuning.scale_features(start.model, every_slate)
        if parent is None:
            finetuning.start_at_draws(start.model, every_slate)
        slates = parts.train.without_positions() if order else parts.train
        losses = finetuning.train_on_clicks(start.model, slates, config, options, held_out)
    notes = _notes(bool(before), len(losses), config.finetune_epochs)
    notes += filter(None, [of_ids, caller_order.note_of_order(order)])
    return TrainingResult(pretrained=pretrained, note="; ".join(notes))


def _notes(has_feedback: bool, epochs: int, wanted: int) -> list[str]:
    notes = []
    if has_feedback:
        notes.append("pre-trained on what users did with the items that they met, too")
    if epochs < wanted:
        notes.append(
            f"fine-tuned for {epochs} of {wanted} epochs: more made the log loss of the "
            "calibrating requests worse"
        )
    return notes


def _recipe(config: RefreshConfig, dataset: TrainingSet, from_scratch: bool) -> str:
    """Return a digest of what may not differ if a checkpoint is to be resumed."""
    own = replace(config, **_CHANGE_NOTHING)
    lengths = dataset.length, dataset.exposure_length
    words = dataset.vocabulary
    # Not in `content`.
    clock = words.utc_offset_minutes, words.context_numbers, words.candidate_numbers
    examples = lengths, clock, dataset.counts, dataset.content
    described = repr((_STAGES, own, from_scratch, examples))
    digest = hashlib.sha256(described.encode())
    for array in (dataset.parts.train.request_at_ms, dataset.parts.train.clicked):
        digest.update(array.reshape(-1).view(np.uint8).data)  # mapped: no copy
    for fields in (words.item_fields, words.user_fields):
        digest.update(repr(fields).encode())
    digest.update(words.item_keys.tobytes())
    return digest.hexdigest()
