"""Event log → all that a refresh learns from, cut at one boundary in time.

In: the raw log and items' profiles. Out: a vocabulary and pre-training windows of what was
known before the boundary, and slates on both sides of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features import event_log, point_in_time, vocabulary
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.item_fields import Attributes
from srp4ctr.features.point_in_time import RequestSnapshots, UserHistories
from srp4ctr.features.profiles import item_profiles
from srp4ctr.features.vocabulary import Vocabulary
from srp4ctr.streams.exposures import EXPOSURE_LENGTH
from srp4ctr.streams.outages import OutageError
from srp4ctr.training import examples
from srp4ctr.training.batches import Slates
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.judging import Split, boundary_ms, split
from srp4ctr.training.pretraining import Windows

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """What a refresh learns from and is judged by."""

    words: Vocabulary
    parts: Split
    windows: Windows
    window_newest_ms: NDArray[np.int64]  # (W,)
    """When the newest behaviour of each window happened."""
    boundary_ms: int
    """From here on everything is held out."""
    exposure_length: int
    """Among how many of a user's last exposures the examples count."""
    counts: dict[str, int]
    """What went in: events, requests, impressions, clicks, users, items, windows."""
    champion_judge: Slates | None = None
    """``parts.judge`` in the rows of another vocabulary: of the bundle to compare with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """What the log says, before any vocabulary."""

    snapshots: RequestSnapshots
    boundary_ms: int
    past: UserHistories
    profiles: Mapping[int, Attributes]
    item_counts: Mapping[int, int]
    num_events: int


def read_training_set(
    config: RefreshConfig,
    features: FeatureConfig,
    length: int,
    champion: Vocabulary | None = None,
    exposure_length: int = EXPOSURE_LENGTH,
) -> TrainingSet:
    """Return the training set of the log in ``features.log_dir``; ``length`` is L.

    ``champion`` is the vocabulary of the bundle that is to be judged by the same requests.
    Raises ``ValueError`` with what to do when there is too little to learn from.
    """
    cut = _cut(config, features, (length, exposure_length))
    words = vocabulary.build(
        cut.item_counts,
        cut.profiles.values(),
        num_oov_rows=config.num_oov_rows,
        min_item_count=config.min_item_count,
        declared=features.item_fields,
    )
    told = cut.snapshots.contexts[cut.snapshots.times_ms < cut.boundary_ms]
    words = replace(words, context_numbers=vocabulary.numbers_of(told.tolist()))
    attributes = examples.item_attributes(cut.profiles, words)
    slates = examples.slates(cut.snapshots, words, attributes)
    windows = examples.windows(cut.past, length, words, attributes)
    parts = split(slates, cut.boundary_ms)
    sizes = {"windows": len(windows), "items": len(words.item_keys)}
    return TrainingSet(
        words=words,
        parts=replace(parts, train=_recent(parts.train, config.train_window_days)),
        windows=windows,
        window_newest_ms=_newest_ms(cut.past, length),
        boundary_ms=cut.boundary_ms,
        exposure_length=exposure_length,
        counts={"events": cut.num_events} | sizes | _counts(slates),
        champion_judge=_judged(cut, champion, len(parts.judge)) if champion else None,
    )


def _cut(config: RefreshConfig, features: FeatureConfig, lengths: tuple[int, int]) -> _Cut:
    log_dir = Path(features.log_dir)
    with event_log.opened(log_dir, features.offline_engine) as log:
        length, exposure_length = lengths
        snapshots = point_in_time.snapshot(
            log, length, features.sequence_ttl_days, exposure_length
        )
        if len(snapshots.times_ms) == 0:
            raise OutageError(
                f"no matured labels in {log_dir}: publish impressions and clicks first, "
                "while `srp4ctr stream run` follows them"
            )
        boundary = boundary_ms(snapshots.times_ms, config.held_out_share)
        return _Cut(
            snapshots=snapshots,
            boundary_ms=boundary,
            past=point_in_time.histories(log, boundary),
            # What an item became through the held-out clicks is not known yet.
            profiles=item_profiles(log, features, boundary - 1),
            item_counts=point_in_time.item_counts(log, boundary),
            num_events=log.rows(log.events.count()).as_py(),
        )


def _judged(cut: _Cut, words: Vocabulary, count: int) -> Slates:
    """Return the newest ``count`` slates in the rows of ``words``."""
    held_out = cut.snapshots.from_time(cut.boundary_ms)
    attributes = examples.item_attributes(cut.profiles, words)
    slates = examples.slates(held_out, words, attributes)
    return slates.take(np.arange(len(slates) - count, len(slates)))


def _recent(train: Slates, days: float | None) -> Slates:
    """Return the requests of the last ``days`` before the newest that teaches."""
    if days is None:
        return train
    start_ms = int(train.request_at_ms[-1]) - round(days * _DAY_MS)
    return train.take(np.flatnonzero(train.request_at_ms >= start_ms))


def _newest_ms(histories: UserHistories, length: int) -> NDArray[np.int64]:
    """Return the newest time of each of ``examples.windows``, in its order."""
    starts, ends = histories.starts[:-1], histories.starts[1:]
    counts = -(-(ends - starts) // length)  # windows of each user, the newest first
    user = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(user)) - np.repeat(np.cumsum(counts) - counts, counts)
    newest = ends[user] - 1 - place * length
    times: NDArray[np.int64] = histories.behaviors.occurred_at_ms[newest]
    return times


def _counts(slates: Slates) -> dict[str, int]:
    return {
        "requests": len(slates),
        "impressions": int(slates.shown.sum()),
        "clicks": int(slates.clicked.sum()),
        "users": len(np.unique(slates.user_ids)),
    }
