"""Events → a raw log → the training set of a refresh, whose newest fifth is judged.

The stream's own writer and join make the log, and the product's own code cuts it: what a
user of the product gets. Log and examples stay in a folder, named by what they depend on.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks import say
from benchmarks.harness.runs import code_digest, digest_of
from benchmarks.quality.clicks.click_sources import Source
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import feast_store
from srp4ctr.streams.config import StreamConfig
from srp4ctr.testing.raw_logs import Published, labels_of, punctual, write_log
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset import cache
from srp4ctr.training.dataset.batches import Slates
from srp4ctr.training.dataset.build import write_training_set
from srp4ctr.training.dataset.cache import TrainingSet
from srp4ctr.training.evaluation.evaluate import Split, boundary_ms
from srp4ctr.training.evaluation.rules import INPUTS, RuleInputs

EXAMPLES = "examples"
JUDGED_SHARE = 0.2
CALIBRATING_SHARE = 0.05
"""Of the requests, just before the judged ones; the rest teaches."""
CORRECTION_MS = 86_400_000
ALL_CLICKS = 10**9  # the share alone says what is held out
# A change of any of these may change what is written or cut.
RAW_LOGS = "srp4ctr/testing/raw_logs.py"
CUTTING_CODE = ("streams", "features", "training/dataset", RAW_LOGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedSet:
    """A data set as the product reads it."""

    name: str
    folder: str = ""
    """Under the folder of all; empty: ``name``."""
    read: Callable[[], Source]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Settings of ``training`` other than the defaults."""
    features: Mapping[str, Any] = field(default_factory=dict)
    streams: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 1
    held_out_share: float = JUDGED_SHARE + CALIBRATING_SHARE
    """Of clicks only, twice what is judged: the newer half is ranked for."""

    def config(self, folder: Path, seed: int) -> RefreshConfig:
        """Return the recipe of one seed, whose unfinished work is in ``folder``."""
        return RefreshConfig(
            held_out_share=self.held_out_share,
            held_out_clicks=ALL_CLICKS,
            bundles_dir=str(folder / f"seed-{seed}"),
            device="cpu",
            seed=seed,
            **self.recipe,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A training set, and where it lies."""

    dataset: TrainingSet
    """Its newest fifth of requests is judged, with the inputs of rules."""
    folder: Path
    """Of the data set: its log, its examples, and the runs."""


def cut(logged: LoggedSet, work: Path) -> Cut:
    """Return the training set of ``logged``, written under ``work`` if need be.

    Raises ``ValueError`` with what to do where the data are missing.
    """
    folder = work / (logged.folder or logged.name)
    streams = StreamConfig(**logged.streams)
    features = FeatureConfig(
        log_dir=str(folder / "log"),
        registry=str(folder / "registry.db"),
        **logged.features,
    )
    source = logged.read()
    digest = _digest(source, streams)
    note = folder / "log.digest"
    if not note.is_file() or note.read_text() != digest:
        shutil.rmtree(folder, ignore_errors=True)
        _write_log(source, folder / "log", streams)
        feast_store.apply(features)
        note.write_text(digest)
    config = logged.config(folder, seed=0)
    name = cache.name_of(config, features, streams, "")
    dataset = cache.cached(
        folder / EXAMPLES,
        digest_of(name, code_digest(*CUTTING_CODE)),
        lambda target: write_training_set(config, features, streams, target),
    )
    return Cut(dataset=_newest_fifth_judged(dataset, folder / EXAMPLES), folder=folder)


def _newest_fifth_judged(dataset: TrainingSet, examples: Path) -> TrainingSet:
    """Return ``dataset`` with what is held out parted at the newest fifth of requests."""
    parts = dataset.parts
    held_out = [parts.calibrate, parts.judge]
    times = [np.asarray(each.request_at_ms) for each in (parts.train, *held_out)]
    first_ms = boundary_ms(np.concatenate(times), JUDGED_SHARE)
    both = joined(*held_out)
    first = int(np.searchsorted(both.request_at_ms, first_ms))
    split = Split(
        train=parts.train,
        calibrate=both.take(slice(first)),
        judge=both.take(slice(first, None)),
    )
    inputs = _rule_inputs(examples)
    if inputs is not None:
        inputs = inputs.take(slice(first, None))
    return replace(dataset, parts=split, rule_inputs=inputs)


def _rule_inputs(examples: Path) -> RuleInputs | None:
    """Return what rules need of all that is held out; None where negatives are sampled."""
    files = {name: examples / f"{cache.RULES}.{name}.npy" for name in INPUTS}
    if not all(map(Path.is_file, files.values())):
        return None
    return RuleInputs(**{name: np.load(file) for name, file in files.items()})


def joined(first: Slates, second: Slates) -> Slates:
    """Return the requests of both, in this order."""
    both = first, second
    tensors = {
        name: np.concatenate([each.tensors[name] for each in both])
        for name in first.tensors
    }
    own = {
        name: np.concatenate([getattr(each, name) for each in both])
        for name in cache.OF_A_SLATE
    }
    return Slates(tensors=tensors, **own)


def _digest(source: Source, streams: StreamConfig) -> str:
    """Return a digest of the events and of how they become a log."""
    code = code_digest("streams/raw_log", "streams/state", RAW_LOGS)
    digest = hashlib.sha256(f"{code} {streams.label_window_s}".encode())
    for event in (*source.events, *source.updates):
        digest.update(msgspec.json.encode(event))
    return digest.hexdigest()


def _write_log(source: Source, log: Path, streams: StreamConfig) -> None:
    """Write a log in which each event is known as soon as it happens."""
    say(f"{source.name}: writing a log of {len(source.events):,} events …")
    window_ms = round(streams.label_window_s * 1000)
    events = punctual(source.events)
    labels = labels_of(events, window_ms, CORRECTION_MS, len(source.events) + 1)
    published: list[Published] = [(update, update.occurred_at) for update in source.updates]
    published += punctual(source.events)
    published += ((label, label.matured_at) for label in labels)
    write_log(log, published)
