"""Event log → all that a refresh is trained and evaluated on, cut at one boundary in time.

In: the raw log and items' profiles. Out: a vocabulary and pre-training windows of what was
known before the boundary, and slates on both sides of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srp4ctr.errors import OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.offline import event_tables, point_in_time
from srp4ctr.features.offline.item_profiles import item_profiles
from srp4ctr.features.offline.point_in_time import RequestSnapshots, UserHistories
from srp4ctr.features.tensors.item_fields import Attributes
from srp4ctr.features.tensors.vocabulary import Vocabulary, numbers_of
from srp4ctr.features.tensors.vocabulary import build as build_vocabulary
from srp4ctr.streams.config import StreamConfig
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset import examples
from srp4ctr.training.dataset.batches import Slates, Windows
from srp4ctr.training.evaluation.evaluate import Split, boundary_ms, split

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """What a refresh is trained on, and what it is evaluated on."""

    vocabulary: Vocabulary
    parts: Split
    windows: Windows
    window_newest_ms: NDArray[np.int64]  # (W,)
    """When the newest behaviour of each window happened."""
    boundary_ms: int
    """From here on everything is held out."""
    exposure_length: int
    """How many of a user's last exposures the examples count."""
    counts: dict[str, int]
    """Numbers of events, requests, impressions, clicks, users, items, windows."""
    champion_judge: Slates | None = None
    """``parts.judge`` in the rows of another vocabulary: of the bundle to compare with."""

    @property
    def length(self) -> int:
        """How long a history is: L."""
        return int(self.windows.tensors["history_item_rows"].shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """The log's contents before any vocabulary."""

    snapshots: RequestSnapshots
    boundary_ms: int
    past: UserHistories
    profiles: Mapping[int, Attributes]
    item_counts: Mapping[int, int]
    num_events: int


def read_training_set(
    config: RefreshConfig,
    features: FeatureConfig,
    streams: StreamConfig,
    champion: Vocabulary | None = None,
) -> TrainingSet:
    """Return the training set of the log in ``features.log_dir``.

    ``champion`` is the vocabulary of the bundle that is evaluated on the same requests.
    Raises ``ValueError`` with what to do when there is too little to train on.
    """
    cut, length = _cut(config, features, streams), streams.sequence_length
    vocabulary = build_vocabulary(
        cut.item_counts,
        cut.profiles.values(),
        num_oov_rows=config.num_oov_rows,
        min_item_count=config.min_item_count,
        declared=features.item_fields,
    )
    contexts = cut.snapshots.contexts[cut.snapshots.times_ms < cut.boundary_ms]
    vocabulary = replace(
        vocabulary,
        context_numbers=numbers_of(contexts.tolist()),
        utc_offset_minutes=features.utc_offset_minutes,
    )
    attributes = examples.item_attributes(cut.profiles, vocabulary)
    slates = examples.slates(cut.snapshots, vocabulary, attributes)
    windows = examples.windows(cut.past, length, vocabulary, attributes)
    parts = split(slates, cut.boundary_ms)
    sizes = {"windows": len(windows), "items": len(vocabulary.item_keys)}
    return TrainingSet(
        vocabulary=vocabulary,
        parts=replace(parts, train=_recent(parts.train, config.train_window_days)),
        windows=windows,
        window_newest_ms=_newest_ms(cut.past, length),
        boundary_ms=cut.boundary_ms,
        exposure_length=streams.exposure_length,
        counts={"events": cut.num_events} | sizes | _counts(slates),
        champion_judge=_judged(cut, champion, len(parts.judge)) if champion else None,
    )


def _cut(config: RefreshConfig, features: FeatureConfig, streams: StreamConfig) -> _Cut:
    log_dir = Path(features.log_dir)
    with event_tables.opened(log_dir, features.offline_engine) as log:
        snapshots = point_in_time.snapshot(
            log,
            streams.sequence_length,
            features.sequence_ttl_days,
            streams.exposure_length,
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
            # Item counters of held-out clicks are not known yet.
            profiles=item_profiles(log, features, boundary - 1),
            item_counts=point_in_time.item_counts(log, boundary),
            num_events=log.rows(log.events.count()).as_py(),
        )


def _judged(cut: _Cut, vocabulary: Vocabulary, count: int) -> Slates:
    """Return the newest ``count`` slates in the rows of ``vocabulary``."""
    held_out = cut.snapshots.from_time(cut.boundary_ms)
    attributes = examples.item_attributes(cut.profiles, vocabulary)
    slates = examples.slates(held_out, vocabulary, attributes)
    return slates.take(np.arange(len(slates) - count, len(slates)))


def _recent(train: Slates, days: float | None) -> Slates:
    """Return the requests of the last ``days`` before the newest that is trained on."""
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
