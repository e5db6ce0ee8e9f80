"""A bundle's items → those with the largest products with a state, and their ids.

All vectors are multiplied: ``products.onnx`` (``training/export/retrieval.py``) does so in
four bits a number, a seventh of the bytes of float32; the best of them are multiplied
again, exactly. No item is skipped, so a filter leaves exactly those that pass it, however
few.

Shapes: V items, D + 1 numbers of a vector.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.errors import ArtifactError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle_items import ids_of, mapped
from srp4ctr.features.tensors import schema
from srp4ctr.triton_repo.serving.onnx_scorer import Session

Int64s = NDArray[np.int64]
Floats = NDArray[np.float32]
# Of eight times as many items as are wanted by four bits, the wanted ones by float32 were
# all but one in a thousand at the worst: docs/decisions/serving.md.
_REPEATED = 8
_BLOCKS = 8  # for each that is wanted
# Less than any product, also where they are integers, as in bundles before 2026-11-29.
_LEFT_OUT = float(np.iinfo(np.int32).min)


class Nearest:
    """Finds items by their vectors."""

    def __init__(self, path: Path, vectors: Floats) -> None:
        """Open the graph in ``path``, which multiplies ``vectors`` (V, D + 1)."""
        self._multiply = Session(path, schema.NEXT_ITEM_TENSORS, {"D1": vectors.shape[1]})
        self._vectors = vectors

    def __call__(
        self,
        state: Floats,
        count: int,
        left_out: Sequence[Int64s] = (),
        among: Int64s | None = None,
    ) -> Int64s:
        """Return up to ``count`` rows by falling product with ``state`` (D + 1,).

        None of the rows ``left_out``; only those ``among`` these, if they are given.
        """
        [[scores]] = self._multiply({"next_item": state[None]}).values()
        for rows in left_out:
            scores[rows] = _LEFT_OUT
        scores = scores if among is None else scores.take(among)
        found = greatest(scores, _REPEATED * count)
        found = found[scores[found] > _LEFT_OUT]
        found = found if among is None else among.take(found)
        products = self._vectors[found] @ state
        best: Int64s = found[np.argsort(-products, kind="stable")[:count]]
        return best


class ItemVectors:
    """The known items of a bundle: their output vectors, ids and training's counts."""

    def __init__(self, folder: Path, keys: Int64s) -> None:
        """Read them; raises ``ArtifactError`` for files that are not of ``keys``."""
        path = folder / bundle.ITEMS_FILE
        try:
            found = mapped(path)
            vectors: NDArray[np.float32] = found["vectors"]  # (V, D + 1)
            self.counts: NDArray[Any] = found["counts"]  # (V,)
            ends, _ = found["id_ends"], found["id_letters"]
        except (ValueError, OSError, KeyError) as error:
            raise ArtifactError(f"{path} holds no items: {error!r}") from error
        if not len(vectors) == len(self.counts) == len(ends) == len(keys):
            raise ArtifactError(f"{path} has other items than the vocabulary")
        self.keys, self._found = keys, found
        self.nearest = Nearest(folder / bundle.PRODUCTS_FILE, vectors)

    def ids_of(self, rows: Int64s) -> list[bytes]:
        """Return the ids of the items in ``rows``."""
        return ids_of(self._found, rows)


def greatest(scores: NDArray[Any], count: int) -> Int64s:
    """Return the places of the ``count`` largest ``scores``, or of all, in any order."""
    blocks = _BLOCKS * count
    if (size := len(scores) // blocks) > 1:
        # As many blocks as are wanted have a score of at least ``least``.
        tops = scores[: size * blocks].reshape(size, blocks).max(axis=0)
        least = np.partition(tops, blocks - count)[blocks - count]
        places = np.flatnonzero(scores >= least)
    else:
        places = np.arange(len(scores))
    if (rest := len(places) - count) > 0:
        places = places[np.argpartition(scores[places], rest)[rest:]]
    return places
