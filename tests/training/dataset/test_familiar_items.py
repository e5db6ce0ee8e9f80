from dataclasses import replace

import numpy as np
import pytest

from srp4ctr.features.tensors.vocabulary import FIRST_KNOWN_ROW
from srp4ctr.training.config import FAMILIAR_ID_DROPOUT, RefreshConfig
from srp4ctr.training.dataset.batches import Slates
from srp4ctr.training.dataset.familiar_items import (
    UNFAMILIAR_ID_DROPOUT,
    clicks_before,
    with_id_dropout,
)

NEW = FIRST_KNOWN_ROW - 1  # a row of items that the vocabulary lacks


def slates_of(*clicked_rows: int) -> Slates:
    """Return a slate for each click, of the clicked item and of one that was only shown."""
    rows = np.array(clicked_rows, np.int32)
    shown = np.stack([rows, rows + 1, np.zeros_like(rows)], axis=1)
    return Slates(
        tensors={"candidate_item_rows": shown},
        clicked=np.tile(np.array([1, 0, 0], np.float32), (len(rows), 1)),
        positions=np.zeros(shown.shape, np.int64),
        log_draw=np.zeros(shown.shape, np.float32),
        request_at_ms=np.arange(len(rows)),
        user_ids=np.full(len(rows), "u"),
    )


def test_the_median_is_over_later_clicks() -> None:
    first, second, third = FIRST_KNOWN_ROW + np.array([0, 5, 900])
    train = slates_of(*[first] * 7, *[second] * 3)
    assert clicks_before(train, slates_of(first, second, third)) == (3.0, 0.1)
    assert clicks_before(train, slates_of(first, first, third)) == (7.0, 0.0)
    assert clicks_before(train, slates_of()) is None


def test_items_that_share_a_row_are_new_each_time() -> None:
    assert clicks_before(slates_of(*[NEW] * 100), slates_of(NEW)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("before", "share"), [(4, UNFAMILIAR_ID_DROPOUT), (5, FAMILIAR_ID_DROPOUT)]
)
def test_ids_are_hidden_where_items_are_clicked_rarely(before: int, share: float) -> None:
    item = FIRST_KNOWN_ROW
    train, later = slates_of(*[item] * before), slates_of(item)
    config, note = with_id_dropout(RefreshConfig(), train, later)
    assert config.id_dropout == config.dropped_ids == share
    assert ("at most 4 clicks" in note) == (share == UNFAMILIAR_ID_DROPOUT)
    given = replace(RefreshConfig(), id_dropout=0.1)
    assert with_id_dropout(given, train, later) == (given, "")


@pytest.mark.parametrize(
    ("newest", "share"), [(3, FAMILIAR_ID_DROPOUT), (4, UNFAMILIAR_ID_DROPOUT)]
)
def test_ids_are_hidden_where_items_are_short_lived(newest: int, share: float) -> None:
    """Ten of a hundred requests are the newest: with 3 of 10 clicks an item stays."""
    item, other = FIRST_KNOWN_ROW, FIRST_KNOWN_ROW + 9
    clicks = [*[item] * (10 - newest), *[other] * (80 + newest)]
    train = slates_of(*clicks, *[item] * newest, *[other] * (10 - newest))
    assert clicks_before(train, slates_of(item)) == (10.0, newest / 10)
    config, note = with_id_dropout(RefreshConfig(), train, slates_of(item))
    assert config.id_dropout == share
    assert ("40% of the clicks" in note) == (share == UNFAMILIAR_ID_DROPOUT)


def test_without_later_clicks_ids_are_dropped_as_usual() -> None:
    config, note = with_id_dropout(RefreshConfig(), slates_of(5), slates_of())
    assert (config.id_dropout, note) == (FAMILIAR_ID_DROPOUT, "")
    assert RefreshConfig().dropped_ids == FAMILIAR_ID_DROPOUT
