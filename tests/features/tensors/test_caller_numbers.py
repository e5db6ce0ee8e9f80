import json

import numpy as np
import pytest

from srp4ctr.features.columns import number_columns
from srp4ctr.features.tensors.caller_numbers import (
    FROM_LAST,
    list_columns,
    logged_columns,
    with_from_last,
)

NAN = np.nan


def reference(numbers: list[float], keys: list[int], last: int = 0) -> list[list[float]]:
    """Return the columns of one number of a list; ``last`` was acted on last (0: none)."""
    counted: dict[int, float] = {}
    for key, number in zip(keys, numbers, strict=True):
        counted.setdefault(key, number)
    values = [v for key, v in counted.items() if key and v == v]
    of_last = counted.get(last, NAN) if last else NAN
    columns = []
    for key in keys:
        if key == 0:
            columns.append([0.0, 0.0, 0.0, 0.0, 0.0])
        elif (own := counted[key]) != own:
            columns.append([0.0, 0.5, 0.0, 0.0, 1.0])
        else:
            smaller = sum(value < own for value in values)
            equal = sum(value == own for value in values)
            rank = (smaller + (equal - 1) / 2) / len(values)
            from_last = own - of_last if of_last == of_last else 0.0
            mean = sum(values) / len(values)
            columns.append([own, rank, own - mean, from_last, 0.0])
    return columns


def columns_of(numbers: list[float], keys: list[int], last: int = 0) -> list[list[float]]:
    given = np.array(numbers, dtype=np.float32)[None, :, None]
    recency = 0.5 * (np.array([keys]) == last) * (last != 0)
    listed = list_columns(given, np.array([keys]))
    found: list[list[float]] = with_from_last(listed, recency)[0].tolist()
    return found


@pytest.mark.parametrize(
    ("numbers", "keys"),
    [
        ([80, 100, 60, 100], [1, 2, 3, 4]),  # two are alike
        ([80, 100, 60, 7], [1, 2, 3, 0]),  # the last pads
        ([80, NAN, 60, NAN], [1, 2, 3, 4]),
        ([80, 100, 5, 60], [1, 2, 1, 3]),  # the third is the first's item
        ([NAN, NAN], [1, 2]),
        ([3], [9]),
        ([4, 5], [0, 0]),
    ],
)
def test_columns_are_the_reference_s(numbers: list[float], keys: list[int]) -> None:
    found, expected = columns_of(numbers, keys), reference(numbers, keys)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_random_lists_have_the_columns_of_the_reference() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        keys = rng.integers(0, 12, 15).tolist()
        numbers = np.where(rng.random(15) < 0.2, NAN, rng.integers(0, 9, 15) / 4)
        given = numbers.tolist()
        last = int(rng.integers(0, 12))
        found, expected = columns_of(given, keys, last), reference(given, keys, last)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_each_request_and_each_number_is_a_list_of_its_own() -> None:
    rng = np.random.default_rng(2)
    numbers = rng.random((3, 5, 2)).astype(np.float32)
    keys = rng.permutation(15).reshape(3, 5) + 1
    recency = rng.random((3, 5)) * [[1.0], [1.0], [0.0]]
    found = with_from_last(list_columns(numbers, keys), recency).reshape(3, 5, 2, 5)
    for row in range(3):
        for place in range(2):
            last = keys[row, recency[row].argmax()] if row < 2 else 0
            values = numbers[row, :, place].tolist()
            expected = reference(values, keys[row].tolist(), last)
            np.testing.assert_allclose(found[row, :, place], expected, rtol=1e-5)


def test_an_infinite_number_is_clipped() -> None:
    assert np.isfinite(columns_of([np.inf, -np.inf, 1], [1, 2, 3])).all()


def test_a_number_has_five_columns_by_name() -> None:
    names = number_columns(["price", "order"])
    of_price = ("price_rank", "price_difference", "price_from_last", "price_missing")
    assert names[:6] == ("price", *of_price, "order")
    assert len(names) == 10


def test_a_number_is_compared_with_that_of_the_item_touched_last() -> None:
    numbers = np.array([[[80], [100], [NAN], [60]]], dtype=np.float32)
    columns = list_columns(numbers, np.array([[1, 2, 3, 4]]))
    for recency, expected in (
        ([0, 0.5, 0, 1.0], [20, 40, 0, 0]),  # the fourth is the newest of those listed
        ([0, 0.2, 0, 0], [-20, 0, 0, -40]),
        ([0, 0, 1.0, 0.5], [0, 0, 0, 0]),  # what was touched last has no number
        ([0, 0, 0, 0], [0, 0, 0, 0]),
    ):
        found = with_from_last(columns, np.array([recency], dtype=np.float64))
        np.testing.assert_array_equal(found[0, :, FROM_LAST], expected)


def test_a_log_s_columns_are_those_that_the_answer_returned() -> None:
    served = {"price": 80.0, "price_rank": 0.9, "price_difference": -3.0}
    served["price_from_last"] = 25.0
    texts = [json.dumps(served), None]  # the number of the second item was missing
    found = logged_columns(texts, ["price"], np.array([0, 0]))
    expected = [[80, 0.9, -3, 25, 0], [0, 0.5, 0, NAN, 1]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    found = with_from_last(found, np.array([1.0, 0.5]))  # of those shown, it was none
    np.testing.assert_array_equal(found[:, FROM_LAST], [25, 0])


def test_a_log_of_callers_numbers_is_compared_over_the_shown_list() -> None:
    texts = [json.dumps({"price": each}) for each in (80.1, 100, 60)]
    texts += ['{"other":1.0}', '{"price":7.0}']
    lists = np.array([0, 0, 0, 0, 1])
    found = logged_columns(texts, ["price"], lists)
    expected = np.array(columns_of([80.1, 100, 60, NAN], [1, 2, 3, 4]), np.float32)
    expected[:, FROM_LAST] = NAN  # the histories are not known here
    np.testing.assert_array_equal(found[:4], expected)
    np.testing.assert_array_equal(found[4], [7, 0, 0, NAN, 0])


def test_an_empty_log_has_no_columns() -> None:
    found = logged_columns([], ["price"], np.array([], np.int64))
    assert found.shape == (0, 5)
