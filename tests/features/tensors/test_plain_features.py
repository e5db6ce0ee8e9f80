"""Any request's features are those that plain arithmetic finds, element by element."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from srp4ctr.features.tensors import transforms
from srp4ctr.features.tensors.arrays import (
    ActivityArrays,
    CandidateArrays,
    ExposureArrays,
    SequenceArrays,
)
from srp4ctr.streams.events.schema import action_code
from tests.features.tensors import plain_features as plain
from tests.features.tensors.plain_features import Counted, Done

LENGTH, EXPOSURES = 7, 5
KEYS = [0, 1, 2, 3, 4, -5, 1 << 62]
TIMES = (100_000_000_000, 1_750_000_000_000, 4_102_444_800_000)  # 1973, 2025, 2100


class Draw:
    """A request of a user; its items and times are drawn so that they meet each other."""

    def __init__(self, seed: int, candidates: int) -> None:
        self.chance = random.Random(seed)
        self.now_ms = self.chance.choice(TIMES)
        self.counts = self.chance.randrange(LENGTH + 1), self.chance.randrange(EXPOSURES)
        times = sorted(self._time() for _ in range(LENGTH))
        done = [self._done(at) for at in times[LENGTH - self.counts[0] :]]
        self.history = [Done()] * (LENGTH - len(done)) + done
        shown = [
            (self.chance.choice(KEYS[1:]), self._time()) for _ in range(self.counts[1])
        ]
        self.shown = [(0, 0)] * (EXPOSURES - len(shown)) + shown
        self.items = [self._counted(self.chance.choice(KEYS)) for _ in range(candidates)]
        self.user, self.total = self._counted(1), self._counted(1)
        self.numbers = [self.chance.uniform(-9, 9) for _ in range(8)]
        self.offset_ms = self.chance.choice([-720, 0, 330, 840]) * 60_000

    def _time(self) -> int:
        """Return a time before now, now, or, as clocks differ, after it."""
        span = self.chance.choice([10_000, 10**8, 10**11 - 10**9])
        return self.now_ms - self.chance.randrange(-5_000, span)

    def _attributes(self) -> tuple[int, ...]:
        return self.chance.choice([0, 2, 3, 900]), self.chance.choice([0, 2, 4])

    def _done(self, at_ms: int) -> Done:
        return Done(
            key=self.chance.choice(KEYS[1:]),
            action=self.chance.choice([3, 2, action_code("click")]),
            at_ms=at_ms,
            value=self.chance.choice([math.nan, math.nan, -1.0, 0.0, 3.7, 1e300]),
            attributes=self._attributes(),
        )

    def _counted(self, key: int) -> Counted:
        counts = [tuple(self.chance.uniform(0, 99) for _ in range(4)) for _ in range(2)]
        is_new = self.chance.random() < 0.3
        return Counted(
            key=key,
            impressions=(0.0,) * 4 if is_new else counts[0],
            clicks=(0.0,) * 4 if is_new else counts[1],
            counted_at_ms=0 if is_new else self._time(),
            first_seen_ms=0 if is_new else self._time(),
            attributes=self._attributes() if key else (0, 0),
        )


def activity(rows: Sequence[Sequence[Counted]]) -> ActivityArrays:
    return ActivityArrays(
        counts=np.array(
            [[(each.impressions, each.clicks) for each in row] for row in rows]
        ),
        counted_at_ms=np.array([[each.counted_at_ms for each in row] for row in rows]),
        first_seen_ms=np.array([[each.first_seen_ms for each in row] for row in rows]),
    )


def sequences_of(draws: Sequence[Draw]) -> SequenceArrays:
    rows = [draw.history for draw in draws]
    return SequenceArrays(
        item_keys=np.array([[each.key for each in row] for row in rows]),
        action_codes=np.array([[each.action for each in row] for row in rows]),
        occurred_at_ms=np.array([[each.at_ms for each in row] for row in rows]),
        values=np.array([[each.value for each in row] for row in rows]),
    )


@pytest.fixture(params=range(60))
def draws(request: pytest.FixtureRequest) -> list[Draw]:
    seed: int = request.param
    return [Draw(100 * seed + each, 1 + seed % 9) for each in range(1 + seed % 3)]


def test_codes_of_behaviours_are_those_of_plain_arithmetic(draws: list[Draw]) -> None:
    wanted = [plain.codes(draw.history) for draw in draws]
    np.testing.assert_array_equal(transforms.behavior_codes(sequences_of(draws)), wanted)


def test_features_of_requests_are_those_of_plain_arithmetic(draws: list[Draw]) -> None:
    made = transforms.request_features(
        sequences_of(draws),
        activity([[draw.user] for draw in draws]).take(np.s_[:, 0]),
        [draw.now_ms for draw in draws],
        np.array([draw.numbers for draw in draws]),
        np.array([draw.offset_ms for draw in draws]),
    )
    wanted = [
        plain.request(draw.history, draw.user, draw.now_ms, draw.numbers, draw.offset_ms)
        for draw in draws
    ]
    np.testing.assert_allclose(made, wanted, rtol=1e-6, atol=1e-6)


def test_features_of_candidates_are_those_of_plain_arithmetic(draws: list[Draw]) -> None:
    now_ms, sequences = np.array([draw.now_ms for draw in draws]), sequences_of(draws)
    keys = np.array([[item.key for item in draw.items] for draw in draws])
    exposures = ExposureArrays(
        item_keys=np.array([[key for key, _ in draw.shown] for draw in draws]),
        shown_at_ms=np.array([[at for _, at in draw.shown] for draw in draws]),
    )
    inputs = CandidateArrays(
        request_time_ms=now_ms,
        item_keys=keys,
        attribute_rows=np.array([[e.attributes for e in draw.items] for draw in draws]),
        activity=activity([draw.items for draw in draws]),
        total=activity([[draw.total] for draw in draws]).take(np.s_[:, 0]),
        exposures=transforms.item_exposures(exposures, keys, now_ms),
        sequences=sequences,
        history_attribute_rows=np.array(
            [[each.attributes for each in draw.history] for draw in draws]
        ),
        number_columns=np.empty((*keys.shape, 0), dtype=np.float32),
    )
    made = transforms.candidate_features(inputs, plain.COLUMNS)
    wanted = [
        [
            plain.candidate(item, draw.total, draw.history, draw.shown, draw.now_ms)
            for item in draw.items
        ]
        for draw in draws
    ]
    np.testing.assert_allclose(made, wanted, rtol=1e-6, atol=1e-6)
