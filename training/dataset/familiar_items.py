"""Labels → how well a training knows the items that are clicked next.

In: the slates of training and of calibration. Out: the share of item ids to leave out of a
batch. Where the clicked items are mostly new, in a large catalogue with few visits, a model
that learns ids learns its examples by heart; where they live shortly, as news do, it learns
what was popular then.
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


def median_clicks(train: Slates, later: Slates) -> float | None:
    """Return how often training saw a click on the items of the ``later`` clicks.

    The median over these clicks; an item that the vocabulary lacks has none. None without
    later clicks.
    """
    clicked = _clicked_rows(later)
    return float(np.median(_counts(train, later)[clicked])) if len(clicked) else None


def newest_share(train: Slates, later: Slates) -> float:
    """Return which share of the clicks on the items of ``later`` clicks came just before.

    That is in the newest tenth of the requests of ``train``; 0.0 where there are none.
    """
    clicked = _clicked_rows(later)
    newest = train.take(slice(len(train) - round(NEWEST_SHARE * len(train)), None))
    every = _counts(train, later)[clicked].sum()
    return float(_counts(newest, later)[clicked].sum() / every) if every else 0.0


def with_id_dropout(
    config: RefreshConfig, train: Slates, later: Slates
) -> tuple[RefreshConfig, str]:
    """Return ``config`` with an ``id_dropout``, and a note if it is not the usual one."""
    if config.id_dropout is not None:
        return config, ""
    clicks, share, why = median_clicks(train, later), newest_share(train, later), ""
    if clicks is not None and clicks < FAMILIAR_CLICKS:
        why = (
            f"half of the clicks to predict are on items with at most {clicks:g} clicks in "
            "training"
        )
    elif share > SHORT_LIVED_SHARE:
        why = (
            f"items live shortly: {share:.0%} of the clicks on those that are clicked now "
            f"came in the newest {NEWEST_SHARE:.0%} of the requests"
        )
    if not why:
        return replace(config, id_dropout=FAMILIAR_ID_DROPOUT), ""
    note = (
        f"{why}, so that {UNFAMILIAR_ID_DROPOUT:.0%} of a batch's item ids are hidden "
        "(training.id_dropout)"
    )
    return replace(config, id_dropout=UNFAMILIAR_ID_DROPOUT), note


def _counts(slates: Slates, later: Slates) -> NDArray[np.int64]:
    """Return the clicks of ``slates`` by item row, 0 for items that share a row."""
    most = int(_clicked_rows(later).max(initial=FIRST_KNOWN_ROW))
    counts: NDArray[np.int64] = np.bincount(_clicked_rows(slates), minlength=1 + most)
    counts[:FIRST_KNOWN_ROW] = 0
    return counts


def _clicked_rows(slates: Slates) -> NDArray[np.int64]:
    clicked = (slates.clicked > 0) & slates.shown
    rows = np.asarray(slates.tensors["candidate_item_rows"])[clicked]
    return rows.astype(np.int64)
