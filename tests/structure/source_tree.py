"""The project's Python files, parsed once: what every structure test looks at."""

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("streams", "features", "training", "triton_repo", "monitoring")
PACKAGE = "srp4ctr"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One module: its path from the project's root, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def folder(self) -> str:
        """The folder in the package, or the file itself that lies directly in it."""
        return self.path.removeprefix(f"{PACKAGE}/").partition("/")[0]

    def imported_modules(self) -> Iterator[str]:
        """Yield every module named in an import, lazy ones inside functions too."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield node.module

    def imported_packages(self) -> set[str]:
        """Return the top-level names of the imported modules; of ours, those below."""
        modules = {module.removeprefix(f"{PACKAGE}.") for module in self.imported_modules()}
        return {module.partition(".")[0] for module in modules}


def parse(path: str, text: str) -> SourceFile:
    """Return ``text`` as the module at ``path``."""
    return SourceFile(path=path, text=text, tree=ast.parse(text))


@cache
def product_files() -> tuple[SourceFile, ...]:
    """Return the modules that are installed: the stage folders, cli.py, settings.py."""
    own = sorted(p for p in (ROOT / PACKAGE).rglob("*.py") if not _is_linked(p))
    return _read([*_modules(FOLDERS), *own])


@cache
def all_files() -> tuple[SourceFile, ...]:
    """Return the product's modules, then those of tests/ and benchmarks/."""
    return product_files() + _read(_modules(("tests", "benchmarks")))


def _is_linked(path: Path) -> bool:
    """Return whether a path leads through one of the package's links."""
    return path.relative_to(ROOT / PACKAGE).parts[0] in FOLDERS


def _modules(folders: tuple[str, ...]) -> list[Path]:
    return [path for name in folders for path in sorted((ROOT / name).rglob("*.py"))]


def _read(paths: list[Path]) -> tuple[SourceFile, ...]:
    return tuple(
        parse(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for path in paths
    )
