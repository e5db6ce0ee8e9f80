"""Names that say nothing are not allowed for modules and classes."""

import ast
import re
from pathlib import PurePosixPath

import pytest

from tests.structure.source_tree import SourceFile, all_files, parse

EMPTY_WORDS = {
    "util",
    "utils",
    "helper",
    "helpers",
    "common",
    "base",
    "manager",
    "managers",
    "handler",
    "handlers",
    "processor",
    "processors",
    "data",
    "info",
    "misc",
}
# DCNv2 is the name of a published method; "parser2" is a second thought.
SECOND_THOUGHT = re.compile(r"(?<![vV])2$|_new$|_old$|New$|Old$")


def words(name: str) -> set[str]:
    """Split ``snake_case`` and ``CamelCase`` into lower-case words."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return {word.lower() for word in spaced.split("_") if word}


def says_nothing(name: str) -> bool:
    """Return whether ``name`` has an empty word or a second thought's suffix."""
    return bool(words(name) & EMPTY_WORDS or SECOND_THOUGHT.search(name))


def names_of(file: SourceFile) -> list[str]:
    """Return the module's name, its folders' and its classes'."""
    path = PurePosixPath(file.path)
    classes = [n.name for n in ast.walk(file.tree) if isinstance(n, ast.ClassDef)]
    return [*path.parent.parts, path.stem, *classes]


def test_no_module_or_class_has_a_name_that_says_nothing() -> None:
    offenders = [
        f"{file.path}: {name}"
        for file in all_files()
        for name in names_of(file)
        if says_nothing(name)
    ]
    assert offenders == []


@pytest.mark.parametrize(
    "name", ["utils", "EventHandler", "base_model", "DataInfo", "parser2", "store_new"]
)
def test_a_name_that_says_nothing_is_found(name: str) -> None:
    assert says_nothing(name)


@pytest.mark.parametrize("name", ["Dataset", "database", "DCNv2", "information"])
def test_a_name_that_only_looks_like_one_is_allowed(name: str) -> None:
    assert not says_nothing(name)


def test_the_names_of_a_file_are_its_folders_module_and_classes() -> None:
    file = parse("streams/common/join.py", "class Label: ...\n")
    assert names_of(file) == ["streams", "common", "join", "Label"]
