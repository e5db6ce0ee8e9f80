"""Labels → how well a training knows the items that are clicked next.

In: the slates of training and of calibration. Out: the share of item ids to leave out of a
batch. Where the clicked items are mostly new, in a large catalogue with few visits, a model
that learns ids learns its examples by heart; where they are short-lived, as news are, it
learns what was popular then.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.tensors.vocabulary import FIRST_KNOWN_ROW
from srp4ctr.training.config import FAMILIAR_ID_DROPOUT, RefreshConfig
from srp4ctr.training.dataset.batches import Slates

UNFAMILIAR_ID_DROPOUT = 0.95
FAMILIAR_CLICKS = 5
NEWEST_SHARE = 0.1  # of the training's requests
SHORT_LIVED_SHARE = 0.3
"""Of the clicks on an item, those among the newest tenth of the requests: a tenth where
items stay (.08 to .11 on hotels, films and short videos), half on news (.48, .59)."""


def clicks_before(train: Slates, later: Slates) -> tuple[float, float] | None:
    """Return how often training saw a click on the items of the ``later`` clicks, and when.

    The median over these clicks, where an item that the vocabulary lacks has none; and
    which share of those of ``train`` is in the newest tenth of its requests, 0.0 of none.
    None without later clicks.
    """
    clicked = _clicked_rows(later)
    if not len(clicked):
        return None
    newest = train.take(slice(len(train) - round(NEWEST_SHARE * len(train)), None))
    of_all, of_newest = (_counts(each, clicked) for each in (train, newest))
    total = int(of_all.sum())
    return float(np.median(of_all)), float(of_newest.sum() / total) if total else 0.0


def with_id_dropout(
    config: RefreshConfig, train: Slates, later: Slates
) -> tuple[RefreshConfig, str]:
    """Return ``config`` with an ``id_dropout``, and a note if it is not the usual one."""
    if config.id_dropout is not None:
        return config, ""
    clicks, share = clicks_before(train, later) or (FAMILIAR_CLICKS, 0.0)
    why = ""
    if clicks < FAMILIAR_CLICKS:
        known = f"at most {clicks:g} clicks" if clicks else "no click"
        why = f"half of the clicks to predict are on items with {known} in training"
    elif share > SHORT_LIVED_SHARE:
        why = (
            f"items are short-lived: {share:.0%} of the clicks on those that are clicked "
            f"now came in the newest {NEWEST_SHARE:.0%} of the requests"
        )
    if not why:
        return replace(config, id_dropout=FAMILIAR_ID_DROPOUT), ""
    note = (
        f"{why}, so that {UNFAMILIAR_ID_DROPOUT:.0%} of a batch's item ids are hidden "
        "(training.id_dropout)"
    )
    return replace(config, id_dropout=UNFAMILIAR_ID_DROPOUT), note


def _counts(slates: Slates, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the clicks of ``slates`` on each item of ``rows``, 0 where items share one."""
    least = 1 + int(rows.max(initial=FIRST_KNOWN_ROW))
    counts: NDArray[np.int64] = np.bincount(_clicked_rows(slates), minlength=least)
    counts[:FIRST_KNOWN_ROW] = 0
    return counts[rows]


def _clicked_rows(slates: Slates) -> NDArray[np.int64]:
    clicked = (slates.clicked > 0) & slates.shown
    rows = np.asarray(slates.tensors["candidate_item_rows"])[clicked]
    return rows.astype(np.int64)
