"""Small JSON files that one process writes for another, read back as their types.

The status files that the monitor reads: no torch, no pyarrow.
"""

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from srp4ctr.atomic_files import replace_text

_T = TypeVar("_T")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all; make the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, msgspec.json.format(msgspec.json.encode(value).decode()) + "\n")


def read_json(path: Path, type_: type[_T]) -> _T | None:
    """Return the value in ``path``; None where there is none, or another release's."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=type_)
    except (OSError, msgspec.DecodeError):
        return None
