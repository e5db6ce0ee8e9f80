"""Histories → leave-last-out slates, and what trains: windows and slates.

A user's last item is the test's answer, the one before it validation's; both are ranked
among 99 given items that the user never touched. All that trains or is counted comes from
the behaviours before those two. The windows and slates are made by the product.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.offline.point_in_time import RequestSnapshots, UserHistories
from srp4ctr.features.tensors import vocabulary
from srp4ctr.features.tensors.arrays import ActivityArrays, ItemExposures, SequenceArrays
from srp4ctr.features.tensors.item_fields import Attributes
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.state.counters import HALF_LIVES_H
from srp4ctr.training.dataset import examples, item_attributes
from srp4ctr.training.dataset.batches import Slates, Windows
from srp4ctr.training.dataset.examples import Cutting
from srp4ctr.training.dataset.item_attributes import ItemAttributes

Int64s = NDArray[np.int64]
TEST, VALIDATION = 1, 2  # the answer's place from the end
NEGATIVES = 99


@dataclass(frozen=True, kw_only=True, eq=False)
class LeaveLast:
    """U users' behaviours in order, and the items each answer is ranked among."""

    name: str
    histories: UserHistories
    negatives: Int64s  # (U, 99) item keys
    profiles: Mapping[int, Attributes]
    length: int = 50
    min_item_count: int = 2

    @property
    def counts(self) -> Int64s:
        """How many behaviours each user has (U,)."""
        return np.diff(self.histories.starts)

    @cached_property
    def training_part(self) -> UserHistories:
        """The training part: each history without its last two behaviours."""
        keys = np.arange(len(self.histories.behaviors.item_keys))
        ends = np.repeat(self.histories.starts[1:], self.counts)
        kept = np.maximum(self.counts - VALIDATION, 0)
        return UserHistories(
            user_ids=self.histories.user_ids,
            starts=np.concatenate([[0], np.cumsum(kept)]),
            behaviors=self.histories.behaviors.take(keys < ends - VALIDATION),
        )

    @cached_property
    def popularity(self) -> tuple[Int64s, Int64s]:
        """Item keys, ascending, and how often the training part has each."""
        return np.unique(self.training_part.behaviors.item_keys, return_counts=True)

    @cached_property
    def words(self) -> Vocabulary:
        """The vocabulary of the training part, and of all items' attributes."""
        keys, counts = (each.tolist() for each in self.popularity)
        return vocabulary.build(
            dict(zip(keys, counts, strict=True)),
            self.profiles.values(),
            min_item_count=self.min_item_count,
        )

    @cached_property
    def attributes(self) -> ItemAttributes:
        """Attribute rows of all items."""
        return item_attributes.of_profiles(self.profiles, self.words)

    @cached_property
    def items(self) -> Int64s:
        """All items that a negative may be (ascending): those the data names."""
        named = (self.histories.behaviors.item_keys, self.negatives.ravel())
        return np.unique(np.concatenate(named))

    def times_seen(self, keys: Int64s) -> Int64s:
        """Return how often the training part has each of ``keys`` (any shape)."""
        known, counts = self.popularity
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.where(known[at] == keys, counts[at], 0)

    def windows(self) -> Windows:
        """Return what pre-training may see."""
        cutting = Cutting(length=self.length, step=self.length)
        return examples.windows(self.training_part, cutting, self.words, self.attributes)

    def answers(self, place: int) -> Int64s:
        """Return each user's item (U,) at ``place`` from the end."""
        at = self.histories.starts[1:] - place
        keys: Int64s = self.histories.behaviors.item_keys[at]
        return keys

    def candidates(self, place: int) -> Int64s:
        """Return the answer, then the given negatives (U, 100)."""
        return np.concatenate([self.answers(place)[:, None], self.negatives], axis=1)

    def questions(self, place: int, users: Int64s) -> Slates:
        """Return the slates of ``users`` at ``place``: the answer is first."""
        candidates = self.candidates(place)[users]
        seen = self.times_seen(candidates)
        return self._slates(users, self.counts[users] - place, candidates, seen)

    def before(self, place: int, users: Int64s) -> Int64s:
        """Return the item keys (R, L) that ``users`` had before ``place`` from the end."""
        return self._before(users, self.counts[users] - place).item_keys

    def training_slates(
        self, rng: np.random.Generator, negatives: int, rounds: int, share: float = 1.0
    ) -> Slates:
        """Return the training part as slates: an item that came next, and ``negatives``.

        Every behaviour but a user's first is such an item, or a random ``share`` of them,
        once in each of the ``rounds``, among other negatives each time. They are drawn
        evenly from the items that the user did not touch. Counts leave out the behaviour
        that is to be predicted, as they do in the test.
        """
        starts, behaviors = self.training_part.starts, self.training_part.behaviors
        counts = np.diff(starts)
        users = np.repeat(np.arange(len(counts)), counts)
        places = np.arange(len(users)) - starts[:-1][users]
        later = np.flatnonzero(places >= 1)
        if share < 1.0:
            later = np.sort(rng.choice(later, max(int(len(later) * share), 1), False))
        taught = np.tile(later, rounds)
        answers = behaviors.item_keys[taught]
        users, places = users[taught], places[taught]
        drawn = self.untouched(users, rng, negatives)
        candidates = np.concatenate([answers[:, None], drawn], axis=1)
        seen = self.times_seen(candidates)
        seen[:, 0] -= 1
        return self._slates(users, places, candidates, seen)

    def untouched(self, users: Int64s, rng: np.random.Generator, count: int) -> Int64s:
        """Return ``count`` items (users, count) that the training part does not have."""
        training_part = self.training_part
        owners = np.repeat(np.arange(len(self.counts)), np.diff(training_part.starts))
        index = np.searchsorted(self.items, training_part.behaviors.item_keys)
        touched = np.unique(owners * len(self.items) + index)
        drawn = rng.integers(len(self.items), size=(len(users), count))
        while True:
            pairs = users[:, None] * len(self.items) + drawn
            at = np.minimum(np.searchsorted(touched, pairs), len(touched) - 1)
            wrong = touched[at] == pairs
            if not wrong.any():
                return self.items[drawn]
            drawn[wrong] = rng.integers(len(self.items), size=int(wrong.sum()))

    def _slates(
        self, users: Int64s, places: Int64s, candidates: Int64s, seen: Int64s
    ) -> Slates:
        """Return slates of the requests just before behaviours ``places`` of ``users``."""
        rows, width = candidates.shape
        at_ms = self._times_ms(users, places)
        flat_at_ms = np.repeat(at_ms, width)
        snapshots = RequestSnapshots(
            user_ids=self.histories.user_ids[users],
            times_ms=at_ms,
            contexts=np.full(rows, None, dtype=object),
            user_attributes=np.full(rows, "", dtype=object),
            sequences=self._before(users, places),
            user_activity=_activity(places, at_ms),
            total_activity=_activity(
                np.full(rows, len(self.training_part.behaviors.item_keys)), at_ms
            ),
            candidate_requests=np.repeat(np.arange(rows), width),
            candidate_item_keys=candidates.ravel(),
            candidate_positions=np.zeros(rows * width, dtype=np.int64),
            candidate_clicked=np.tile(np.arange(width) == 0, rows),
            candidate_numbers=np.full(rows * width, None, dtype=object),
            candidate_log_draw=np.zeros(rows * width),  # drawn evenly: it changes no order
            candidate_activity=_activity(seen.ravel(), flat_at_ms),
            candidate_exposures=ItemExposures(  # there are no impressions here
                counts=np.zeros(rows * width, dtype=np.int64),
                last_shown_ms=np.zeros(rows * width, dtype=np.int64),
            ),
        )
        return examples.slates(snapshots, self.words, self.attributes)

    def _times_ms(self, users: Int64s, places: Int64s) -> Int64s:
        at = self.histories.starts[users] + places
        times: Int64s = self.histories.behaviors.occurred_at_ms[at]
        return times

    def _before(self, users: Int64s, places: Int64s) -> SequenceArrays:
        """Return the last L behaviours (R, L) before ``places``."""
        back = np.arange(-self.length, 0)
        present = places[:, None] + back >= 0
        at = np.where(present, (self.histories.starts[users] + places)[:, None] + back, 0)
        taken = self.histories.behaviors.take(at)
        return SequenceArrays(
            item_keys=np.where(present, taken.item_keys, 0),
            action_codes=np.where(present, taken.action_codes, 0),
            occurred_at_ms=np.where(present, taken.occurred_at_ms, 0),
            values=np.where(present, taken.values, np.nan),
        )


def _activity(seen: Int64s, at_ms: Int64s) -> ActivityArrays:
    """Return counts of what is neither shown nor timed: an interaction is a click."""
    counts = np.empty((len(seen), 2, len(HALF_LIVES_H)))
    counts[:] = seen[:, None, None]
    return ActivityArrays(
        counts=counts,
        counted_at_ms=at_ms,
        first_seen_ms=np.zeros(len(seen), dtype=np.int64),
    )
