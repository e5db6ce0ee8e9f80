"""Scores → the order in which items are shown, which explores: not always best first.

A model whose best items are always shown never learns where it is wrong. In: ranking
scores, which are logarithms. Out: each item's position and its exact propensity, the
probability that the policy put it there given the items above. Their product down a slate
weighs an off-policy estimate (``training/evaluation/off_policy.py``).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Int64s = NDArray[np.int64]
# Scores (N,), NaN for padding → the order of items, and their propensities by place.
Policy = Callable[[Floats], tuple[Int64s, Floats]]
_MOST = math.log(1e6)  # of a score, either way: what is surer still keeps a chance


def best_first(scores: Floats) -> tuple[Int64s, Floats]:
    """Return the items by falling score, equal ones as given, padding last."""
    order = np.argsort(-scores, kind="stable")  # NaN sorts last
    return order, np.ones(len(order))


def epsilon_greedy(
    scores: Floats, epsilon: float, depth: int, chance: np.random.Generator
) -> tuple[Int64s, Floats]:
    """Return an order whose first ``depth`` places are each drawn independently.

    With probability ``epsilon`` a place gets any of the remaining items, else the best of
    them; below come the others, best first.
    """
    order, propensities = best_first(scores)
    count = int(np.isfinite(scores).sum())
    for place in range(min(depth, count)):
        left = count - place
        drawn = place + int(chance.integers(left)) if chance.random() < epsilon else place
        propensities[place] = epsilon / left + (1.0 - epsilon) * (drawn == place)
        order[place : drawn + 1] = np.roll(order[place : drawn + 1], 1)
    return order, propensities


def plackett_luce(
    scores: Floats, temperature: float, depth: int, chance: np.random.Generator
) -> tuple[Int64s, Floats]:
    """Return an order whose first ``depth`` places are drawn by the Plackett–Luce model.

    The next item is drawn with probability proportional to exp(score / ``temperature``)
    (Plackett 1975; drawn by Gumbel noise, Yellott 1977); below come the
    others, best first.
    """
    count = int(np.isfinite(scores).sum())
    order, propensities = best_first(scores)
    clipped = np.clip(scores[order[:count]].astype(float), -_MOST, _MOST)
    utilities = clipped / temperature
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
    scores: Floats, policy: Policy | None
) -> tuple[Int64s, NDArray[np.float32]]:
    """Return positions and propensities (B, N) of B requests, each with its own draw.

    Without a ``policy`` best first.
    """
    if policy is None:
        order = (-scores).argsort(axis=1, kind="stable")  # NaN sorts last
        ones = np.ones(scores.shape, dtype=np.float32)
        return order.argsort(axis=1), ones
    positions = np.empty(scores.shape, dtype=np.int64)
    propensities = np.empty(scores.shape, dtype=np.float32)
    for row, each in enumerate(scores):
        order, by_place = policy(each)
        positions[row, order] = np.arange(len(order))
        propensities[row, order] = by_place
    return positions, propensities
