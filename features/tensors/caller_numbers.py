"""Numbers of candidates in one request → columns that say how each compares with its list.

In: the numbers that a caller sent with a request, a price or an order, NaN where one is
missing. Out: of each number its value, its rank and its difference to the mean among the
items of the request, its difference to that of the item among them that the user acted on
last, and whether it is missing. ``compiled.c`` computes the same.

Padding, further places of an item, and missing numbers count in no rank and no mean.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from srp4ctr.features.columns import MAX_NUMBER, NUMBER_WIDTH, number_columns
from srp4ctr.features.tensors.arrays import Float32s, Floats, Int64s

MIDDLE_RANK = 0.5  # of a missing number
# Columns of a number: its value, then those that ``NUMBER_SUFFIXES`` name.
VALUE, RANK, DIFFERENCE, FROM_LAST, MISSING = range(NUMBER_WIDTH)


def in_order(numbers: Float32s, sent: Sequence[str], names: Sequence[str]) -> Float32s:
    """Return the numbers (N, K) of ``names`` among those ``sent``; NaN of others.

    Of a name that is sent twice the first counts.
    """
    found = np.full((len(numbers), len(names)), np.nan, dtype=np.float32)
    for place, name in enumerate(names):
        if name in sent:
            found[:, place] = numbers[:, sent.index(name)]
    return found


def missing_numbers(item_keys: Int64s, count: int) -> Float32s:
    """Return ``count`` missing numbers of each item (…, N, K)."""
    return np.full((*item_keys.shape, count), np.nan, dtype=np.float32)


def list_columns(numbers: Float32s, item_keys: Int64s) -> Float32s:
    """Return the columns (B, N, 5 K) of B requests' numbers (B, N, K); 0 for padding.

    A further place of an item (``item_keys`` (B, N), 0 pads) has its first place's columns.
    FROM_LAST is NaN: ``with_from_last`` knows the user's history.
    """
    if not numbers.shape[2]:
        return np.empty((*item_keys.shape, 0), dtype=np.float32)
    first = first_places(item_keys)
    caller_values = np.take_along_axis(numbers, first[..., None], axis=1)
    counts = (first == np.arange(item_keys.shape[1])) & (item_keys != 0)
    rows = np.broadcast_to(np.arange(len(item_keys))[:, None], item_keys.shape)
    columns = _blank(caller_values)
    for place in range(numbers.shape[2]):
        values = as_values(caller_values[..., place])
        is_counted = counts & ~np.isnan(values)
        relative = np.full((*values.shape, 2), np.nan)
        relative[is_counted] = relative_columns(values[is_counted], rows[is_counted])
        relative = np.take_along_axis(relative, first[..., None], axis=1)
        _write(columns[..., place, :], values, relative)
    columns[item_keys == 0] = 0.0
    return columns.reshape(*item_keys.shape, NUMBER_WIDTH * numbers.shape[2])


def relative_columns(values: Floats, lists: Int64s) -> Floats:
    """Return rank and difference (M, 2) of M numbers, each in the list of its number.

    The rank is the share of the list's numbers that are smaller, half of the equal ones
    among them; the difference is to the list's mean.
    """
    _, lists = np.unique(lists, return_inverse=True)
    sizes = np.bincount(lists)
    # Sums are of the numbers in their order, as in compiled.c.
    means = np.bincount(lists, values) / np.maximum(sizes, 1)
    order = np.lexsort((values, lists))
    sorted_values, sorted_lists = values[order], lists[order]
    differs = np.diff(sorted_values, prepend=np.nan) != 0
    differs |= np.diff(sorted_lists, prepend=-1) != 0
    starts = np.flatnonzero(differs)
    group = np.cumsum(differs) - 1
    equal = np.diff(np.append(starts, len(order)))[group]
    smaller = starts[group] - (np.cumsum(sizes) - sizes)[sorted_lists]
    found = np.empty((len(values), 2))
    found[order, 0] = (smaller + 0.5 * (equal - 1)) / sizes[sorted_lists]
    found[:, 1] = values - means[lists]
    return found


def with_from_last(columns: Float32s, recency: Floats) -> Float32s:
    """Return ``columns`` (…, N, 5 K) with FROM_LAST, which stays where it is no NaN.

    Each number less that of the item with the largest ``recency`` (…, N): the one of the
    list that the user acted on last. 0 where there is none (all 0), or no number of it.
    """
    *lead, width = columns.shape
    found = columns.reshape(*lead, width // NUMBER_WIDTH, NUMBER_WIDTH).copy()
    if not found.size:
        return columns
    last = recency.argmax(axis=-1)[..., None, None, None]
    of_last = np.take_along_axis(found, last, axis=-3)  # (…, 1, K, 5)
    is_known = (recency.max(axis=-1) > 0)[..., None, None] & (of_last[..., MISSING] == 0)
    is_known = is_known & (found[..., MISSING] == 0)
    made = np.where(is_known, found[..., VALUE] - of_last[..., VALUE], np.float32(0))
    given = found[..., FROM_LAST]
    found[..., FROM_LAST] = np.where(np.isnan(given), made, given)
    return found.reshape(columns.shape)


def as_values(numbers: Float32s | Floats) -> Floats:
    """Return ``numbers`` as the model reads them: of float32's precision, finite or NaN."""
    values = np.asarray(numbers, dtype=np.float32).astype(np.float64)
    return np.clip(values, -MAX_NUMBER, MAX_NUMBER)


