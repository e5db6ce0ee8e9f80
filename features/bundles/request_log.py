"""Served requests ↔ files: a model's actual inputs and outputs.

A sample of the requests, up to a limit in megabytes: one file a request, in numpy's format
without pickles, named by its time. A background thread writes them; requests that arrive
faster than the disk writes are left out.
"""

import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from srp4ctr.atomic_files import replace_file
from srp4ctr.errors import ArtifactError
from srp4ctr.streams.events.schema import in_sample, item_key

SUFFIX = ".npz"
_WAITING = 64  # requests
_PATIENCE_S = 10.0  # with a disk that hangs, in close()
_ABANDONED_S = 3600.0  # writing takes milliseconds
_PROBABILITIES = "click_probability"
_REST = "request"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServedRequest:
    """One request and its response."""

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
        """Write a ``share`` of the requests to ``folder``; keep the newest ``max_mb``."""
        self._folder, self._share, self._max_bytes = Path(folder), share, max_mb * 1e6
        self._written = self._max_bytes  # since it was tidied; the first write tidies
        self._waiting: queue.Queue[ServedRequest | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="served-log", daemon=True)
        self._thread.start()

    def wants(self, request_id: str) -> bool:
        """Return whether this request is in the sample."""
        return bool(request_id) and in_sample(f"served:{request_id}", self._share)

    def put(self, request: ServedRequest) -> None:
        """Queue ``request``; it is dropped if the queue is full."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(request)

    def close(self) -> None:
        """Write the queued requests, and end."""
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
            except OSError:  # a full disk may have room again
                continue


def write(folder: Path, request: ServedRequest) -> int:
    """Write ``request`` whole or not at all; return how many bytes it took."""
    folder.mkdir(parents=True, exist_ok=True)
    unique = item_key(f"{request.user_id}/{request.request_id}") % (1 << 64)
    name = f"{request.time_ms:013d}-{unique:016x}"
    values = {field.name: getattr(request, field.name) for field in fields(request)}
    arrays = {**values.pop("tensors"), _PROBABILITIES: values.pop("probabilities")}
    arrays[_REST] = np.array(json.dumps(values))
    path = folder / f"{name}{SUFFIX}"
    replace_file(path, lambda file: np.savez(file, **arrays))
    return path.stat().st_size


def read(path: Path) -> ServedRequest:
    """Return the request in ``path``; ``ArtifactError`` for another file."""
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        values = json.loads(str(arrays.pop(_REST)))
        probabilities = arrays.pop(_PROBABILITIES)
        values["item_ids"] = tuple(values["item_ids"])
        return ServedRequest(tensors=arrays, probabilities=probabilities, **values)
    except (KeyError, TypeError, ValueError, OSError, BadZipFile) as error:
        raise ArtifactError(f"{path} is no served request: {error}") from error


def newest(folder: Path, count: int) -> list[Path]:
    """Return the files of the newest ``count`` requests, oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"))[-count:]


def remove(folder: Path, is_gone: Callable[[ServedRequest], bool]) -> int:
    """Remove the requests that ``is_gone`` selects; return how many."""
    _remove_abandoned(folder)
    removed = 0
    for path in newest(folder, 1 << 40):
        with contextlib.suppress(ArtifactError):  # another process tidies too
            if is_gone(read(path)):
                path.unlink(missing_ok=True)
                removed += 1
    return removed


def tidy(folder: Path, max_bytes: float) -> None:
    """Remove the oldest files until the others take at most ``max_bytes``."""
    _remove_abandoned(folder)
    left = max_bytes
    for path in reversed(newest(folder, 1 << 40)):
        try:
            left -= path.stat().st_size
            if left < 0:
                path.unlink()
        except FileNotFoundError:  # another process tidies too
            continue


def _remove_abandoned(folder: Path) -> None:
    """Remove the unfinished files of writers that crashed."""
    for path in folder.glob(f"*{SUFFIX}.*"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - _ABANDONED_S:
                path.unlink()


def text_of(value: bytes | str) -> str:
    """Return a text, which comes as bytes; to log invalid UTF-8 must refuse no answer."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
