"""A source with new items, and with attributes, vectors or nothing to know them by.

No data set at hand has both clicks and texts or pictures, so that vectors are made of the
attributes: the sum of a random direction for each value, and noise. That shows what a
vector brings to a model, not how good an embedding of a text is.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from msgspec import structs

from benchmarks.quality.clicks.click_sources import Source
from srp4ctr.features.tensors.item_fields import number_of
from srp4ctr.streams.events.schema import (
    Forget,
    ItemUpdate,
    UserUpdate,
    in_sample,
    item_key,
)

CONTENTS = ("attributes", "vectors", "nothing")
NUMBERS = 64  # of a vector
NOISE = 0.5  # its length, where a value's is 1


def with_new_items(source: Source, share: float) -> Source:
    """Return ``source`` without what happened to a ``share`` of items before judging."""
    assert source.judged_from_ms is not None
    of_users = Forget | UserUpdate
    kept = [
        each
        for each in source.events
        if isinstance(each, of_users)
        or each.occurred_at >= source.judged_from_ms
        or not in_sample(f"new {each.item_id}", share)
    ]
    name = f"{source.name}, {share:.0%} of items new"
    return replace(source, name=name, events=kept)


def with_contents(source: Source, contents: str) -> Source:
    """Return ``source`` with the items' ``CONTENTS``."""
    updates = source.updates
    if contents == "vectors":
        updates = [_with_vector(each) for each in updates]
    elif contents == "nothing":
        updates = []
    return replace(source, name=f"{source.name}, {contents}", updates=updates)


def _with_vector(update: ItemUpdate) -> ItemUpdate:
    """Return ``update`` with a vector in place of its attributes."""
    noise = _direction(f"noise {update.item_id}") * NOISE
    vector = sum((_direction(value) for value in _values(update)), noise)
    return structs.replace(update, attributes={"embedding": vector.tolist()})


def _values(update: ItemUpdate) -> Iterator[str]:
    """Yield each attribute's values by name; of a number the power of two below it."""
    for name, value in update.kept_attributes().items():
        for each in [value] if isinstance(value, str) else value:
            number = number_of(each)
            if number is not None and not number.is_integer():
                each = f"{math.log2(1.0 + abs(number)):.0f}"
            yield f"{name}={each}"


def _direction(value: str) -> np.ndarray:
    """Return a random vector of length 1 that is the value's own."""
    drawn = np.random.default_rng(item_key(value) % 2**32).normal(size=NUMBERS)
    return drawn / np.linalg.norm(drawn)
