"""A small feed, in which users watch even items long and odd ones for a moment."""

from dataclasses import replace

import numpy as np

from srp4ctr.features.tensors.schema import BEHAVIOR_FIELDS
from srp4ctr.features.tensors.vocabulary import FIRST_KNOWN_ROW
from srp4ctr.training.dataset.batches import Slates, Windows
from tests.training.conftest import LENGTH, SIZES, random_slates

VIEW, LONG_VIEW, NO_VALUE = 2, 20, 1
USERS = 300


def codes_of(actions: np.ndarray) -> np.ndarray:
    """Behaviour codes of these actions (..., L), without values; 0 pads."""
    codes = np.ones((*actions.shape, len(BEHAVIOR_FIELDS)), dtype=np.int16)
    codes[..., 0] = actions
    codes *= (actions != 0)[..., None]
    return codes


def windows_of(items: np.ndarray, actions: np.ndarray) -> Windows:
    """Windows of these items and actions (W, L)."""
    attributes = np.zeros((*items.shape, SIZES.attribute_slots), dtype=np.int32)
    return Windows(
        tensors={
            "history_item_rows": items,
            "history_attribute_rows": attributes,
            "history_behavior_codes": codes_of(actions),
        }
    )


def watched_windows(count: int = 1000) -> Windows:
    """Windows of several lengths."""
    rng = np.random.default_rng(0)
    items = rng.integers(FIRST_KNOWN_ROW, SIZES.item_rows, size=(count, LENGTH))
    items *= np.arange(LENGTH) >= np.arange(count)[:, None] % 4
    return windows_of(items, np.where(items % 2 == 0, LONG_VIEW, VIEW) * (items != 0))


def feed_slates() -> Slates:
    """Of each user two requests; the second's history has what came of the first's items.

    What was clicked was watched long, and the rest for a moment.
    """
    slates = random_slates(2 * USERS, candidates=3)
    first, tensors = slice(0, USERS), {**slates.tensors}
    items, actions = (np.zeros((2 * USERS, LENGTH), dtype=np.int64) for _ in range(2))
    items[USERS:, -3:] = slates.tensors["candidate_item_rows"][first]
    was_clicked = slates.clicked[first] > 0.5
    actions[USERS:, -3:] = np.where(was_clicked, LONG_VIEW, VIEW)
    actions[items == 0] = 0
    tensors["history_item_rows"] = items
    tensors["history_behavior_codes"] = codes_of(actions)
    tensors["candidate_features"] = np.zeros_like(tensors["candidate_features"])
    users = np.array([f"u{user}" for user in [*range(USERS)] * 2])
    return replace(slates, tensors=tensors, user_ids=users)
