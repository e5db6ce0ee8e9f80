"""Scores → the order in which items are shown, which explores: not always best first.

A model whose best items are always shown never learns where it is wrong. In: probabilities.
Out: each item's position and its exact propensity, the probability that the policy put it
there given the items above. Their product down a slate weighs an off-policy estimate
(``training/evaluation/off_policy.py``).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Int64s = NDArray[np.int64]
# Probabilities (N,), NaN for padding → the order of items, and their propensities by place.
Policy = Callable[[Floats], tuple[Int64s, Floats]]
_LEAST = 1e-6  # of a probability, before its log-odds are taken


def best_first(probabilities: Floats) -> tuple[Int64s, Floats]:
    """Return the items by falling probability, equal ones as given, padding last."""
    order = np.argsort(-probabilities, kind="stable")  # NaN sorts last
    return order, np.ones(len(order))


def epsilon_greedy(
    probabilities: Floats, epsilon: float, depth: int, chance: np.random.Generator
) -> tuple[Int64s, Floats]:
    """Return an order whose first ``depth`` places are each drawn independently.

    With probability ``epsilon`` a place gets any of the remaining items, else the best of
    them; below come the others, best first.
    """
    order, propensities = best_first(probabilities)
    count = int(np.isfinite(probabilities).sum())
    for place in range(min(depth, count)):
        left = count - place
        drawn = place + int(chance.integers(left)) if chance.random() < epsilon else place
        propensities[place] = epsilon / left + (1.0 - epsilon) * (drawn == place)
        order[place : drawn + 1] = np.roll(order[place : drawn + 1], 1)
    return order, propensities


def plackett_luce(
    probabilities: Floats, temperature: float, depth: int, chance: np.random.Generator
) -> tuple[Int64s, Floats]:
    """Return an order whose first ``depth`` places are drawn by the Plackett–Luce model.

    The next item is drawn with probability proportional to its odds to the power of
    1 / ``temperature`` (Plackett 1975; drawn by Gumbel noise, Yellott 1977); below come the
    others, best first.
    """
    count = int(np.isfinite(probabilities).sum())
    order, propensities = best_first(probabilities)
    clipped = np.clip(probabilities[order[:count]].astype(float), _LEAST, 1.0 - _LEAST)
    utilities = np.log(clipped / (1.0 - clipped)) / temperature
    drawn = np.argsort(-(utilities + chance.gumbel(size=count)), kind="stable")[:depth]
    others = np.setdiff1d(np.arange(count), drawn)  # ascending: best first
    places = np.concatenate([drawn, others])
    weights = np.exp(utilities[places] - utilities.max(initial=0.0))
    totals = np.cumsum(weights[::-1])[::-1]  # of this place and all below
    propensities[: len(drawn)] = (weights / totals)[: len(drawn)]
    order[:count] = order[places]
    return order, propensities


def policy_of(
    kind: str, *, epsilon: float, temperature: float, depth: int, seed: int | None = None
) -> Policy | None:
    """Return the policy ``kind``: epsilon_greedy or plackett_luce; None: best first."""
    chance = np.random.default_rng(seed)
    if kind == "epsilon_greedy":
        return partial(epsilon_greedy, epsilon=epsilon, depth=depth, chance=chance)
    if kind == "plackett_luce":
        return partial(plackett_luce, temperature=temperature, depth=depth, chance=chance)
    return None


def apply_policy(
    probabilities: Floats, policy: Policy | None
) -> tuple[Int64s, NDArray[np.float32]]:
    """Return positions and propensities (B, N) of B requests, each with its own draw.

    Without a ``policy`` best first.
    """
    if policy is None:
        order = (-probabilities).argsort(axis=1, kind="stable")  # NaN sorts last
        ones = np.ones(probabilities.shape, dtype=np.float32)
        return order.argsort(axis=1), ones
    positions = np.empty(probabilities.shape, dtype=np.int64)
    propensities = np.empty(probabilities.shape, dtype=np.float32)
    for row, each in enumerate(probabilities):
        order, by_place = policy(each)
        positions[row, order] = np.arange(len(order))
        propensities[row, order] = by_place
    return positions, propensities
