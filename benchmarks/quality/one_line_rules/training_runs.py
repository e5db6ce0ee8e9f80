"""A cut log and a seed → the model's scores of the judged requests, by the product's code.

What was trained once is read again: the scores lie beside the log, named by recipe, code
and examples.
"""

from dataclasses import fields

import numpy as np
import torch

from benchmarks import say
from benchmarks.harness.runs import TRAINING_CODE, code_digest, digest_of
from benchmarks.quality.one_line_rules.log_cutting import Cut
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.evaluation.evaluate import Scored, evaluate
from srp4ctr.training.loop.distributed import ALONE
from srp4ctr.training.loop.progress import Clock
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.refresh import stages
from srp4ctr.training.refresh.stages import Training

_CODE = (*TRAINING_CODE, "training/refresh/stages.py", "training/evaluation/evaluate.py")
NAMES = tuple(each.name for each in fields(Scored))


def judged(cut: Cut, config: RefreshConfig) -> Scored:
    """Return the scores of the judged requests, by a model that is trained if need be."""
    training = training_of(cut, config)
    file = cut.folder / "runs" / f"{digest_of(training.recipe, code_digest(*_CODE))}.npz"
    if not file.is_file():
        model = trained(training)
        scored = evaluate(model, cut.dataset.parts, config).judged
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **{name: getattr(scored, name) for name in NAMES})
    with np.load(file) as kept:
        return Scored(**{name: kept[name] for name in NAMES})


def training_of(cut: Cut, config: RefreshConfig) -> Training:
    """Return the training of the recipe ``config``, from scratch."""
    return Training(
        config=config,
        dataset=cut.dataset,
        from_scratch=True,
        processes=ALONE,
        clock=Clock(_Progress(f"{cut.folder.name}, seed {config.seed}")),
    )


def trained(training: Training) -> SRP4CTR:
    """Return a model after all stages of a refresh."""
    torch.set_num_threads(1)  # sums differ with it
    start = stages.begin(training, None)
    stages.train(start, training)
    return start.model


class _Progress:
    """Says on stderr when a tenth of a step is done."""

    def __init__(self, name: str) -> None:
        self._name, self._said = name, ("", -1)

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        reached = step, 10 * done // max(total, 1)
        if reached != self._said:
            self._said = reached
            say(f"{self._name}: {step} {10 * reached[1]} % {note}")
