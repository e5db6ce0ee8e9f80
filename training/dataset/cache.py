"""A training set on disk: cut once, then read by every process and by a resumed refresh.

In: the parts of a training set, one after another. Out: a folder of .npy files, opened as
memory maps: a batch reads its rows, the rest stays on disk. The name is a digest of log,
settings and schema; under another name it is cut again.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from srp4ctr.atomic_files import replace_text, sync_folder
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.tensors import vocabulary
from srp4ctr.features.tensors.fingerprint import fingerprint
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.raw_log.delta_tables import LOGGED_TOPICS, opened
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset import catalogue_clicks
from srp4ctr.training.dataset.batches import (
    EXAMPLE_NAMES,
    HISTORY_NAMES,
    USER_NAMES,
    Arrays,
    Slates,
    Windows,
)
from srp4ctr.training.dataset.catalogue_clicks import CatalogueClicks
from srp4ctr.training.evaluation.evaluate import Split, split
from srp4ctr.training.evaluation.rules import INPUTS, RuleInputs

FOLDER = "examples"  # among what is unfinished
SLATES, CHAMPION_JUDGE, WINDOWS = "slates", "champion_judge", "windows"
RULES = "rules"
VOCABULARY = "vocabulary.json"
OF_A_SLATE = ("clicked", "positions", "log_draw", "request_at_ms", "user_ids")
NEWEST_MS = "newest_ms"
_JUDGES = (CHAMPION_JUDGE, RULES, catalogue_clicks.PREFIX)  # nothing is trained on them
_CATALOGUE = ("id_letters", "id_ends", "attribute_rows", "counts")
_CARD = "examples.json"
_FORMAT = 4  # of the files: others are cut again
_DAY_MS = 86_400_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Catalogue:
    """The vocabulary's V known items, in the order of their rows."""

    id_letters: NDArray[np.uint8]
    """All ids one after another, in UTF-8."""
    id_ends: NDArray[np.int64]  # (V,)
    """Where each id ends."""
    attribute_rows: NDArray[np.int32]  # (V, A)
    counts: NDArray[np.int64]  # (V,)
    """Events of each item before the boundary."""

    def write(self, folder: Path) -> None:
        """Write the arrays into the ``folder`` of a training set."""
        for name in _CATALOGUE:
            np.save(folder / f"catalogue.{name}.npy", getattr(self, name))


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
    """Numbers of events, requests, impressions, clicks, users, items, windows, and of the
    labels in the log."""
    content: str = ""
    """A digest of the examples: which items, attributes and behaviours; "": of a test."""
    negatives: str = "impressions"
    """``impressions`` or ``sampled``."""
    notes: Sequence[str] = ()
    """For the report: what the log's publishers should change."""
    catalogue: Catalogue | None = None
    """None: of a test."""
    catalogue_clicks: CatalogueClicks | None = None
    """Held-out clicks to rank the whole catalogue for; None without sampled slates."""
    champion_judge: Slates | None = None
    """``parts.judge`` in the rows of another vocabulary: of the bundle to compare with."""
    rule_inputs: RuleInputs | None = None
    """What one-line rules need of ``parts.judge``; None where negatives are sampled."""

    @property
    def length(self) -> int:
        """How long a history is: L."""
        return int(self.windows.tensors["history_item_rows"].shape[1])


def name_of(
    config: RefreshConfig,
    features: FeatureConfig,
    streams: StreamConfig,
    champion: str,
) -> str:
    """Return a digest of all that a training set is cut from; the log by its files' names.

    ``champion`` names the bundle whose vocabulary is read. A file of the log never changes.
    """
    lengths = streams.sequence_length, streams.exposure_length, config.model.encoded_length
    cut = (config.held_out_share, config.held_out_clicks, config.min_item_count)
    negatives = (config.negatives, config.enough_labels)
    described = (cut, negatives, config.train_window_days, features, lengths, champion)
    digest = hashlib.sha256(repr((described, _FORMAT, fingerprint())).encode())
    for topic in LOGGED_TOPICS:
        if table := opened(features.raw_log, topic):
            digest.update("\n".join(sorted(table.file_uris())).encode())
    return digest.hexdigest()


