import numpy as np
import pytest
from numpy.typing import NDArray

from srp4ctr.features.tensors.caller_numbers import list_columns
from srp4ctr.training.dataset.batches import Slates
from srp4ctr.training.dataset.caller_order import (
    note_of_order,
    notes_of,
    order_shares,
    shown_order,
)

RNG = np.random.default_rng(5)
ROWS, WIDTH = 400, 6
NAN = np.float32(np.nan)


def slates_of(*numbers: NDArray[np.float32], items: int = WIDTH) -> Slates:
    """Return slates shown at 0, 1, …, whose candidates have ``numbers`` (R, N) each."""
    keys = np.zeros((ROWS, WIDTH), np.int64)
    keys[:, :items] = 1 + np.arange(ROWS * items).reshape(ROWS, items)
    columns = list_columns(np.stack(numbers, axis=-1).astype(np.float32), keys)
    others = RNG.random((ROWS, WIDTH, 3)).astype(np.float32)
    return Slates(
        tensors={
            "candidate_item_rows": keys,
            "candidate_features": np.concatenate([others, columns], axis=-1),
        },
        clicked=np.zeros((ROWS, WIDTH), np.float32),
        positions=np.tile(np.arange(WIDTH), (ROWS, 1)),
        log_draw=np.zeros((ROWS, WIDTH), np.float32),
        request_at_ms=np.arange(ROWS),
        user_ids=np.full(ROWS, "u"),
    )


def prices() -> NDArray[np.float32]:
    return RNG.random((ROWS, WIDTH)).astype(np.float32)


def orders() -> NDArray[np.float32]:
    """Return orders of which some places are left out: only some items were shown."""
    return np.sort(RNG.permuted(np.tile(np.arange(50.0), (ROWS, 1)), axis=1)[:, :WIDTH], 1)


def test_an_order_that_impressions_repeat_is_found() -> None:
    slates = slates_of(prices(), orders())
    shares = order_shares(slates, ["price", "order"])
    assert shares["order"] == 1.0
    assert 0.05 < shares["price"] < 0.5
    assert shown_order(slates, ["price", "order"]) == ("order", 1.0)


def test_a_score_of_the_caller_that_falls_is_an_order_too() -> None:
    assert shown_order(slates_of(-orders()), ["score"]) == ("score", 1.0)


@pytest.mark.parametrize(("swapped", "is_order"), [(4, True), (24, False)])
def test_an_order_may_be_broken_in_one_of_a_hundred_impressions(
    swapped: int, is_order: bool
) -> None:
    order = orders()
    order[:swapped, :2] = order[:swapped, 1::-1]
    assert (shown_order(slates_of(order), ["order"]) is not None) is is_order


def test_an_order_that_few_impressions_have_is_none() -> None:
    order = orders()
    order[ROWS // 2 :] = NAN
    slates = slates_of(order)
    assert order_shares(slates, ["order"]) == {"order": 0.5}
    assert shown_order(slates, ["order"]) is None


def test_slates_of_one_item_say_nothing_of_an_order() -> None:
    assert order_shares(slates_of(prices(), items=1), ["price"]) == {"price": 0.0}


def test_without_numbers_there_is_no_order() -> None:
    slates = slates_of(prices())
    assert (order_shares(slates, []), shown_order(slates, [])) == ({}, None)


def test_slates_without_positions_keep_all_else() -> None:
    slates = slates_of(orders())
    found = slates.without_positions()
    assert not found.positions.any()
    assert slates.positions.any()
    assert found.tensors is slates.tensors


def test_a_report_says_where_the_numbers_come_from() -> None:
    counts = {"price": [90, 40], "order": [90, 0], "prcie": [0, 0]}
    note = "; ".join(notes_of(counts, {"impressions": 100}))
    assert "price: 40 of 100 impressions carry no columns of an answer" in note
    assert "no impression has the number prcie" in note
    assert notes_of({"order": [9, 0]}, {"impressions": 9}) == []
    of_order = note_of_order(("order", 0.998))
    assert "99.8% of the impressions stand where order puts them" in of_order
    assert "the gain from order contains position bias" in of_order
    assert note_of_order(None) == ""
