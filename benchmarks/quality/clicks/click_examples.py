"""Loads slates that train, calibrate and evaluate a model, as plain arrays.

In: the folder that ``click_cutting`` wrote. Out: arrays that stay on the disk until they
are used, so that many processes share them.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.tensors import vocabulary
from srp4ctr.training.dataset.batches import Arrays, Slates, Windows
from srp4ctr.training.dataset.examples import read_contexts
from srp4ctr.training.model.embeddings import TableSizes

SIZE = "in_view"  # the context field of the slate's size
CARD, VOCABULARY, ITEMS = "card.json", "vocabulary.json", "items"
SLATE_ARRAYS = ("clicked", "positions", "request_at_ms", "user_ids")
PART_ARRAYS = ("requests", "items", "contexts")
PARTS = ("train", "calibrate", "judge")
_Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """R slates by time, and what only the evaluation needs."""

    slates: Slates
    requests: _Int64s
    """(R,): a long request is several slates; it keeps one number."""
    items: NDArray[np.int32]
    """(R, N): the candidates' items, by their place in ``item_impressions``; -1 pads."""
    contexts: NDArray[np.str_]
    """(R,): JSON, empty where there is none."""

    def __len__(self) -> int:
        return len(self.requests)

    def take(self, rows: Any) -> "Part":
        """Return the slates ``rows``: numbers, or a slice, which copies nothing."""
        return Part(
            slates=self.slates.take(rows),
            requests=self.requests[rows],
            items=self.items[rows],
            contexts=self.contexts[rows],
        )

    @property
    def clicked(self) -> NDArray[np.float32]:
        """(M,): whether each shown candidate was clicked."""
        return self.slates.clicked[self.slates.shown]

    @property
    def columns(self) -> NDArray[np.float32]:
        """(M, …): the numeric columns of each shown candidate, the request's first."""
        tensors, shown = self.slates.tensors, self.slates.shown
        of_request = tensors["request_features"][np.nonzero(shown)[0]]
        joined = np.concatenate([of_request, tensors["candidate_features"][shown]], axis=1)
        return joined.astype(np.float32)

    @property
    def slate_sizes(self) -> _Int64s:
        """(R,): how many candidates each slate's whole request has."""
        _, request = np.unique(self.requests, return_inverse=True)
        sums = np.bincount(request, weights=self.slates.shown.sum(axis=1))
        sizes: _Int64s = sums.astype(np.int64)[request]
        return sizes

    def sized_contexts(self) -> list[str]:
        """Return the contexts with the number of candidates as one more field."""
        return [
            json.dumps(vocabulary.parse_context(text) | {SIZE: str(size)})
            for text, size in zip(self.contexts, self.slate_sizes.tolist(), strict=True)
        ]

    def with_contexts(self, contexts: Sequence[str], numbers: Sequence[str]) -> "Part":
        """Return the same with other ``contexts``, whose fields ``numbers`` are such."""
        rows, columns = read_contexts(contexts, numbers)
        features = np.array(self.slates.tensors["request_features"])
        features[:, -columns.shape[1] :] = columns
        changed = {"context_rows": rows, "request_features": features}
        slates = replace(self.slates, tensors={**self.slates.tensors, **changed})
        return replace(self, slates=slates, contexts=np.array(contexts, dtype=np.str_))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """All that a variant learns from and is judged by."""

    name: str
    digest: str
    train: Part
    calibrate: Part
    judge: Part
    windows: Windows
    sizes: TableSizes
    first_known_row: int
    item_impressions: _Int64s
    """How often each item was shown in the training part."""
    item_is_new: NDArray[np.bool_]
    """Where an item was never met before the training part's end."""

    def with_size(self) -> "Examples":
        """Return the same with the slate's size known to every variant."""
        contexts = {part: getattr(self, part).sized_contexts() for part in PARTS}
        numbers = vocabulary.numbers_of(contexts["train"])
        parts = {
            part: getattr(self, part).with_contexts(contexts[part], numbers)
            for part in PARTS
        }
        return replace(self, name=f"{self.name}+size", **parts)


def load(folder: Path) -> Examples:
    """Return the examples in ``folder``; arrays stay on the disk until they are used."""
    card = json.loads((folder / CARD).read_text())
    words = vocabulary.load(folder / VOCABULARY)
    whole = _load_part(folder, "slates")
    items = _load(folder, ITEMS)
    windows = Windows(tensors=_load(folder, "windows"))
    calibrate, judge = card["calibrate_row"], card["judge_row"]
    return Examples(
        name=card["name"],
        digest=card["digest"],
        train=whole.take(slice(0, calibrate)),
        calibrate=whole.take(slice(calibrate, judge)),
        judge=whole.take(slice(judge, None)),
        windows=windows,
        sizes=TableSizes.of(words, windows.tensors["history_item_rows"].shape[1]),
        first_known_row=words.first_known_row,
        item_impressions=items["impressions"].astype(np.int64),
        item_is_new=items["is_new"].astype(np.bool_),
    )


@functools.cache
def name_of(folder: Path) -> str:
    """Return the name under which results of the examples in ``folder`` are cached."""
    card = json.loads((folder / CARD).read_text())
    return f"{card['name']}-{card['digest']}"


def save_part(folder: Path, name: str, part: Part) -> None:
    """Write ``part`` into ``folder``, an array per file."""
    save(folder, f"{name}.tensors", part.slates.tensors)
    save(folder, name, {array: getattr(part.slates, array) for array in SLATE_ARRAYS})
    save(folder, name, {array: getattr(part, array) for array in PART_ARRAYS})


def _load_part(folder: Path, name: str) -> Part:
    def arrays(names: Sequence[str]) -> dict[str, Any]:
        files = {each: folder / f"{name}.{each}.npy" for each in names}
        return {each: np.load(file, mmap_mode="c") for each, file in files.items()}

    labels = arrays(SLATE_ARRAYS)
    slates = Slates(
        tensors=_load(folder, f"{name}.tensors"),
        **labels,
        log_draw=np.zeros_like(labels["clicked"]),
    )
    return Part(slates=slates, **arrays(PART_ARRAYS))


def save(folder: Path, name: str, arrays: Arrays) -> None:
    """Write ``arrays`` into ``folder`` as ``NAME.*.npy``."""
    for each, array in arrays.items():
        np.save(folder / f"{name}.{each}.npy", array)


def _load(folder: Path, name: str) -> Arrays:
    """Return the arrays ``NAME.*.npy``; a write to one stays in memory."""
    return {
        path.name.removeprefix(f"{name}.").removesuffix(".npy"): np.load(
            path, mmap_mode="c"
        )
        for path in sorted(folder.glob(f"{name}.*.npy"))
    }
