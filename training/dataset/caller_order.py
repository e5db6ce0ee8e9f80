"""The numbers of a training set's candidates: where they come from, and if one is an order.

A position's bias measures how much a place helps an item, and serving leaves it out. If the
impressions stand where the caller's order put them, order and place say the same: the bias
would take what the order knows, and serving would lose it. So it is not trained then.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.columns import NUMBER_WIDTH
from srp4ctr.features.tensors.caller_numbers import MISSING, VALUE
from srp4ctr.training.dataset.batches import Slates, in_parts

EQUAL_SHARE = 0.99
"""Of the impressions: from here on a number is the order in which they were shown."""
MAX_READ = 20_000  # slates, evenly from all
_ROWS_AT_ONCE = 1024  # a slate is compared with itself: 64 x 64 pairs


def shown_order(slates: Slates, names: Sequence[str]) -> tuple[str, float] | None:
    """Return the number of ``names`` that orders the slates as they were shown.

    With the share of the impressions that stand where it puts them; None if no number does
    so for ``EQUAL_SHARE`` of them. Rising and falling numbers count, and slates of one item
    do not.
    """
    shares = order_shares(slates, names)
    best = max(shares, key=shares.__getitem__, default=None)
    if best is None or shares[best] < EQUAL_SHARE:
        return None
    return best, shares[best]


def order_shares(slates: Slates, names: Sequence[str]) -> dict[str, float]:
    """Return of each number the share of the impressions that stand where it puts them."""
    if not names:
        return {}
    equal, total = np.zeros((2, len(names))), 0
    for part in _parts(slates):
        shown = part.shown & (part.shown.sum(axis=1) > 1)[:, None]
        total += int(shown.sum())
        places = _smaller(part.positions.astype(np.float64), shown)
        columns = part.tensors["candidate_features"][..., -NUMBER_WIDTH * len(names) :]
        numbers = columns.reshape(*shown.shape, len(names), NUMBER_WIDTH)
        for place in range(len(names)):
            has_number = shown & (numbers[..., place, MISSING] == 0)
            values = numbers[..., place, VALUE].astype(np.float64)
            for row, turned in enumerate((values, -values)):
                is_equal = _smaller(turned, has_number) == places
                equal[row, place] += int((is_equal & has_number).sum())
    shares = equal.max(axis=0) / max(total, 1)
    return dict(zip(names, shares.tolist(), strict=True))


def notes_of(numbers: Mapping[str, Sequence[int]], counts: Mapping[str, int]) -> list[str]:
    """Return what a report says of where the numbers come from.

    ``numbers`` are, by name, how many impressions have it, and how many of these carry no
    columns of an answer; ``counts`` are the training set's.
    """
    notes = []
    impressions = counts.get("impressions", 0)
    for name, (present, computed) in numbers.items():
        if not present:
            notes.append(f"no impression has the number {name}: is it sent by this name?")
        elif computed:
            notes.append(
                f"{name}: {computed:,} of {impressions:,} impressions carry no columns of "
                "an answer, so that ranks and means are of the shown list, not of the "
                "list that the caller had ranked"
            )
    return notes


def note_of_order(order: tuple[str, float] | None) -> str:
    """Return what a report says of ``shown_order``; "" without one."""
    if order is None:
        return ""
    name, share = order
    return (
        f"{share:.1%} of the impressions stand where {name} puts them: no bias of "
        f"positions was trained, and the gain from {name} contains position bias"
    )


def _parts(slates: Slates) -> Iterator[Slates]:
    some = slates.take(slice(None, None, 1 + len(slates) // MAX_READ))
    for rows in in_parts(len(some)):
        read = some.take(rows)
        for first in range(0, len(read), _ROWS_AT_ONCE):
            yield read.take(slice(first, first + _ROWS_AT_ONCE))


def _smaller(values: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return of each value (R, N) how many ``present`` ones of its row are smaller."""
    less = values[:, None, :] < values[:, :, None]
    counts: NDArray[np.int64] = (less & present[:, None, :]).sum(axis=2)
    return counts
