"""The bundle that serves now, on the newest slice: a new one must not be worse.

In: the serving bundle's files and the judged requests in its own vocabulary. Out: three
gates, paired by user. Its training cannot have seen the slice, which is the newest.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from srp4ctr.features import bundle, vocabulary
from srp4ctr.features.bundle import BundleManifest
from srp4ctr.features.gates import Gate, finite, skipped
from srp4ctr.features.vocabulary import Vocabulary
from srp4ctr.training import export, metrics, paired
from srp4ctr.training.batches import EXAMPLE_NAMES, Slates, torch_rows
from srp4ctr.training.judging import Scored, scored
from srp4ctr.training.paired import Difference

GATES = ("champion_log_loss", "champion_auc", "champion_gauc")
SCORING_ROWS = 512  # requests at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """A bundle that can score what this code cuts."""

    folder: Path
    card: BundleManifest
    words: Vocabulary


def load(folder: Path | None, length: int) -> Champion | str:
    """Return the bundle in ``folder``, or why it cannot score histories of ``length``."""
    if folder is None:
        return "nothing serves yet"
    try:
        card = bundle.verify(folder)
        words = vocabulary.load(folder / bundle.VOCABULARY_FILE)
    except ValueError as error:  # it may be gone, damaged, or of another schema
        return f"what serves cannot score this slice: {error}"
    if card.sizes.get("L") != length:
        return f"{card.version} was made for histories of {card.sizes.get('L')}"
    return Champion(folder=folder, card=card, words=words)


def none(why: str) -> tuple[Gate, ...]:
    """Return the gates where there is no champion to compare with."""
    return tuple(skipped(name, why) for name in GATES)


def compare(
    champion: Champion, slates: Slates, judged: Scored, tolerance: float
) -> tuple[Gate, ...]:
    """Return whether ``judged`` is no worse than ``champion`` on the same impressions.

    ``slates`` are those of ``judged``, with the champion's rows. Worse is what exceeds
    one-sided luck (95 %, users drawn) and ``tolerance``.
    """
    if champion.card.boundary_ms > int(slates.request_at_ms[0]):
        return none(f"{champion.card.version} has learnt from these requests")
    other = score(champion.folder, slates)
    clicked, users = judged.clicked, judged.users
    pair = judged.probabilities, other.probabilities
    version = champion.card.version
    log_loss = paired.log_loss(clicked, *pair, users)
    gauc = paired.gauc(clicked, pair, judged.requests, users)
    theirs = other.clicked, other.probabilities
    figures = (
        (metrics.log_loss(*theirs), log_loss, -1.0),
        (metrics.auc(*theirs), paired.auc(clicked, *pair, users), 1.0),
        (metrics.gauc(*theirs, other.requests), gauc, 1.0),
    )
    return tuple(
        _gate(name, f"{version} has {figure:.4f}", (figure, difference, sign), tolerance)
        for name, (figure, difference, sign) in zip(GATES, figures, strict=True)
    )


def score(folder: Path, slates: Slates) -> Scored:
    """Return the shown impressions of ``slates``, scored by the bundle in ``folder``."""
    answer = export.opened(folder)
    probabilities = np.full(slates.clicked.shape, np.nan, dtype=np.float32)
    for start in range(0, len(slates), SCORING_ROWS):
        rows = np.arange(start, min(start + SCORING_ROWS, len(slates)))
        tensors = torch_rows(slates.tensors, rows, torch.device("cpu"))
        inputs = {name: tensors[name].numpy() for name in EXAMPLE_NAMES}
        probabilities[rows] = answer(inputs)
    return scored(slates, probabilities)


def _gate(
    name: str, who: str, measured: tuple[float, Difference, float], tolerance: float
) -> Gate:
    theirs, difference, sign = measured
    if np.isnan(difference.value):
        return skipped(name, "undefined on so few clicks")
    allowed = difference.luck + tolerance
    shown = round(difference.value, 4) + 0.0  # a rounding error below zero is no "-0.0000"
    return Gate(
        gate=name,
        passed=bool(sign * difference.value >= -allowed),
        value=finite(theirs + difference.value),
        limit=finite(theirs - sign * allowed),
        note=f"{who}; difference {shown:+.4f}, of which {difference.luck:.4f} "
        f"may be luck and {tolerance:g} is training.champion_tolerance",
    )
