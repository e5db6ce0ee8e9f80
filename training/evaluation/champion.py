"""The bundle that serves now, on the newest slice: a new one must not be worse.

In: the serving bundle's files and the judged requests in its own vocabulary. Out: three
gates, paired by user. Its training cannot have seen the slice, because it is the newest.

What each bundle loses against the one before it adds up in the gates of its card, until a
bundle has won it back: else every refresh could lose the tolerance once more.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.features.bundles.gates import Gate, Phase, finite, gates_of, skipped
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.features.tensors.vocabulary import load as load_vocabulary
from srp4ctr.training.dataset.batches import Slates, torch_rows
from srp4ctr.training.evaluation import quality
from srp4ctr.training.evaluation.evaluate import Scored, scored
from srp4ctr.training.evaluation.quality import Difference
from srp4ctr.training.export import onnx_export

GATES = gates_of(Phase.CHAMPION)
SCORING_ROWS = 512  # requests at once


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierBundle:
    """A bundle of this code's schema, with the vocabulary that it reads examples by."""

    folder: Path
    card: BundleManifest
    vocabulary: Vocabulary

    @classmethod
    def read(cls, folder: Path) -> "EarlierBundle":
        """Return the bundle in ``folder``; ``ValueError`` if it is gone or damaged."""
        vocabulary = load_vocabulary(folder / bundle.VOCABULARY_FILE)
        return cls(folder=folder, card=bundle.verify(folder), vocabulary=vocabulary)


@dataclass(frozen=True, slots=True)
class NoBundle:
    """There is no earlier bundle to compare with, or to start from."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One metric of a new bundle against the champion's."""

    champion: float
    difference: Difference
    sign: float
    """1 where a higher value is better, -1 where a lower one is."""


def load(folder: Path | None, length: int) -> EarlierBundle | NoBundle:
    """Return the bundle in ``folder``, or why it cannot score histories of ``length``."""
    if folder is None:
        return NoBundle("nothing serves yet")
    try:
        found = EarlierBundle.read(folder)
    except ValueError as error:  # it may be gone, damaged, or of another schema
        return NoBundle(f"what serves cannot score this slice: {error}")
    if (made_for := found.card.sizes.get("L")) != length:
        return NoBundle(f"{found.card.version} was made for histories of {made_for}")
    return found


def skip(reason: str, before: Iterable[Gate] = ()) -> tuple[Gate, ...]:
    """Return the gates where nothing can be compared, for ``reason``.

    ``before`` are those of the champion's card: what it has lost stays lost.
    """
    losses = _by_name(before)
    return tuple(_skipped(gate.name, reason, losses[gate.name]) for gate in GATES)


def rescored(
    champion: EarlierBundle | NoBundle, slates: Slates | None
) -> Scored | NoBundle:
    """Return the scores of the judged ``slates`` by ``champion``, or why there are none.

    The slates have the rows of its vocabulary; None: there is no champion.
    """
    if isinstance(champion, NoBundle):
        return champion
    assert slates is not None  # cut with the champion's vocabulary
    if champion.card.boundary_ms > int(slates.request_at_ms[0]):
        return NoBundle(f"{champion.card.version} was trained on these requests")
    return score(champion.folder, slates)


def compare(
    version: str,
    champions: Scored,
    judged: Scored,
    tolerance: float,
    before: Iterable[Gate] = (),
) -> tuple[Gate, ...]:
    """Return whether ``judged`` is no worse than ``champions`` on the same impressions.

    ``version`` made the latter, and ``before`` are the gates of its card. Worse means by
    more than the one-sided margin of error (95 %, by users) plus ``tolerance``: in this
    refresh, and together with what was lost before.
    """
    losses = _by_name(before)
    return tuple(
        _gate(
            gate.name,
            version,
            gate.load()(judged, champions),
            tolerance,
            losses[gate.name],
        )
        for gate in GATES
    )


def compare_log_loss(new: Scored, old: Scored) -> Comparison:
    """Compare the log loss of the probabilities."""
    clicked, scores = new.clicked, (new.probabilities, old.probabilities)
    return Comparison(
        champion=quality.log_loss(clicked, old.probabilities),
        difference=quality.log_loss_difference(clicked, *scores, new.users),
        sign=-1.0,
    )


def compare_auc(new: Scored, old: Scored) -> Comparison:
    """Compare the AUC of the probabilities."""
    clicked, scores = new.clicked, (new.probabilities, old.probabilities)
    return Comparison(
        champion=quality.auc(clicked, old.probabilities),
        difference=quality.auc_difference(clicked, *scores, new.users),
        sign=1.0,
    )


def compare_gauc(new: Scored, old: Scored) -> Comparison:
    """Compare the AUC within a request, by the ranking scores."""
    clicked, requests, orders = new.clicked, new.requests, (new.ranking, old.ranking)
    return Comparison(
        champion=quality.gauc(clicked, old.ranking, requests),
        difference=quality.gauc_difference(clicked, *orders, requests, new.users),
        sign=1.0,
    )


def score(folder: Path, slates: Slates) -> Scored:
    """Return the shown impressions of ``slates``, scored by the bundle in ``folder``."""
    scorer = onnx_export.scorer(folder)
    made = np.full((2, *slates.clicked.shape), np.nan, dtype=np.float32)
    for start in range(0, len(slates), SCORING_ROWS):
        rows = np.arange(start, min(start + SCORING_ROWS, len(slates)))
        tensors = torch_rows(slates.tensors, rows, torch.device("cpu"))
        made[:, rows] = scorer({n: each.numpy() for n, each in tensors.items()})
    return scored(slates, *made)


def _by_name(before: Iterable[Gate]) -> dict[str, Gate]:
    """Return the gate of each of GATES; one that lost nothing if ``before`` has none."""
    none = {gate.name: skipped(gate.name, "") for gate in GATES}
    return none | {each.gate: each for each in before if each.gate in none}


def _skipped(name: str, reason: str, before: Gate) -> Gate:
    skip_gate = skipped(name, reason)
    return replace(skip_gate, lost=before.lost, lost_error=before.lost_error)


def _gate(
    name: str, version: str, compared: Comparison, tolerance: float, before: Gate
) -> Gate:
    champion, difference = compared.champion, compared.difference
    if np.isnan(difference.value):
        return _skipped(name, "undefined: too few clicks", before)
    if np.isinf(difference.margin):
        return _skipped(name, "of one user: the margin of error is unknown", before)
    lost = before.lost - compared.sign * difference.value
    error = math.hypot(before.lost_error, difference.standard_error)
    total = Difference(value=lost, standard_error=error)
    allowed = min(difference.margin, total.margin - before.lost) + tolerance
    shown = round(difference.value, 4) + 0.0  # a rounding error below zero is no "-0.0000"
    earlier = (
        f", of which earlier refreshes have used {before.lost:.4f}" if before.lost else ""
    )
    return Gate(
        gate=name,
        passed=bool(compared.sign * difference.value >= -allowed),
        value=finite(champion + difference.value),
        limit=finite(champion - compared.sign * allowed),
        note=f"{version} has {champion:.4f}; difference {shown:+.4f}; tolerated are the "
        f"margin of error {total.margin:.4f} and training.champion_tolerance "
        f"{tolerance:g}{earlier}",
        lost=max(lost, 0.0),
        lost_error=error if lost > 0.0 else 0.0,
    )
