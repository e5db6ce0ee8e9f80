"""Jobs: pre-train, tune, and learn and judge an arm; each once, kept as JSON, resumable.

A job's file is named by what it depends on: examples, arm, seed, settings and the code
that learns. Jobs run in processes of one thread each, and a failed one stops no other.
"""

import functools
import hashlib
import json
import multiprocessing
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import FOLDER
from benchmarks.harness.code_fingerprint import TRAINING_CODE, code_digest
from benchmarks.models.registry import BASELINES
from benchmarks.quality.clicks.click_examples import Examples, Part, load, name_of
from benchmarks.quality.clicks.click_pretraining import pretrained, pretraining_digest
from benchmarks.quality.clicks.click_scores import figures
from benchmarks.quality.clicks.click_sources import say
from benchmarks.quality.clicks.variants import (
    VARIANTS,
    Changes,
    ModelVariant,
    TrainingTask,
    TreeVariant,
    tune,
)
from srp4ctr.atomic_files import replace_text
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.evaluation.calibration import Calibration, fit_platt
from srp4ctr.training.model.srp4ctr import SRP4CTR

JOBS_CODE = (
    *(
        *TRAINING_CODE,
        "training/evaluation/calibration.py",
        "training/evaluation/metrics.py",
    ),
    *("benchmarks/quality/clicks/variants.py", "benchmarks/quality/clicks/click_scores.py"),
    "benchmarks/harness/runner.py",
)
BASELINES_DIR = FOLDER / "models"
RUNS = "runs"
Result = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One arm, seed and share of the labels on one data set."""

    root: Path
    """Where all results are kept."""
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
        """Where its result is kept."""
        variant = VARIANTS[self.variant]
        changes = (
            [variant.config(self.config, {}).model]
            if isinstance(variant, ModelVariant)
            else []
        )
        recipe = getattr(variant, "recipe", {})
        described = repr((asdict(self.config), changes, recipe, self.chosen))
        flags = (self.with_size, self.with_frozen, self.label_share)
        examples = name_of(self.folder)
        text = f"{examples} {described} {flags} {_training_code(self.variant)}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        name_of_variant = self.variant + ("+size" if self.with_size else "")
        if self.label_share < 1.0:
            name_of_variant += f"@{self.label_share:.0%}"
        name = f"{name_of_variant}-seed{self.config.seed}-{digest}.json"
        return self.root / RUNS / examples / name

    @property
    def tuning_file(self) -> Path:
        """Where the choice of its grid is kept."""
        return self.file.with_suffix(".tuning.json")


def run(job: Job) -> Result:
    """Return what ``job`` measured, from its file if it ran before."""
    if job.file.is_file():
        return _read(job.file)
    torch.set_num_threads(1)
    examples = _examples(job)
    trained = VARIANTS[job.variant].learn(_task(job, examples), job.chosen)
    shown = examples.calibrate.slates.shown
    clicked = examples.calibrate.slates.clicked[shown]
    platt = fit_platt(clicked, trained.logits(examples.calibrate)[shown])
    data = load(job.folder).name + ("+size" if job.with_size else "")
    parts = {data: examples.judge}
    if job.with_frozen:
        parts[f"{data} frozen"] = examples.frozen
    result = {
        "arm": job.variant,
        "seed": job.config.seed,
        "label_share": job.label_share,
        "chosen": dict(job.chosen),
        "seconds": dict(trained.seconds),
        "flops": {str(n): flops for n, flops in trained.flops.items()},
        "figures": {
            name: _judged(examples, part, trained.logits, platt)
            for name, part in parts.items()
        },
    }
    _write(job.file, result)
    return result


def choose(job: Job) -> Result:
    """Return what of its arm's grid serves the calibrating slates best."""
    if not job.tuning_file.is_file():
        torch.set_num_threads(1)
        chosen, tried = tune(VARIANTS[job.variant], _task(job, _examples(job)))
        _write(job.tuning_file, {"chosen": dict(chosen), "tried": tried})
    return _read(job.tuning_file)


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
    return pretraining_digest(
        load(job.folder).digest, variant.config(job.config, job.chosen)
    )


def run_all(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> list[Result | None]:
    """Return the result of ``work`` on each of ``jobs``; None where it failed.

    Says on stderr which job is done, and how long the rest will take.
    """
    results: list[Result | None] = [None] * len(jobs)
    began = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, max(len(jobs), 1)), mp_context=spawn) as pool:
        futures = {pool.submit(work, job): number for number, job in enumerate(jobs)}
        for done, future in enumerate(as_completed(futures), start=1):
            number = futures[future]
            name = f"{work.__name__} {_label(jobs[number])}"
            try:
                results[number] = future.result()
            except Exception as error:
                say(f"FAILED: {name}\n{''.join(traceback.format_exception(error))}")
            left_s = (time.monotonic() - began) / done * (len(jobs) - done)
            say(f"{done}/{len(jobs)} {name}; about {left_s / 60:.0f} minutes left")
    return results


def _label(job: Job) -> str:
    size = "+size" if job.with_size else ""
    share = f", {job.label_share:.0%} of the labels" if job.label_share < 1.0 else ""
    return f"{job.folder.name}{size}: {job.variant}, seed {job.config.seed}{share}"


def _examples(job: Job) -> Examples:
    examples = load(job.folder)
    if job.with_size:
        examples = examples.with_size()
    if job.label_share < 1.0:
        rows = np.random.default_rng(job.config.seed).permutation(len(examples.train))
        kept = np.sort(rows[: max(int(len(rows) * job.label_share), 1)])
        examples = replace(examples, train=examples.train.take(kept))
    return examples


def _task(job: Job, examples: Examples) -> TrainingTask:
    return TrainingTask(
        examples=examples,
        config=job.config,
        pretrained_dir=job.root / "pretrained",
        device=job.device,
    )


def _judged(
    examples: Examples, part: Part, logits: Callable[[Part], Any], platt: Calibration
) -> dict[str, float | None]:
    probabilities = platt.probabilities(logits(part)[part.slates.shown])
    found = figures(examples, part, probabilities)
    return {name: v if np.isfinite(v) else None for name, v in found.items()}


@functools.cache
def _training_code(variant: str) -> str:
    """Return a digest of what ``variant`` learns with; another's baseline is none of it."""
    own = [*BASELINES_DIR.glob(f"{variant}*.py")]
    if isinstance(VARIANTS[variant], TreeVariant):
        own = [BASELINES_DIR / "trees.py"]
    elif variant in BASELINES:
        own += [BASELINES_DIR / "inputs.py"]
    return code_digest(*JOBS_CODE, *sorted(map(str, own)))


def _read(file: Path) -> Result:
    found: Result = json.loads(file.read_text())
    return found


def _write(file: Path, result: Result) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(file, json.dumps(result, indent=1) + "\n")
