"""Every Markdown page of the project, its blocks and its commands."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tests.structure.source_tree import ROOT

_FENCE = re.compile(r"^ *```(\S*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"\s#\s.*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What stands between two fences."""

    page: str
    """Its path from the project's root."""
    line: int
    language: str
    """ "": a drawing, or what a command printed."""
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def pages() -> dict[str, str]:
    """Return every page's text by its path from the root."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    found += [*(ROOT / "monitoring").glob("*.md")]
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(found)
    }


def blocks(language: str | None = None) -> list[Block]:
    """Return every block, or those in one language."""
    return [
        Block(
            page=page,
            line=text[: match.start()].count("\n") + 1,
            language=match[1],
            text=match[2],
        )
        for page, text in pages().items()
        for match in _FENCE.finditer(text)
        if language in (None, match[1])
    ]


def commands() -> Iterator[tuple[Block, str]]:
    """Yield what is typed after each ``$``, as one line, less its comment."""
    for block in blocks("console"):
        typed: list[str] = []
        for line in block.text.splitlines():
            if line.startswith("$ "):
                typed.append(_COMMENT.sub("", line[2:]))
            elif typed and _goes_on(typed[-1]):
                typed[-1] = f"{typed[-1].removesuffix(chr(92))}\n{line}"
        yield from ((block, each) for each in typed)


def words(command: str) -> list[str]:
    """Return the words of ``command``, less variables set before it."""
    found = shlex.split(command)
    while found and re.match(r"\w+=", found[0]):
        found.pop(0)
    return found


def prose(text: str) -> str:
    """Return a page without its blocks."""
    return _FENCE.sub("", text)


def _goes_on(command: str) -> bool:
    """Return whether the next line belongs to ``command``."""
    if command.endswith("\\"):
        return True
    try:
        shlex.split(command)
    except ValueError:  # a quotation that is still open
        return True
    return False
