"""Files that a reader sees whole or not at all, whenever the writer crashes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from uuid import uuid4

import msgspec

_T = TypeVar("_T")


def replace_text(path: Path, text: str) -> None:
    """Replace the content of ``path`` by ``text``, as ``replace_file`` does."""
    replace_file(path, lambda file: file.write(text.encode()))


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Replace ``path`` by what ``write`` writes; readers see the old content until then.

    It survives a power cut once this returns. Several processes may write at once: each has
    a temporary file of its own.
    """
    unfinished = write_unfinished(path, write)
    try:
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_unfinished(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Let ``write`` fill a temporary file and return it, on disk, to be renamed ``path``.

    Then the caller calls ``sync_folder``. After an error nothing is left.
    """
    unfinished = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        with unfinished.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        unfinished.unlink(missing_ok=True)  # a full disk must not fill with attempts
        raise
    return unfinished


def sync_folder(folder: Path) -> None:
    """Make the renames in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all; create the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, msgspec.json.format(msgspec.json.encode(value).decode()) + "\n")


def read_json(path: Path, type_: type[_T]) -> _T | None:
    """Return the value in ``path``; None without a file, or for another release's."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=type_)
    except (OSError, msgspec.DecodeError):
        return None
