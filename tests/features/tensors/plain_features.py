"""The features of one request, element by element: what ``transforms`` must equal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from srp4ctr.features.columns import CandidateColumns
from srp4ctr.features.tensors.transforms import (
    AFFINITY_HALF_LIFE_H,
    NEVER_S,
    PRIOR_IMPRESSIONS,
    PRIOR_RATE,
)
from srp4ctr.streams.events.schema import action_code
from srp4ctr.streams.state.counters import HALF_LIVES_H

HOUR_MS = 3_600_000.0
COLUMNS = CandidateColumns(
    actions=(("view", action_code("view")), ("cart", action_code("cart"))),
    main_fields=(("brand", 0), ("place", 1)),
    visit_gap_ms=4_000,
)


@dataclass(frozen=True, kw_only=True)
class Done:
    """One behaviour; key 0 is padding."""

    key: int = 0
    action: int = 0
    at_ms: int = 0
    value: float = math.nan
    attributes: tuple[int, ...] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Counted:
    """An item or a user: counters, and an item's attributes."""

    key: int = 0
    impressions: tuple[float, ...] = (0.0,) * 4
    clicks: tuple[float, ...] = (0.0,) * 4
    counted_at_ms: int = 0
    first_seen_ms: int = 0
    attributes: tuple[int, ...] = (0, 0)


def codes(history: Sequence[Done]) -> list[list[int]]:
    """Return history_behavior_codes."""
    found, before = [], None
    for each in history:
        if not each.key:
            found.append([0, 0, 0])
            continue
        gap, value = 1, 1
        if before is not None:
            seconds = (each.at_ms - before.at_ms) // 1000
            gap = min(2 + int(math.log2(1 + max(seconds, 0))), 31)
        if not math.isnan(each.value):
            value = min(2 + round(4 * math.log2(1 + max(each.value, 0.0))), 63)
        found.append([each.action, gap, value])
        before = each
    return found


def request(
    history: Sequence[Done],
    user: Counted,
    now_ms: int,
    numbers: Sequence[float],
    offset_ms: int,
) -> list[float]:
    """Return request_features."""
    rates, impressions, _ = _counters(user, now_ms)
    there = [each for each in history if each.key]
    since_s = max(now_ms - there[-1].at_ms, 0) / 1000 if there else NEVER_S
    day = 2 * math.pi * ((now_ms + offset_ms) % 86_400_000) / 86_400_000
    length, since = math.log1p(len(there)), math.log1p(min(since_s, NEVER_S))
    return [*rates, *impressions, length, since, math.sin(day), math.cos(day), *numbers]


def candidate(
    item: Counted,
    total: Counted,
    history: Sequence[Done],
    shown: Sequence[tuple[int, int]],
    now_ms: int,
) -> list[float]:
    """Return candidate_features of one item; ``shown`` are keys and times."""
    if not item.key:
        return [0.0] * COLUMNS.layout.width
    hours = max(now_ms - item.first_seen_ms, 0) / HOUR_MS
    age = math.log1p(hours) if item.first_seen_ms else 0.0
    acted, clicked = (_affinity(item, history, now_ms, only) for only in (False, True))
    times = [at for key, at in shown if key == item.key and at < now_ms]
    since_h = min((now_ms - max(times)) / HOUR_MS if times else math.inf, NEVER_S / 3600)
    of_user = (clicked + PRIOR_RATE) / (acted + 1), math.log1p(acted)
    seen = math.log1p(len(times)), math.log1p(since_h)
    inside = float(any(each.key == item.key for each in history))
    rates, impressions, clicks = _counters(item, now_ms)
    _, _, all_clicks = _counters(total, now_ms)
    shares = [
        math.log1p(10_000 * min(math.expm1(own) / (math.expm1(of_all) + 1), 1))
        for own, of_all in zip(clicks, all_clicks, strict=True)
    ]
    counters = [*rates, *impressions, *clicks, *shares, age]
    return [*counters, *of_user, *seen, inside, *_own_history(item, history, now_ms)]


def _own_history(item: Counted, history: Sequence[Done], now_ms: int) -> list[float]:
    done = [each for each in history if each.key]
    visit, following_ms = 0, now_ms
    for each in reversed(done):
        if following_ms - each.at_ms > COLUMNS.visit_gap_ms:
            break
        visit, following_ms = visit + 1, each.at_ms
    before, now = done[: len(done) - visit], done[len(done) - visit :]

    def touches(same: Sequence[Done]) -> list[float]:
        counts = [sum(each in same for each in part) for part in (now, before)]
        return [*map(math.log1p, counts), _log_since(same, now_ms)]

    newest_first = list(dict.fromkeys(each.key for each in reversed(done)))
    is_known = item.key in newest_first
    recency = 1 / (1 + newest_first.index(item.key)) if is_known else 0.0
    own = touches([each for each in done if each.key == item.key])
    own += [recency, float(newest_first[:1] == [item.key])]
    for _, code in COLUMNS.actions:
        chosen = [each for each in done if each.key == item.key and each.action == code]
        own += [math.log1p(len(chosen)), _log_since(chosen, now_ms)]
    for _, slot in COLUMNS.main_fields:
        value = item.attributes[slot]
        shared = [each for each in done if value and each.attributes[slot] == value]
        own += touches(shared)
        own.append(float(bool(shared) and shared[-1] is done[-1]))
    return own


def _log_since(done: Sequence[Done], now_ms: int) -> float:
    seconds = max(now_ms - done[-1].at_ms, 0) / 1000 if done else NEVER_S
    return math.log1p(min(seconds, NEVER_S))


def _affinity(
    item: Counted, history: Sequence[Done], now_ms: int, clicks_only: bool
) -> float:
    own, total = [row for row in item.attributes if row], 0.0
    for each in history:
        if clicks_only and each.action != action_code("click"):
            continue
        hours = max(now_ms - each.at_ms, 0) / HOUR_MS
        shared = sum(each.attributes.count(row) for row in own)
        total += shared * 2 ** (-hours / AFFINITY_HALF_LIFE_H)
    return total / max(len(own), 1)


def _counters(counted: Counted, now_ms: int) -> tuple[list[float], ...]:
    hours = max(now_ms - counted.counted_at_ms, 0) / HOUR_MS
    decay = [2 ** (-hours / life) for life in HALF_LIVES_H]
    shown = [n * d for n, d in zip(counted.impressions, decay, strict=True)]
    clicked = [n * d for n, d in zip(counted.clicks, decay, strict=True)]
    rates = [
        (min(c, n) + PRIOR_IMPRESSIONS * PRIOR_RATE) / (n + PRIOR_IMPRESSIONS)
        for n, c in zip(shown, clicked, strict=True)
    ]
    return rates, list(map(math.log1p, shown)), list(map(math.log1p, clicked))
