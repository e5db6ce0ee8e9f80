"""Small files that a reader sees whole or not at all, whenever the writer dies.

Standard library only: the server's environment has no other.
"""

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Make ``text`` the content of ``path``; whoever reads meanwhile sees the old one."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
