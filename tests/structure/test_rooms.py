"""Imports go one way, without circles."""

import ast
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath

from tests.structure.source_tree import SourceFile, all_files, parse, product_files

Graph = Mapping[str, frozenset[str]]


def dotted(path: str) -> str:
    """Return the name by which the file at ``path`` is imported."""
    parts = PurePosixPath(path).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return name if parts[0] in {"srp4ctr", "tests", "benchmarks"} else f"srp4ctr.{name}"


def imports_of(file: SourceFile, known: Iterable[str]) -> frozenset[str]:
    """Return which of ``known`` modules a file imports, lazily or for types too."""
    modules, found = set(known), set()
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & modules
        elif isinstance(node, ast.ImportFrom) and node.module:
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (named & modules) or ({node.module} & modules)
    return frozenset(found - {dotted(file.path)})


def graph_of(files: Iterable[SourceFile]) -> Graph:
    """Return module → the modules that it imports."""
    by_name = {dotted(file.path): file for file in files}
    return {name: imports_of(file, by_name) for name, file in by_name.items()}


def circle(graph: Graph) -> list[str]:
    """Return modules that import each other in a circle, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(graph_of(all_files())) == []


def test_a_circle_is_found() -> None:
    graph = {
        "a": frozenset("b"),
        "b": frozenset("c"),
        "c": frozenset("a"),
        "d": frozenset("a"),
    }
    assert set(circle(graph)) == {"a", "b", "c"}
    assert circle({"a": frozenset("b"), "b": frozenset()}) == []


def test_tests_are_imported_by_tests_alone() -> None:
    files = [*product_files(), *(f for f in all_files() if f.folder == "benchmarks")]
    assert [f.path for f in files if "tests" in f.imported_packages()] == []


def test_no_module_of_tests_is_imported() -> None:
    importers = [
        f"{name} imports {module}"
        for name, modules in graph_of(all_files()).items()
        for module in sorted(modules)
        if module.rpartition(".")[2].startswith("test_")
    ]
    assert importers == []


def test_a_lazy_import_of_a_module_counts() -> None:
    file = parse("streams/a.py", "def f():\n    from srp4ctr.streams import b\n")
    assert imports_of(file, ["srp4ctr.streams.b"]) == {"srp4ctr.streams.b"}
