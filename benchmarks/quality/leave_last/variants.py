"""Trains each variant on the training part, and scores the test slates by it.

The stages, the model and the features are the product's; ``recipe.py`` says how
long and how fast they learn.

Shapes: U users, 100 candidates with the answer first.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness.runs import TRAINING_CODE, code_digest, digest_of, trained_once
from benchmarks.models.sasrec import SASRecEncoder, next_item_loss
from benchmarks.quality.leave_last.leave_last_out import NEGATIVES, LeaveLast
from benchmarks.quality.leave_last.recipe import Recipe
from srp4ctr.features.tensors.vocabulary import MASK_ROW
from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.dataset.batches import (
    HISTORY_NAMES,
    Slates,
    history_lengths,
    newest,
    torch_rows,
)
from srp4ctr.training.loop.progress import ProgressListener
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.finetuning import finetune, serving_logits
from srp4ctr.training.objectives.pretraining import (
    MaskedHeads,
    Masks,
    hide,
    ids_only,
    pretrain,
)

Int64s = NDArray[np.int64]
Scores = NDArray[Any]
Pretraining = Literal["none", "bert", "items", "behaviors", "both"]
Scorer = Callable[[int, Int64s], Scores]
"""Place of the answer from the end, users → their candidates' scores (U, 100)."""
CPU = torch.device("cpu")
RUNS = Path(".data/benchmarks/pretraining")
ENCODERS = RUNS / "encoders"
VARIANTS_CODE = (
    *TRAINING_CODE,
    "benchmarks/models/sasrec.py",
    *(
        f"benchmarks/quality/leave_last/{name}.py"
        for name in ("variants", "leave_last_out", "scores", "files")
    ),
)
CANDIDATE_ROWS = ("candidate_item_rows", "candidate_attribute_rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A variant after its training."""

    scorer: Scorer
    found_s: float = 0.0
    """CPU seconds of a pre-training that another variant had cached."""


Variant = Callable[[LeaveLast, int, Recipe, ProgressListener], TrainedModel]


def popularity(
    data: LeaveLast, seed: int, recipe: Recipe, progress: ProgressListener
) -> TrainedModel:
    """Score an item by how often the training part has it."""
    del seed, recipe, progress
    return TrainedModel(
        scorer=lambda place, users: data.times_seen(data.candidates(place)[users])
    )


def trained_sasrec(
    data: LeaveLast, seed: int, recipe: Recipe, progress: ProgressListener
) -> SASRecEncoder:
    """Return SASRec's encoder, trained on the training part by a sampled softmax."""
    torch.manual_seed(seed)
    config = ModelConfig(dropout=recipe.sasrec_dropout)
    rows = data.windows().tensors["history_item_rows"].astype(np.int64)
    encoder = SASRecEncoder(config, data.words.num_item_rows, data.length)
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.Adam(encoder.parameters(), lr=recipe.sasrec_rate)
    falling = torch.optim.lr_scheduler.PolynomialLR(optimiser, recipe.sasrec_epochs)
    known = data.words.first_known_row, data.words.num_item_rows
    predicted_a_batch = recipe.sasrec_batch * (np.count_nonzero(rows) / len(rows) - 1)
    for epoch in range(recipe.sasrec_epochs):
        progress("SASRec", epoch, recipe.sasrec_epochs, "")
        for batch in _batches(rows, recipe.sasrec_batch, rng):
            drawn = torch.from_numpy(rng.integers(*known, recipe.sasrec_drawn))
            optimiser.zero_grad()
            loss = next_item_loss(encoder, torch.from_numpy(batch), drawn)
            (loss / predicted_a_batch).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        falling.step()
    return encoder.eval()


def sasrec(
    data: LeaveLast, seed: int, recipe: Recipe, progress: ProgressListener
) -> TrainedModel:
    """Train SASRec; score by the newest state."""
    encoder = trained_sasrec(data, seed, recipe, progress)

    @torch.no_grad()
    def scorer(place: int, users: Int64s) -> Scores:
        history = torch.from_numpy(data.words.item_rows(data.before(place, users)))
        candidates = torch.from_numpy(data.words.item_rows(data.candidates(place)[users]))
        states = encoder(history)[:, -1, :, None]  # (U, D, 1)
        scores: Scores = (encoder.items(candidates) @ states).squeeze(-1).numpy()
        return scores

    return TrainedModel(scorer=scorer)


def bare(pretraining: Pretraining) -> Variant:
    """Return the pre-trained encoder by itself: it predicts a [MASK] at the end."""

    def variant(
        data: LeaveLast, seed: int, recipe: Recipe, progress: ProgressListener
    ) -> TrainedModel:
        config = replace(recipe.pretraining, pretraining=pretraining, seed=seed)
        options = FitOptions(progress=progress)
        model, heads, found_s = pretrained(data, config, options)

        def scorer(place: int, users: Int64s) -> Scores:
            return predicted_scores(model, heads, data.questions(place, users), pretraining)

        return TrainedModel(scorer=scorer, found_s=found_s)

    return variant


def srp4ctr(pretraining: Pretraining) -> Variant:
    """Return SRP4CTR: pre-trained or not, then fine-tuned on what came next."""

    def variant(
        data: LeaveLast, seed: int, recipe: Recipe, progress: ProgressListener
    ) -> TrainedModel:
        config = replace(recipe.pretraining, pretraining=pretraining, seed=seed)
        options = FitOptions(progress=progress)
        model, _, found_s = pretrained(data, config, options)
        rng = np.random.default_rng(seed)
        training_slates = data.training_slates(
            rng, recipe.negatives, recipe.rounds, recipe.label_share
        )
        clicks = replace(recipe.clicks, seed=seed)
        if pretraining == "none":  # a lower rate would keep what was not learned
            clicks = replace(clicks, encoder_learning_rate_scale=1.0)
        finetune(model, training_slates, clicks, options)

        def scorer(place: int, users: Int64s) -> Scores:
            slates = data.questions(place, users)
            return _by_user(slates, serving_logits(model, slates).ranking)

        return TrainedModel(scorer=scorer, found_s=found_s)

    return variant


@torch.no_grad()
def predicted_scores(
    model: SRP4CTR, heads: MaskedHeads, slates: Slates, pretraining: Pretraining
) -> Scores:
    """Return the tied softmax's logits (U, 100) of a [MASK] appended to each history."""
    model.eval()
    heads.eval()
    longest = int(history_lengths(slates.tensors).max(initial=0)) + 1
    everyone = np.arange(len(slates))
    history = newest(torch_rows(_appended(slates), everyone, CPU), longest)
    shown = torch_rows(
        {name: slates.tensors[name] for name in CANDIDATE_ROWS}, everyone, CPU
    )
    rows, attributes = (shown[name] for name in CANDIDATE_ROWS)  # (U, N), (U, N, A)
    if pretraining == "bert":
        history, attributes = ids_only(history), torch.zeros_like(attributes)
    last = torch.zeros_like(history["history_item_rows"], dtype=torch.bool)
    last[:, -1] = True
    hidden = hide(history, Masks(items=last, behaviors=last, attributes=last))
    states = model.encoder.predictions(*(hidden[name] for name in HISTORY_NAMES))
    vectors = model.embedding.item_vectors(rows, attributes)
    matched = vectors @ states[:, -1, :, None]  # (U, N, 1)
    logits = matched.squeeze(-1) + heads.item_bias[rows]
    return _by_user(slates, logits.numpy())


def pretrained(
    data: LeaveLast, config: RefreshConfig, options: FitOptions
) -> tuple[SRP4CTR, MaskedHeads, float]:
    """Return what pre-training made, and what it had cost if it was on the disk already.

    Variants that begin with the same share it.
    """
    torch.manual_seed(config.seed)
    model = SRP4CTR(config.model, TableSizes.of(data.words, data.length))
    heads = MaskedHeads(config.model, model.embedding)
    both = torch.nn.ModuleDict({"model": model, "heads": heads})
    key = digest_of(data.name, len(data.counts), config, code_digest(*VARIANTS_CODE))
    file = ENCODERS / f"{key}.safetensors"
    began = time.process_time()
    seconds = trained_once(
        both, file, lambda: pretrain(model, data.windows(), config, options, heads)
    )
    return model, heads, seconds - (time.process_time() - began)


def _appended(slates: Slates) -> dict[str, NDArray[np.generic]]:
    """Return the histories with room for one more at the end; it is no padding."""
    moved = {name: np.roll(slates.tensors[name], -1, axis=1) for name in HISTORY_NAMES}
    moved["history_item_rows"][:, -1] = MASK_ROW
    return moved


def _by_user(slates: Slates, logits: NDArray[np.float32]) -> Scores:
    """Return the shown candidates' logits (U, 100): a long slate is in pieces."""
    scores: Scores = logits[slates.shown].reshape(-1, 1 + NEGATIVES)
    return scores


def _batches(rows: Int64s, size: int, rng: np.random.Generator) -> list[Int64s]:
    """Return sequences of alike lengths together, each batch without common padding."""
    lengths = (rows != 0).sum(axis=1)
    # Equal lengths in a new order each time; sequences of one item teach nothing.
    order = np.lexsort((rng.random(len(rows)), lengths))
    order = order[lengths[order] > 1]
    parts = np.array_split(order, max(len(order) // size, 1))
    return [
        rows[parts[i]][:, -lengths[parts[i]].max() :] for i in rng.permutation(len(parts))
    ]


VARIANTS: dict[str, Variant] = {
    "popularity": popularity,
    "sasrec": sasrec,
    "fg-bert ids only": bare("bert"),
    "fg-bert items": bare("items"),
    "fg-bert behaviors": bare("behaviors"),
    "fg-bert": bare("both"),
    "srp4ctr": srp4ctr("both"),
    "srp4ctr-none": srp4ctr("none"),
}
