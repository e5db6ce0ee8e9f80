"""Small files that a reader sees whole or not at all, whenever the writer crashes."""

import os
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import msgspec

_T = TypeVar("_T")


def replace_text(path: Path, text: str) -> None:
    """Replace the content of ``path`` by ``text``; readers see the old content until then.

    It survives a power cut once this returns. Several processes may write at once: each has
    a temporary file of its own.
    """
    unfinished = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        with unfinished.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename, too
    finally:
        os.close(folder)


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
