"""Every module's docstring → docs/source-map.md: the house on a page, a phrase per file.

In: the folders of the package, the links' targets among them, and the benchmarks. Out: the
page that ``make source-map`` writes. No file is named here: a module that moves takes its
phrase along.
"""

import ast
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.structure.source_tree import PACKAGE, ROOT

PAGE = ROOT / "docs" / "source-map.md"
ALONGSIDE = ("benchmarks",)
COMMENTED = {".js", ".css", ".toml", ".yaml", ".yml", ".properties", ".sh", ".in"}
FLOW = ("streams", "features", "training", "triton_repo", "monitoring")
INTRODUCTION = f"""# Source map

Written by `make source-map` from the first sentence of each module; not to be edited here.
Everything is imported as `{PACKAGE}.…`, wherever its folder lies
([why](developers.md#the-architecture-on-a-page)). `tests/` has the same tree: a module's
test is `tests/` + its path.
"""
_COMMENT = re.compile(
    r"\A(?:#![^\n]*\n)?(?:((?:#[^\n]*\n)+)|((?://[^\n]*\n)+)|/\*(.*?)\*/)", re.DOTALL
)
# A sentence ends before a space and a new beginning; "e.g. this" does not end one.
_SENTENCE = re.compile(r"(?<!e\.g\.)(?<!i\.e\.)(?<=[.?!])\s+(?=[A-Z`\"'(…])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file, and what it says of itself."""

    path: str
    """From the project's root."""
    phrase: str

    @property
    def folder(self) -> str:
        """Its folder from the root; empty for a file at the top."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """Its name without its folders."""
        return self.path.rpartition("/")[2]


def first_sentence(text: str) -> str:
    """Return the first sentence of a docstring or a comment, on one line."""
    paragraph = text.strip().split("\n\n")[0]
    paragraph = re.split(r"\n(?=[-*] )", paragraph)[0]
    sentence = _SENTENCE.split(" ".join(paragraph.split()))[0]
    return sentence.removesuffix(".").replace("``", "`").replace("|", "\\|")


def phrase_of(path: Path) -> str:
    """Return what a file says of itself at its top; empty where it says nothing."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return first_sentence(ast.get_docstring(ast.parse(text)) or "")
    found = _COMMENT.match(text)
    if not found:
        return ""
    lines = next(group for group in found.groups() if group).splitlines()
    return first_sentence("\n".join(re.sub(r"^\s*(#+|//|\*)\s?", "", e) for e in lines))


@cache
def folders() -> tuple[Path, ...]:
    """Return the package, the folders that are linked into it, and those alongside."""
    package = ROOT / PACKAGE
    linked = sorted(each.resolve() for each in package.iterdir() if each.is_symlink())
    return (*linked, package, *(ROOT / name for name in ALONGSIDE))


@cache
def entries() -> tuple[Entry, ...]:
    """Return every module, and the other files that say what they are, by path."""
    found = [path for folder in folders() for path in folder.rglob("*")]
    found += ROOT.iterdir()
    phrases = [(path, phrase_of(path)) for path in found if _is_source(path)]
    return tuple(
        Entry(path=path.relative_to(ROOT).as_posix(), phrase=phrase)
        for path, phrase in sorted(phrases)
        if phrase or path.suffix == ".py"
    )


def page() -> str:
    """Return the text of docs/source-map.md."""
    by_folder: dict[str, list[Entry]] = defaultdict(list)
    for each in entries():
        by_folder[each.folder].append(each)
    for folder in list(by_folder):  # those that hold folders only
        for parent in list(Path(folder).parents)[:-1]:
            by_folder[parent.as_posix()] += []
    order = sorted(by_folder, key=_as_in_the_house)
    parts = [INTRODUCTION, _house(order, by_folder)]
    parts += [_section(folder, by_folder[folder]) for folder in order if by_folder[folder]]
    return "\n".join(parts)


def _is_source(path: Path) -> bool:
    if not path.is_file() or path.is_symlink() or "__pycache__" in path.parts:
        return False
    if path.parent == ROOT:
        return path.suffix in COMMENTED or path.name in ("Makefile", "Dockerfile")
    return path.suffix == ".py" or path.suffix in COMMENTED


def _as_in_the_house(folder: str) -> tuple[int, str]:
    """Sort folders as the data goes; files at the top come last."""
    walls = [wall.relative_to(ROOT).as_posix() for wall in folders()]
    walls.sort(key=lambda wall: FLOW.index(wall) if wall in FLOW else len(FLOW))
    place = next((n for n, w in enumerate(walls) if f"{folder}/".startswith(f"{w}/")), 99)
    return place, folder


def _phrase_of_folder(inside: list[Entry]) -> str:
    return next((each.phrase for each in inside if each.name == "__init__.py"), "")


def _house(order: list[str], by_folder: dict[str, list[Entry]]) -> str:
    """Draw the folders as a tree: how many files each has, and its phrase."""
    lines = []
    for folder in filter(None, order):
        indent = "  " * folder.count("/")
        inside = by_folder[folder]
        name = f"{indent}{folder.rpartition('/')[2]}/"
        count = sum(each.name != "__init__.py" for each in inside)
        lines.append(f"{name:<18}{count or '':>4}  {_phrase_of_folder(inside)}".rstrip())
    return "\n".join(["## The house", "", "```", *lines, "```", ""])


def _section(folder: str, inside: list[Entry]) -> str:
    """Return one folder: its heading, its phrase, its files."""
    heading = [f"## {folder}/" if folder else "## At the top", ""]
    if phrase := _phrase_of_folder(inside):
        heading += [f"{phrase}.", ""]
    rows = [f"| [`{e.name}`](../{e.path}) | {e.phrase} |" for e in inside]
    shown = [row for row, e in zip(rows, inside, strict=True) if e.name != "__init__.py"]
    if not shown:
        return "\n".join(heading)
    return "\n".join([*heading, "| file | what it is |", "|---|---|", *shown, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
