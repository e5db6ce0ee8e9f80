"""Labels → how well a training knows the items that are clicked next.

In: the slates of training and of calibration. Out: the share of item ids to leave out of a
batch. Where clicked items are mostly new, as in news or a large catalogue with few visits,
a model that learns ids learns its examples by heart.
"""

from dataclasses import replace

import numpy as np

from srp4ctr.features.tensors.vocabulary import FIRST_KNOWN_ROW
from srp4ctr.training.config import FAMILIAR_ID_DROPOUT, RefreshConfig
from srp4ctr.training.dataset.batches import Slates

UNFAMILIAR_ID_DROPOUT = 0.95
FAMILIAR_CLICKS = 5


def median_clicks(train: Slates, later: Slates) -> float | None:
    """Return how often training saw a click on the items of the ``later`` clicks.

    The median over these clicks; an item that the vocabulary lacks has none. None without
    later clicks.
    """
    clicked = _clicked_rows(later)
    if not len(clicked):
        return None
    before = _clicked_rows(train)
    counts = np.bincount(before, minlength=1 + int(max(clicked.max(), FIRST_KNOWN_ROW)))
    counts[:FIRST_KNOWN_ROW] = 0
    return float(np.median(counts[clicked]))


def with_id_dropout(
    config: RefreshConfig, train: Slates, later: Slates
) -> tuple[RefreshConfig, str]:
    """Return ``config`` with an ``id_dropout``, and a note if it is not the usual one."""
    if config.id_dropout is not None:
        return config, ""
    clicks = median_clicks(train, later)
    if clicks is None or clicks >= FAMILIAR_CLICKS:
        return replace(config, id_dropout=FAMILIAR_ID_DROPOUT), ""
    note = (
        f"half of the clicks to predict are on items with at most {clicks:g} clicks in "
        f"training, so that {UNFAMILIAR_ID_DROPOUT:.0%} of a batch's item ids are hidden "
        "(training.id_dropout)"
    )
    return replace(config, id_dropout=UNFAMILIAR_ID_DROPOUT), note


def _clicked_rows(slates: Slates) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    clicked = (slates.clicked > 0) & slates.shown
    rows = np.asarray(slates.tensors["candidate_item_rows"])[clicked]
    return rows.astype(np.int64)
