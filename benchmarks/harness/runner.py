"""Pre-trains, tunes, trains and evaluates variants; each once, cached as JSON, resumable.

A job's file is named by what it depends on: examples, variant, seed, settings and the code
that trains. Jobs run in processes of one thread each, and a failed one stops no other.
"""

import functools
import hashlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import FOLDER
from benchmarks.harness.code_fingerprint import TRAINING_CODE, code_digest
from benchmarks.harness.result_cache import cached
from benchmarks.models.registry import BASELINES
from benchmarks.quality.clicks.click_examples import Examples, load, name_of
from benchmarks.quality.clicks.click_pretraining import pretrained, pretraining_digest
from benchmarks.quality.clicks.click_scores import calibrated_figures, calibration_of
from benchmarks.quality.clicks.variants import (
    VARIANTS,
    Changes,
    ModelVariant,
    TrainingTask,
    TreeVariant,
    tune,
)
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.model.srp4ctr import SRP4CTR

JOBS_CODE = (
    *(*TRAINING_CODE, "training/evaluation/calibration.py"),
    *("training/evaluation/metrics.py", "benchmarks/harness/runner.py"),
    *("benchmarks/quality/clicks/variants.py", "benchmarks/quality/clicks/click_scores.py"),
)
MODELS_DIR = FOLDER / "models"
RUNS = "runs"
Result = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One variant, seed and share of the labels on one data set."""

    root: Path
    """Where all results are cached."""
    folder: Path
    """Of the examples."""
    variant: str
    config: RefreshConfig
    """With the job's seed."""
    chosen: Changes = field(default_factory=dict)
    """By tuning."""
    with_size: bool = False
    with_frozen: bool = False
    label_share: float = 1.0
    device: str = "cpu"

    @property
    def file(self) -> Path:
        """Where its result is cached."""
        variant = VARIANTS[self.variant]
        changes: list[object] = []
        recipe: Changes = {}
        if isinstance(variant, ModelVariant):
            changes = [variant.config(self.config, {}).model]
            recipe = variant.recipe
        described = repr((asdict(self.config), changes, recipe, self.chosen))
        flags = (self.with_size, self.with_frozen, self.label_share)
        examples = name_of(self.folder)
        text = f"{examples} {described} {flags} {_training_code(self.variant)}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        share = f"@{self.label_share:.0%}" if self.label_share < 1.0 else ""
        name = f"{self.variant}{self._size}{share}-seed{self.config.seed}-{digest}.json"
        return self.root / RUNS / examples / name

    @property
    def tuning_file(self) -> Path:
        """Where the choice of its grid is cached."""
        return self.file.with_suffix(".tuning.json")

    @property
    def _size(self) -> str:
        return "+size" if self.with_size else ""

    def __str__(self) -> str:
        share = f", {self.label_share:.0%} of the labels" if self.label_share < 1.0 else ""
        seed = f"seed {self.config.seed}{share}"
        return f"{self.folder.name}{self._size}: {self.variant}, {seed}"


def run(job: Job) -> Result:
    """Return what ``job`` measured, from its file if it ran before."""
    torch.set_num_threads(1)
    found: Result = cached(job.file, lambda: _measured(job))
    return found


def choose(job: Job) -> Result:
    """Return what of its variant's grid serves the calibrating slates best."""

    def tuned() -> Result:
        chosen, tried = tune(VARIANTS[job.variant], _task(job))
        return {"chosen": dict(chosen), "tried": tried}

    torch.set_num_threads(1)
    found: Result = cached(job.tuning_file, tuned)
    return found


def prepare(job: Job) -> Result:
    """Pre-train the encoder that ``job`` needs, if it is not there yet."""
    variant = VARIANTS[job.variant]
    assert isinstance(variant, ModelVariant)
    torch.set_num_threads(1)
    examples, config = load(job.folder), variant.config(job.config, job.chosen)
    torch.manual_seed(config.seed)
    model = SRP4CTR(config.model, examples.sizes).to(job.device)
    return {"seconds": pretrained(model, examples, config, job.root / "pretrained")}


def encoder_of(job: Job) -> str | None:
    """Return the digest of the encoder that ``job`` starts from; None: from nothing."""
    variant = VARIANTS[job.variant]
    if not isinstance(variant, ModelVariant) or not variant.is_pretrained:
        return None
    config = variant.config(job.config, job.chosen)
    return pretraining_digest(load(job.folder).digest, config)


def _measured(job: Job) -> Result:
    task = _task(job)
    examples = task.examples
    trained = VARIANTS[job.variant].learn(task, job.chosen)
    calibrating = examples.calibrate
    platt = calibration_of(
        calibrating, trained.logits(calibrating)[calibrating.slates.shown]
    )
    data = load(job.folder).name + job._size
    parts = {data: examples.judge}
    if job.with_frozen:
        parts[f"{data} frozen"] = examples.frozen
    return {
        "arm": job.variant,
        "seed": job.config.seed,
        "label_share": job.label_share,
        "chosen": dict(job.chosen),
        "seconds": dict(trained.seconds),
        "flops": {str(n): flops for n, flops in trained.flops.items()},
        "figures": {
            name: calibrated_figures(
                examples, part, trained.logits(part)[part.slates.shown], platt
            )
            for name, part in parts.items()
        },
    }


def _task(job: Job) -> TrainingTask:
    examples = load(job.folder)
    if job.with_size:
        examples = examples.with_size()
    if job.label_share < 1.0:
        examples = _fewer_labels(examples, job)
    pretrained_dir = job.root / "pretrained"
    return TrainingTask(
        examples=examples,
        config=job.config,
        pretrained_dir=pretrained_dir,
        device=job.device,
    )


def _fewer_labels(examples: Examples, job: Job) -> Examples:
    rows = np.random.default_rng(job.config.seed).permutation(len(examples.train))
    taken = np.sort(rows[: max(int(len(rows) * job.label_share), 1)])
    return replace(examples, train=examples.train.take(taken))


@functools.cache
def _training_code(variant: str) -> str:
    """Return a digest of the code that trains ``variant``, without other baselines'."""
    own = [*MODELS_DIR.glob(f"{variant}*.py")]
    if isinstance(VARIANTS[variant], TreeVariant):
        own = [MODELS_DIR / "trees.py"]
    elif variant in BASELINES:
        own += [MODELS_DIR / "inputs.py"]
    return code_digest(*JOBS_CODE, *sorted(map(str, own)))
