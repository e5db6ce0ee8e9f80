"""Answered requests → files, and back: what a model was really given, and what it said.

Of a share of the requests, so many megabytes at most. One file a request, numpy's own and
without pickles, named by its time. They are written beside the requests' way: where they
come faster than the disk takes them, some are left out.
"""

import contextlib
import json
import os
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from srp4ctr.streams.events.schema import in_sample, item_key

SUFFIX = ".npz"
_WAITING = 64  # requests
_PATIENCE_S = 10.0  # with a disk that hangs, at the end
_PROBABILITIES, _REST = "click_probability", "request"
_TOLD = (
    *("request_id", "user_id", "item_ids", "time_ms"),
    *("status", "feature_version", "model_version"),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServedRequest:
    """One request as it was answered."""

    request_id: str
    user_id: str
    item_ids: tuple[str, ...]
    """N, "" pads."""
    time_ms: int
    status: str
    feature_version: str
    model_version: str
    tensors: Mapping[str, NDArray[Any]]
    """The model's, by their names, with a leading axis of 1."""
    probabilities: NDArray[np.float32]
    """(N,), NaN for padding."""


class ServedLog:
    """Keeps requests; one a process, any number of processes in a folder."""

    def __init__(self, folder: str, share: float, max_mb: float) -> None:
        """Write to ``folder``, of ``share`` of the requests; remove the oldest beyond."""
        self._folder, self._share, self._max_bytes = Path(folder), share, max_mb * 1e6
        self._written = self._max_bytes  # since it was tidied: the first write tidies
        self._waiting: queue.Queue[ServedRequest | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="served-log", daemon=True)
        self._thread.start()

    def wants(self, request_id: str) -> bool:
        """Return whether this request is one of those that are kept."""
        return bool(request_id) and in_sample(f"served:{request_id}", self._share)

    def put(self, request: ServedRequest) -> None:
        """Keep ``request`` soon; it is left out where too many wait."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(request)

    def close(self) -> None:
        """Write what waits, and end."""
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=_PATIENCE_S)
        self._thread.join(timeout=_PATIENCE_S)

    def _run(self) -> None:
        while (request := self._waiting.get()) is not None:
            try:
                self._written += write(self._folder, request)
                if self._written > self._max_bytes / 20:
                    tidy(self._folder, self._max_bytes)
                    self._written = 0
            except OSError:  # a full disk must not end it: there may be room again
                continue


def write(folder: Path, request: ServedRequest) -> int:
    """Write ``request`` whole or not at all; return how many bytes it took."""
    folder.mkdir(parents=True, exist_ok=True)
    unique = item_key(f"{request.user_id}/{request.request_id}") % (1 << 64)
    name = f"{request.time_ms:013d}-{unique:016x}"
    told = {name: getattr(request, name) for name in _TOLD}
    arrays: dict[str, Any] = {**request.tensors, _PROBABILITIES: request.probabilities}
    arrays[_REST] = np.array(json.dumps(told))
    unfinished = folder / f"{name}-{os.getpid()}.tmp"
    with unfinished.open("wb") as file:
        np.savez(file, **arrays)
    unfinished.replace(folder / f"{name}{SUFFIX}")
    return (folder / f"{name}{SUFFIX}").stat().st_size


def read(path: Path) -> ServedRequest:
    """Return the request in ``path``; ``ValueError`` where it is none."""
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        told = json.loads(str(arrays.pop(_REST)))
        probabilities = arrays.pop(_PROBABILITIES)
        told["item_ids"] = tuple(told["item_ids"])
        return ServedRequest(tensors=arrays, probabilities=probabilities, **told)
    except (KeyError, TypeError, ValueError, OSError, BadZipFile) as error:
        raise ValueError(f"{path} is no served request: {error}") from error


def newest(folder: Path, count: int) -> list[Path]:
    """Return the files of the newest ``count`` requests, oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"))[-count:]


def remove(folder: Path, is_gone: Callable[[ServedRequest], bool]) -> int:
    """Remove the requests of which ``is_gone`` says so, and return how many those are."""
    removed = 0
    for path in newest(folder, 1 << 40):
        with contextlib.suppress(ValueError):  # another process tidies too
            if is_gone(read(path)):
                path.unlink(missing_ok=True)
                removed += 1
    return removed


def tidy(folder: Path, max_bytes: float) -> None:
    """Remove the oldest files, so that the others take ``max_bytes`` at most."""
    left = max_bytes
    for path in reversed(newest(folder, 1 << 40)):
        try:
            left -= path.stat().st_size
            if left < 0:
                path.unlink()
        except FileNotFoundError:  # another process tidies too
            continue
