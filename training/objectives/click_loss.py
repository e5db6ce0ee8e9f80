"""Logits and clicks → the loss of fine-tuning: by impression, by slate, by late clicks.

In: a batch's logits, clicks and which of its slots were shown. Out: sums and counts, whose
ratios are minimised. The loss per impression makes a logit a probability; the listwise loss
adds which of a slate's items was preferred.

Shapes: B requests, N candidates.
"""

import torch
from torch import Tensor
from torch.nn import functional

from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.objectives.objective import Counts, Term, Terms

_HIDDEN = -1e9  # the score of a slot that was not shown: its share underflows to 0


def click_terms(
    logits: Tensor, clicked: Tensor, shown: Tensor, config: RefreshConfig
) -> Terms:
    """Return the terms of the loss of ``logits``, ``clicked`` and ``shown`` (B, N)."""
    is_early = config.fake_negative_weighted
    by_impression = fake_negative_weighted_loss if is_early else log_loss
    terms = {"by_impression": by_impression(logits[shown], clicked[shown])}
    if config.slate_loss_weight:
        total, count = slate_loss(logits, clicked, shown)
        terms["by_slate"] = config.slate_loss_weight * total, count
    return terms


def click_counts(clicked: Tensor, shown: Tensor, config: RefreshConfig) -> Counts:
    """Return the counts of ``click_terms``, which need no logits."""
    counts = {"by_impression": _number(clicked[shown])}
    if config.slate_loss_weight:
        counts["by_slate"] = _slates_with_a_click(clicked, shown)
    return counts


def log_loss(logits: Tensor, clicked: Tensor) -> Term:
    """Return -(y ln p + (1 - y) ln(1 - p)), summed over impressions, and their number."""
    each = functional.binary_cross_entropy_with_logits
    return each(logits, clicked, reduction="sum"), _number(logits)


def slate_loss(logits: Tensor, clicked: Tensor, shown: Tensor) -> Term:
    """Return the cross entropy of the slates' clicks among what was shown, (B, N) each.

    -mean over clicks of ln(p_i / sum p_j), summed over the slates with a click, and the
    number of those. p is a probability, not exp(logit) as in a plain softmax: then the same
    p minimise both losses, and calibration does not suffer (ListCE of Bai et al.,
    Regression Compatible Listwise Objectives, CIKM 2023).
    """
    scores = functional.logsigmoid(logits).masked_fill(~shown, _HIDDEN)
    shares = torch.log_softmax(scores, dim=-1)  # (B, N)
    chosen = clicked * shown
    clicks = chosen.sum(-1)  # (B,)
    each = -(shares * chosen).sum(-1) / clicks.clamp(min=1.0)
    return each.sum(), _slates_with_a_click(clicked, shown)


def fake_negative_weighted_loss(logits: Tensor, clicked: Tensor) -> Term:
    """Return the loss of impressions that were non-clicks at first, and their number.

    For the newest impressions, later clicks are unknown. So each impression is a negative
    at once, and each click, when it comes, an additional positive. Such a stream has a
    click rate of p / (1 + p); weights without gradients correct it (Ktena et al.,
    Addressing Delayed Feedback for Continuous Training, RecSys 2019)::

        -(1 + p) y ln p - (1 - p) (1 + p) ln(1 - p)

    ``clicked`` are the clicks so far; both terms are in one batch.
    """
    with torch.no_grad():
        p = torch.sigmoid(logits)
    positive = (1.0 + p) * clicked * -functional.logsigmoid(logits)
    negative = (1.0 - p) * (1.0 + p) * -functional.logsigmoid(-logits)
    return (positive + negative).sum(), _number(logits)


def _slates_with_a_click(clicked: Tensor, shown: Tensor) -> Tensor:
    return ((clicked * shown).sum(-1) > 0).sum()


def _number(impressions: Tensor) -> Tensor:
    return torch.tensor(float(len(impressions)), device=impressions.device)
