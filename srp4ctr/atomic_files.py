"""Small files that a reader sees whole or not at all, whenever the writer dies.

Standard library only: the server's environment has no other.
"""

import os
from pathlib import Path
from uuid import uuid4


def replace_text(path: Path, text: str) -> None:
    """Make ``text`` the content of ``path``; readers see the old content until then.

    It survives a power cut once this returns, and two writers at once do no harm: each has
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
