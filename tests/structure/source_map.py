"""Print a tree of the project's files, each with the first sentence of its docstring.

``make source-map`` prints it. No file is named here: a module that moves takes its phrase
along.
"""

import ast
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.structure.source_tree import PACKAGE, ROOT

ALONGSIDE = ("benchmarks",)
COMMENTED = {".js", ".css", ".toml", ".yaml", ".yml", ".properties", ".sh", ".in"}
FLOW = ("streams", "features", "training", "triton_repo", "monitoring")
_COMMENT = re.compile(
    r"\A(?:#![^\n]*\n)?(?:((?:#[^\n]*\n)+)|((?://[^\n]*\n)+)|/\*(.*?)\*/)", re.DOTALL
)
# A sentence ends before a space and a new beginning; "e.g. this" does not end one.
_SENTENCE = re.compile(r"(?<!e\.g\.)(?<!i\.e\.)(?<=[.?!])\s+(?=[A-Z`\"'(…])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file and the phrase at its top."""

    path: str
    """Path from the project's root."""
    phrase: str

    @property
    def folder(self) -> str:
        """Folder from the root; empty for a file at the top."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """Name without the folders."""
        return self.path.rpartition("/")[2]


def first_sentence(text: str) -> str:
    """Return the first sentence of a docstring or a comment, on one line."""
    paragraph = text.strip().split("\n\n")[0]
    paragraph = re.split(r"\n(?=[-*] )", paragraph)[0]
    sentence = _SENTENCE.split(" ".join(paragraph.split()))[0]
    return sentence.removesuffix(".").replace("``", "`")


def phrase_of(path: Path) -> str:
    """Return the first sentence at the top of a file; empty if there is none."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return first_sentence(ast.get_docstring(ast.parse(text)) or "")
    match = _COMMENT.match(text)
    if not match:
        return ""
    lines = next(group for group in match.groups() if group).splitlines()
    return first_sentence("\n".join(re.sub(r"^\s*(#+|//|\*)\s?", "", e) for e in lines))


@cache
def folders() -> tuple[Path, ...]:
    """Return the package, the folders that are linked into it, and those alongside."""
    package = ROOT / PACKAGE
    linked = sorted(path.resolve() for path in package.iterdir() if path.is_symlink())
    return (*linked, package, *(ROOT / name for name in ALONGSIDE))


@cache
def entries() -> tuple[Entry, ...]:
    """Return every module, and other files with a comment at the top, by path."""
    paths = [path for folder in folders() for path in folder.rglob("*")]
    paths += ROOT.iterdir()
    phrases = [(path, phrase_of(path)) for path in paths if _is_source(path)]
    return tuple(
        Entry(path=path.relative_to(ROOT).as_posix(), phrase=phrase)
        for path, phrase in sorted(phrases)
        if phrase or path.suffix == ".py"
    )


def tree() -> str:
    """Return the folders in the order of the data, with a line per file."""
    by_folder: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries():
        by_folder[entry.folder].append(entry)
    for folder in list(by_folder):  # folders that hold folders only
        for parent in list(Path(folder).parents)[:-1]:
            by_folder[parent.as_posix()] += []
    order = sorted(by_folder, key=_position)
    return "\n".join(line for folder in order for line in _lines(folder, by_folder[folder]))


def _is_source(path: Path) -> bool:
    if not path.is_file() or path.is_symlink() or "__pycache__" in path.parts:
        return False
    if path.parent == ROOT:
        return path.suffix in COMMENTED or path.name in ("Makefile", "Dockerfile")
    return path.suffix == ".py" or path.suffix in COMMENTED


def _position(folder: str) -> tuple[int, str]:
    """Sort folders in the order of the data flow; files at the top come last."""
    rooms = [room.relative_to(ROOT).as_posix() for room in folders()]
    rooms.sort(key=lambda room: FLOW.index(room) if room in FLOW else len(FLOW))
    place = next(
        (n for n, room in enumerate(rooms) if f"{folder}/".startswith(f"{room}/")), 99
    )
    return place, folder


def _lines(folder: str, inside: list[Entry]) -> list[str]:
    """Return the line of a folder, and those of its files."""
    depth = folder.count("/") if folder else -1
    phrase = next((each.phrase for each in inside if each.name == "__init__.py"), "")
    lines = [_line(depth, f"{folder.rpartition('/')[2]}/", phrase)] if folder else []
    files = [each for each in inside if each.name != "__init__.py"]
    return lines + [_line(depth + 1, file.name, file.phrase) for file in files]


def _line(depth: int, name: str, phrase: str) -> str:
    return f"{'  ' * depth + name:<36}  {phrase}".rstrip()


if __name__ == "__main__":
    print(tree())  # noqa: T201
