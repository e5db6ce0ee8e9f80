"""A cut log and a seed → the model's scores of the judged requests, by the product's code.

What was trained once is read again: the scores lie beside the log, named by recipe, code
and examples.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import say
from benchmarks.harness.runs import TRAINING_CODE, code_digest, digest_of
from benchmarks.quality.one_line_rules.log_cutting import Cut
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.evaluation import full_catalogue
from srp4ctr.training.evaluation.evaluate import Scored, evaluate
from srp4ctr.training.evaluation.full_catalogue import CatalogueRanks
from srp4ctr.training.export.retrieval import Pretrained
from srp4ctr.training.loop.distributed import ALONE
from srp4ctr.training.loop.progress import Clock
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.refresh import stages
from srp4ctr.training.refresh.stages import Training

_CODE = (
    *TRAINING_CODE,
    "training/refresh/stages.py",
    "training/export/retrieval.py",
    *(f"training/evaluation/{name}.py" for name in ("evaluate", "full_catalogue")),
)
_RULE = "rule "
Arrays = dict[str, NDArray[Any]]


def judged(cut: Cut, config: RefreshConfig) -> Scored:
    """Return the scores of the judged requests, by a model that is trained if need be."""

    def measure(training: Training) -> Arrays:
        model, _ = _trained(training)
        scored = evaluate(model, cut.dataset.parts, config).judged
        return {field.name: getattr(scored, field.name) for field in fields(Scored)}

    return Scored(**_measured_once(cut, config, measure))


def judged_clicks(cut: Cut, config: RefreshConfig) -> CatalogueRanks:
    """Return where ``recommend`` and rules rank the judged clicks among all items."""

    def measure(training: Training) -> Arrays:
        model, pretrained = _trained(training)
        ranks = full_catalogue.judge(model, pretrained, cut.dataset)
        assert ranks is not None
        by_rule = {f"{_RULE}{name}": places for name, places in ranks.rules.items()}
        return {"model": ranks.model, "users": ranks.users, **by_rule}

    found = _measured_once(cut, config, measure)
    rules = {n.removeprefix(_RULE): a for n, a in found.items() if n.startswith(_RULE)}
    return CatalogueRanks(model=found["model"], users=found["users"], rules=rules)


def _measured_once(
    cut: Cut, config: RefreshConfig, measure: Callable[[Training], Arrays]
) -> Arrays:
    """Return what ``measure`` makes of the training, or what it has made of it before."""
    training = _training_of(cut, config)
    file = cut.folder / "runs" / f"{digest_of(training.recipe, code_digest(*_CODE))}.npz"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, allow_pickle=False, **measure(training))
    with np.load(file) as kept:
        return dict(kept)


def _training_of(cut: Cut, config: RefreshConfig) -> Training:
    """Return the training of the recipe ``config``, from scratch."""
    return Training(
        config=config,
        dataset=cut.dataset,
        from_scratch=True,
        processes=ALONE,
        clock=Clock(_Progress(f"{cut.folder.name}, seed {config.seed}")),
    )


def _trained(training: Training) -> tuple[SRP4CTR, Pretrained | None]:
    """Return a model after all stages of a refresh, and what retrieves items."""
    torch.set_num_threads(1)  # sums differ with it
    start = stages.begin(training, None)
    result = stages.train(start, training)
    return start.model, result.pretrained


class _Progress:
    """Says on stderr when a tenth of a step is done."""

    def __init__(self, name: str) -> None:
        self._name, self._said = name, ("", -1)

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        reached = step, 10 * done // max(total, 1)
        if reached != self._said:
            self._said = reached
            say(f"{self._name}: {step} {10 * reached[1]} % {note}")
