"""Trains and evaluates variants; each once, cached as JSON, resumable.

A job's file is named by what it depends on: examples, variant, seed, settings and the code
that trains. Jobs run in processes of one thread each, and a failed one stops no other.
"""

import functools
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness.runs import TRAINING_CODE, cached, code_digest, digest_of
from benchmarks.quality.clicks.click_examples import Examples, Part, load, name_of
from benchmarks.quality.clicks.click_scores import calibrated_figures, calibration_of
from benchmarks.quality.clicks.variants import (
    VARIANTS,
    ModelVariant,
    TrainingTask,
    TreeVariant,
)
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.model.heads.scores import Scores

JOBS_CODE = (
    *TRAINING_CODE,
    "training/dataset/examples.py",
    "benchmarks/harness/runner.py",
    *(f"training/evaluation/{name}.py" for name in ("evaluate", "quality", "calibration")),
    *(
        f"benchmarks/quality/clicks/{name}.py"
        for name in ("variants", "click_scores", "click_examples")
    ),
)
MODELS = "benchmarks/models"
RUNS = "runs"
TESTS = ("KuaiRand-Pure-", "ML-1M (CoLLM)-")
"""How the names of examples begin at whose judged part one looks once per recipe."""
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
    with_size: bool = False
    label_share: float = 1.0
    device: str = "cpu"

    @property
    def file(self) -> Path:
        """Where its result is cached."""
        variant, examples = VARIANTS[self.variant], name_of(self.folder)
        config = self.config
        if isinstance(variant, ModelVariant):
            config = variant.config(config)
        flags = (self.with_size, self.label_share)
        digest = digest_of(examples, asdict(config), flags, _training_code(self.variant))
        share = f"@{self.label_share:.0%}" if self.label_share < 1.0 else ""
        name = f"{self.variant}{self._size}{share}-seed{self.config.seed}-{digest}.json"
        return self.root / RUNS / examples / name

    @property
    def is_of_test(self) -> bool:
        """Whether its figures are of a published test, at which one looks once."""
        return name_of(self.folder).startswith(TESTS)

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


def _measured(job: Job) -> Result:
    examples = load(job.folder)
    data = examples.name + job._size
    if job.with_size:
        examples = examples.with_size()
    if job.label_share < 1.0:
        examples = _fewer_labels(examples, job)
    task = TrainingTask(
        examples=examples,
        config=job.config,
        pretrained_dir=job.root / "pretrained",
        device=job.device,
    )
    trained = VARIANTS[job.variant].learn(task)
    calibrating = examples.calibrate
    platt = calibration_of(
        calibrating, trained.logits(calibrating).click[calibrating.slates.shown]
    )
    logits = _shown(examples.judge, trained.logits(examples.judge))
    return {
        "arm": job.variant,
        "seed": job.config.seed,
        "label_share": job.label_share,
        "chosen": {},
        "seconds": dict(trained.seconds),
        "flops": {str(n): flops for n, flops in trained.flops.items()},
        "figures": {data: calibrated_figures(examples, examples.judge, logits, platt)},
    }


def _shown(part: Part, logits: Scores[NDArray[Any]]) -> Scores[NDArray[Any]]:
    click, ranking = (logit[part.slates.shown] for logit in logits)
    return Scores(click=click, ranking=ranking)


def _fewer_labels(examples: Examples, job: Job) -> Examples:
    rows = np.random.default_rng(job.config.seed).permutation(len(examples.train))
    taken = np.sort(rows[: max(int(len(rows) * job.label_share), 1)])
    return replace(examples, train=examples.train.take(taken))


@functools.cache
def _training_code(variant: str) -> str:
    """Return a digest of the code that trains ``variant``."""
    names = ["baseline", "baselines"]
    if variant.startswith("srp4ctr"):
        names = []
    if isinstance(VARIANTS[variant], TreeVariant):
        names = ["trees", "history_columns"]
    return code_digest(*JOBS_CODE, *(f"{MODELS}/{name}.py" for name in names))