class ArrayFiles:
    """Files of arrays (rows, …) of which a part at a time is in memory."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder, self._prefix = folder, prefix
        self._files: dict[str, tuple[BinaryIO, dict[str, Any]]] = {}
        self._closing = ExitStack()
        self.rows = 0

    def append(self, arrays: Arrays) -> None:
        """Write the next rows of each of ``arrays``; always the same names and shapes."""
        for name, array in arrays.items():
            if name not in self._files:
                path = self._folder / f"{self._prefix}.{name}.npy"
                file: BinaryIO = self._closing.enter_context(path.open("wb"))
                self._files[name] = file, npy.header_data_from_array_1_0(array)
                self._write_header(name, 0)
            file, header = self._files[name]
            assert (header["descr"], header["shape"][1:]) == (
                npy.dtype_to_descr(array.dtype),
                array.shape[1:],
            )
            file.write(array.tobytes())
        self.rows += len(array)

    def close(self) -> None:
        """Write how many rows there are, and close the files."""
        with self._closing:
            for name, (file, _) in self._files.items():
                file.seek(0)
                self._write_header(name, self.rows)
                file.flush()
                os.fsync(file.fileno())

    def _write_header(self, name: str, rows: int) -> None:
        """Write a header for ``rows``: numpy leaves room for a longer first axis."""
        file, header = self._files[name]
        shape = (rows, *header["shape"][1:])
        npy.write_array_header_1_0(file, header | {"shape": shape, "fortran_order": False})


def cached(
    folder: Path, name: str, cut: Callable[[Path], Mapping[str, Any]]
) -> TrainingSet:
    """Return the training set in ``folder`` if it has this ``name``; else ``cut`` it.

    ``cut`` writes it into a folder, which appears whole or not at all, and returns the
    numbers that belong to it.
    """
    try:
        found = read(folder, name)
    except (OSError, ValueError, KeyError) as error:
        _log.warning("%s is damaged, and cut again: %s", folder, error)
        found = None
    if found is None:
        partial = folder.with_name(folder.name + ".partial")
        for old in (partial, folder):
            shutil.rmtree(old, ignore_errors=True)
        partial.mkdir(parents=True)
        card = {"name": name} | dict(cut(partial)) | {"content": _content(partial)}
        replace_text(partial / _CARD, json.dumps(card))
        os.replace(partial, folder)
        sync_folder(folder.parent)
        found = read(folder)
    assert found is not None
    return found


def _content(folder: Path) -> str:
    """Return a digest of the whole numbers in ``folder``: rows, codes, times and counts.

    Of the features the last bits may differ between two cuts of one log.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.npy")):
        array = _mapped(folder, path.stem)
        if array.dtype.kind in "iu" and not path.stem.startswith(_JUDGES):
            digest.update(f"{path.stem} {array.dtype} {array.shape}".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def read(folder: Path, name: str = "") -> TrainingSet | None:
    """Return the training set in ``folder``, mapped; None if there is none of ``name``."""
    try:
        card: dict[str, Any] = json.loads((folder / _CARD).read_text(encoding="utf-8"))
    except OSError:
        return None
    if card.pop("name") != name and name:
        return None
    parts = split(_slates(folder, SLATES), card["boundary_ms"])
    windows = {n: _mapped(folder, f"{WINDOWS}.{n}") for n in HISTORY_NAMES}
    has_champion = (folder / f"{CHAMPION_JUDGE}.clicked.npy").exists()
    held_out = _slates(folder, CHAMPION_JUDGE) if has_champion else None
    if held_out is not None:
        held_out = held_out.take(slice(len(held_out) // 2, None))
    return TrainingSet(
        vocabulary=vocabulary.load(folder / VOCABULARY),
        parts=Split(
            train=_recent(parts.train, card.pop("train_window_days")),
            calibrate=parts.calibrate,
            judge=parts.judge,
        ),
        windows=Windows(tensors=windows),
        window_newest_ms=_mapped(folder, f"{WINDOWS}.{NEWEST_MS}"),
        catalogue_clicks=catalogue_clicks.read(folder),
        champion_judge=held_out,
        rule_inputs=_rule_inputs(folder),
        catalogue=Catalogue(
            **{each: _mapped(folder, f"catalogue.{each}") for each in _CATALOGUE}
        ),
        **card,
    )


def _recent(train: Slates, days: float | None) -> Slates:
    """Return the requests of the last ``days`` before the newest that is trained on."""
    if days is None:
        return train
    start_ms = int(train.request_at_ms[-1]) - round(days * _DAY_MS)
    return train.take(slice(int(np.searchsorted(train.request_at_ms, start_ms)), None))


def _slates(folder: Path, part: str) -> Slates:
    own = {name: _mapped(folder, f"{part}.{name}") for name in OF_A_SLATE}
    of_users = [n for n in USER_NAMES if (folder / f"{part}.{n}.npy").exists()]
    names = (*EXAMPLE_NAMES, *of_users)
    tensors = {name: _mapped(folder, f"{part}.{name}") for name in names}
    return Slates(tensors=tensors, **own)


def _rule_inputs(folder: Path) -> RuleInputs | None:
    """Return those of the judged half of what is held out, as ``split`` has it."""
    if not (folder / f"{RULES}.{INPUTS[0]}.npy").exists():
        return None
    held_out = RuleInputs(**{name: _mapped(folder, f"{RULES}.{name}") for name in INPUTS})
    return held_out.take(slice(len(held_out.ranked) // 2, None))


def _mapped(folder: Path, file: str) -> Any:
    return np.load(folder / f"{file}.npy", mmap_mode="r", allow_pickle=False)