def first_places(item_keys: Int64s) -> Int64s:
    """Return of each place (B, N) the first place that has its key."""
    order = np.argsort(item_keys, axis=1, kind="stable")
    keys = np.take_along_axis(item_keys, order, axis=1)
    is_first = np.ones(keys.shape, dtype=bool)
    is_first[:, 1:] = keys[:, 1:] != keys[:, :-1]
    at = np.maximum.accumulate(is_first * np.arange(keys.shape[1]), axis=1)
    first = np.empty_like(order)
    np.put_along_axis(first, order, np.take_along_axis(order, at, axis=1), axis=1)
    return first


def logged_columns(
    texts: Sequence[str | None], names: Sequence[str], lists: Int64s
) -> Float32s:
    """Return the columns (M, 5 K) of M impressions, as ``list_columns`` does.

    ``texts`` are ``Impression.numbers`` in JSON. The columns are those that the answer
    returned. A list (``lists`` (M,)) without them has numbers of its caller's: their ranks
    and means are computed over the impressions, the only ones of the list that are known.
    """
    read = [msgspec.json.decode(text) if text else {} for text in texts]
    columns = _blank(np.empty((len(read), len(names)), dtype=np.float32))
    for place, name in enumerate(names):
        keys = number_columns([name])[:MISSING]
        given = np.array([[each.get(key, np.nan) for key in keys] for each in read])
        given = given.reshape(len(read), len(keys))
        values, relative = as_values(given[:, VALUE]), given[:, RANK : DIFFERENCE + 1]
        raw = ~np.isin(lists, lists[~np.isnan(relative[:, 0])]) & ~np.isnan(values)
        relative[raw] = relative_columns(values[raw], lists[raw])
        _write(columns[:, place], values, relative)
        columns[:, place, FROM_LAST] = given[:, FROM_LAST]
    return columns.reshape(len(read), NUMBER_WIDTH * len(names))


def _blank(numbers: Float32s) -> Float32s:
    """Return columns (…, K, 5) of missing ``numbers`` (…, K)."""
    columns = np.zeros((*numbers.shape, NUMBER_WIDTH), dtype=np.float32)
    columns[..., RANK], columns[..., MISSING] = MIDDLE_RANK, 1.0
    columns[..., FROM_LAST] = np.nan
    return columns


def _write(columns: Float32s, values: Floats, relative: Floats) -> None:
    """Write the columns (…, 5) of the ``values`` (…) that have a rank and a difference."""
    is_there = ~np.isnan(values) & ~np.isnan(relative).any(axis=-1)
    columns[is_there, VALUE] = values[is_there]
    columns[is_there, RANK : DIFFERENCE + 1] = relative[is_there]
    columns[is_there, MISSING] = 0.0
