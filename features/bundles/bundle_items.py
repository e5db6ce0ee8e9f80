"""A bundle's ``items.safetensors`` → vectors, counts and ids of the items that it knows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_HEADER = 1 << 16
_ARRAYS = {
    "vectors": np.float32,
    "counts": np.int64,
    "id_ends": np.int64,
    "id_letters": np.uint8,
}


def mapped(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of the file, mapped: a step's processes share them."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header, begins = json.loads(file.read(min(size, _MAX_HEADER))), 8 + size
    content = np.memmap(path, mode="r")
    found: dict[str, NDArray[Any]] = {}
    for name, kind in _ARRAYS.items():
        if name in header:
            first, last = header[name]["data_offsets"]
            array = np.asarray(content[begins + first : begins + last]).view(kind)
            found[name] = array.reshape(header[name]["shape"])
    return found


def ids_of(items: Mapping[str, NDArray[Any]], rows: NDArray[np.int64]) -> list[bytes]:
    """Return the ids of the items in ``rows`` of what ``mapped`` has."""
    ends, letters = items["id_ends"], items["id_letters"].data
    starts = ends.take(rows - 1) * (rows > 0)
    pairs = zip(starts.tolist(), ends.take(rows).tolist(), strict=True)
    return [letters[start:end].tobytes() for start, end in pairs]


def ids_by_key(path: Path, known: Sequence[int], keys: Sequence[int]) -> dict[int, str]:
    """Return the ids of those of ``keys`` that the bundle knows; ``known`` ascends.

    {} where there is no file: a bundle that does not recommend.
    """
    if not path.is_file():
        return {}
    wanted = np.intersect1d(keys, known)
    found = ids_of(mapped(path), np.searchsorted(known, wanted))
    return {key: each.decode() for key, each in zip(wanted.tolist(), found, strict=True)}
