"""Event log → all that a refresh learns from, cut at one boundary in time.

In: the raw log and items' profiles. Out: a vocabulary and pre-training windows of what was
known before the boundary, and slates on both sides of it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features import event_log, point_in_time, vocabulary
from features.config import FeatureConfig
from features.profiles import item_profiles
from features.vocabulary import Vocabulary
from training import examples
from training.batches import Slates
from training.config import RefreshConfig
from training.judging import Split, boundary_ms, split
from training.pretraining import Windows


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """What a refresh learns from and is judged by."""

    words: Vocabulary
    parts: Split
    windows: Windows
    counts: dict[str, int]
    """What went in: events, requests, impressions, clicks, users, items, windows."""


def read_training_set(
    config: RefreshConfig, features: FeatureConfig, length: int
) -> TrainingSet:
    """Return the training set of the log in ``features.log_dir``; ``length`` is L.

    Raises ``ValueError`` with what to do when there is too little to learn from.
    """
    log_dir = Path(features.log_dir)
    with event_log.opened(log_dir) as log:
        snapshots = point_in_time.snapshot(log, length, features.sequence_ttl_days)
        if len(snapshots.times_ms) == 0:
            raise ValueError(
                f"no matured labels in {log_dir}: publish impressions and clicks first, "
                "while `srp4ctr stream run` follows them"
            )
        boundary = boundary_ms(snapshots.times_ms, config.held_out_share)
        # What an item became through the held-out clicks is not known yet.
        profiles = item_profiles(log, features, boundary - 1)
        counts = point_in_time.item_counts(log, boundary)
        num_events = log.rows(log.events.count()).as_py()
        past = point_in_time.histories(log, boundary)
    words = vocabulary.build(
        counts,
        profiles.values(),
        num_oov_rows=config.num_oov_rows,
        min_item_count=config.min_item_count,
    )
    attributes = examples.item_attributes(profiles, words)
    slates = examples.slates(snapshots, words, attributes)
    windows = examples.windows(past, length, words, attributes)
    counted = {"events": num_events, "windows": len(windows), "items": len(words.item_keys)}
    return TrainingSet(
        words=words,
        parts=split(slates, boundary),
        windows=windows,
        counts=counted | _counts(slates),
    )


def _counts(slates: Slates) -> dict[str, int]:
    return {
        "requests": len(slates),
        "impressions": int(slates.shown.sum()),
        "clicks": int(slates.clicked.sum()),
        "users": len(np.unique(slates.user_ids)),
    }
