"""A training set on disk: cut once, then read by every process and by a resumed refresh.

In: a training set. Out: a folder of .npy files, opened as memory maps: a batch reads its
rows, the rest stays on disk. The name is a digest of log, settings and schema; under
another name it is cut again.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.tensors import schema, vocabulary
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC
from srp4ctr.streams.raw_log.log_files import reading
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import EXAMPLE_NAMES, HISTORY_NAMES, Slates, Windows
from srp4ctr.training.dataset.build import TrainingSet
from srp4ctr.training.evaluation.evaluate import Split

FOLDER = "examples"  # among what is unfinished
_CARD, _VOCABULARY = "examples.json", "vocabulary.json"
_SLATES = ("train", "calibrate", "judge", "champion_judge")
_OF_A_SLATE = ("clicked", "positions", "request_at_ms", "user_ids")
_WINDOWS = "windows"
_NUMBERS = ("boundary_ms", "counts", "exposure_length")


def name_of(
    config: RefreshConfig,
    features: FeatureConfig,
    streams: StreamConfig,
    champion: str,
) -> str:
    """Return a digest of all that ``read_training_set`` reads; its files by their stamps.

    ``champion`` names the bundle whose vocabulary is read. The log's files are replaced
    atomically: another stamp is another file.
    """
    lengths = streams.sequence_length, streams.exposure_length
    cut = (config.held_out_share, config.num_oov_rows, config.min_item_count)
    described = (cut, config.train_window_days, features, lengths, champion)
    digest = hashlib.sha256(repr((described, schema.fingerprint())).encode())
    log_dir = Path(features.log_dir)
    with reading(log_dir):
        for topic in (BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC):
            for file in sorted((log_dir / topic).glob("date=*/*.parquet")):
                stamp = file.stat()
                digest.update(f"{file} {stamp.st_size} {stamp.st_mtime_ns}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A training set on disk."""

    name: str
    """What it was cut from: see ``name_of``."""
    dataset: TrainingSet


def cached(folder: Path, name: str, cut: Callable[[], TrainingSet]) -> TrainingSet:
    """Return the training set in ``folder`` if it has this ``name``; else ``cut`` it."""
    found = read(folder)
    if found is None or found.name != name:
        write(cut(), folder, name)
        found = read(folder)
    assert found is not None
    return found.dataset


def write(dataset: TrainingSet, folder: Path, name: str) -> None:
    """Write ``dataset`` to ``folder``, whole or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    for old in (partial, folder):
        shutil.rmtree(old, ignore_errors=True)
    partial.mkdir(parents=True)
    for file, array in _arrays(dataset):
        np.save(partial / f"{file}.npy", array, allow_pickle=False)
    vocabulary.save(dataset.vocabulary, partial / _VOCABULARY)
    card = {"name": name} | {each: getattr(dataset, each) for each in _NUMBERS}
    (partial / _CARD).write_text(json.dumps(card), encoding="utf-8")
    os.replace(partial, folder)


def read(folder: Path) -> Stored | None:
    """Return the training set in ``folder``, mapped; None if there is none."""
    if not folder.is_dir():
        return None
    card: dict[str, Any] = json.loads((folder / _CARD).read_text(encoding="utf-8"))
    slates = {part: _slates(folder, part) for part in _SLATES if _has(folder, part)}
    windows = {n: _mapped(folder, f"{_WINDOWS}.{n}") for n in HISTORY_NAMES}
    dataset = TrainingSet(
        vocabulary=vocabulary.load(folder / _VOCABULARY),
        parts=Split(
            train=slates["train"], calibrate=slates["calibrate"], judge=slates["judge"]
        ),
        windows=Windows(tensors=windows),
        window_newest_ms=_mapped(folder, f"{_WINDOWS}.newest_ms"),
        champion_judge=slates.get("champion_judge"),
        **{each: card[each] for each in _NUMBERS},
    )
    return Stored(name=card["name"], dataset=dataset)


def _arrays(dataset: TrainingSet) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield every array of ``dataset`` with its file's name."""
    parts: Mapping[str, Slates | None] = {
        "train": dataset.parts.train,
        "calibrate": dataset.parts.calibrate,
        "judge": dataset.parts.judge,
        "champion_judge": dataset.champion_judge,
    }
    for part, slates in parts.items():
        if slates is not None:
            yield from ((f"{part}.{n}", array) for n, array in slates.tensors.items())
            yield from ((f"{part}.{n}", getattr(slates, n)) for n in _OF_A_SLATE)
    yield from ((f"{_WINDOWS}.{n}", a) for n, a in dataset.windows.tensors.items())
    yield f"{_WINDOWS}.newest_ms", dataset.window_newest_ms


def _has(folder: Path, part: str) -> bool:
    return (folder / f"{part}.clicked.npy").exists()


def _slates(folder: Path, part: str) -> Slates:
    own = {name: _mapped(folder, f"{part}.{name}") for name in _OF_A_SLATE}
    tensors = {name: _mapped(folder, f"{part}.{name}") for name in EXAMPLE_NAMES}
    return Slates(tensors=tensors, **own)


def _mapped(folder: Path, file: str) -> Any:
    return np.load(folder / f"{file}.npy", mmap_mode="r", allow_pickle=False)
