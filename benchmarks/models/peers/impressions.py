"""Slates → a row per shown impression, as libraries want it: one file without pickles.

Keys are ``PART/NAME``; names begin with what the column is to DIN: ``target_X`` is the
candidate's, ``history_X`` what is compared with it, ``profile_X`` all else. ``rows/NAME``
is the size of a table. 0 pads.

Shapes: M shown impressions, L history, X context slots.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.clicks.click_examples import PARTS, Examples, Part
from srp4ctr.features.tensors import item_fields
from srp4ctr.features.tensors.schema import (
    CANDIDATE_FEATURES,
    NUM_CONTEXT_ROWS,
    REQUEST_FEATURES,
    Field,
)
from srp4ctr.training.dataset.batches import Arrays

SPANS = 16  # as many as our variants cut a counter into
NUM_COUNTERS = len(REQUEST_FEATURES) + len(CANDIDATE_FEATURES)
Edges = list[NDArray[np.float32]]


def save_impressions(examples: Examples, file: Path) -> None:
    """Write all parts, but only the clicks of ``train``: the others are evaluated here."""
    fields, edges = examples.sizes.item_fields, edges_of(examples.train)
    rows = table_rows(examples)
    found: dict[str, Any] = {f"rows/{name}": size for name, size in rows.items()}
    for name in PARTS:
        columns = flat(getattr(examples, name), edges, fields)
        found |= {f"{name}/{column}": values for column, values in columns.items()}
    found["train/clicked"] = examples.train.slates.clicked[examples.train.slates.shown]
    np.savez(file, **found)


def flat(part: Part, edges: Edges, fields: tuple[Field, ...]) -> Arrays:
    """Return the columns (M, …) of ``part``, in the order of its ``shown``."""
    tensors, shown = part.slates.tensors, part.slates.shown
    request = np.nonzero(shown)[0]
    columns: dict[str, NDArray[np.generic]] = {
        "target_item": tensors["candidate_item_rows"][shown],
        "history_item": tensors["history_item_rows"][request],  # (M, L)
        "profile_context": tensors["context_rows"][request].astype(np.int32),  # (M, X)
    }
    attributes = tensors["candidate_attribute_rows"][shown]
    for number, place in enumerate(item_fields.places(fields)):
        first = place.first_slot  # the commonest of its values
        columns[f"target_field{number}"] = attributes[:, first]
        of_history = tensors["history_attribute_rows"][:, :, first]
        columns[f"history_field{number}"] = of_history[request]
        if place.field.slots > 1:
            columns[f"profile_field{number}"] = attributes[:, place.slots]
    for number, (column, cuts) in enumerate(zip(counters(part).T, edges, strict=True)):
        spans = np.searchsorted(cuts, column, side="right").astype(np.uint8)
        columns[f"profile_counter{number:02}"] = spans
    return columns


def counters(part: Part) -> NDArray[np.float32]:
    """Return the numeric columns (M, …), the request's first."""
    tensors, shown = part.slates.tensors, part.slates.shown
    of_request = tensors["request_features"][np.nonzero(shown)[0]]
    joined = np.concatenate([of_request, tensors["candidate_features"][shown]], axis=1)
    return joined.astype(np.float32)


def edges_of(part: Part) -> Edges:
    """Return where each numeric column is cut: at the quantiles that ``part`` has."""
    shares = np.arange(1, SPANS) / SPANS
    return [np.unique(np.quantile(column, shares)) for column in counters(part).T]


def table_rows(examples: Examples) -> dict[str, int]:
    """Return the size of each column's table; a history reads its target's."""
    sizes = examples.sizes
    found = {"target_item": sizes.item_rows, "profile_context": NUM_CONTEXT_ROWS}
    found |= {f"profile_counter{number:02}": SPANS for number in range(NUM_COUNTERS)}
    for number in range(len(sizes.item_fields)):
        found[f"target_field{number}"] = sizes.attribute_rows
        found[f"profile_field{number}"] = sizes.attribute_rows
    return found
