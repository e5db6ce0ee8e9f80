"""Serving shells stay thin: Triton's calling convention, and nothing of CTR."""

import re
import sys

from tests.structure.source_tree import SourceFile, parse, product_files

MAX_SHELL_LINES = 75
ALLOWED = {"triton_python_backend_utils", "triton_repo"}
SHELL = re.compile(r"^triton_repo/[a-z_]+/1/model\.py$")


def shells() -> list[SourceFile]:
    """Return the source of every python-backend model."""
    return [file for file in product_files() if SHELL.match(file.path)]


def strange_imports(file: SourceFile) -> set[str]:
    """Return what a shell imports and may not."""
    return file.imported_packages() - ALLOWED - set(sys.stdlib_module_names)


def test_a_shell_has_is_short() -> None:
    lengths = {file.path: len(file.text.splitlines()) for file in shells()}
    assert {p: n for p, n in lengths.items() if n > MAX_SHELL_LINES} == {}


def test_a_shell_imports_the_backend_and_the_serving_code_alone() -> None:
    strange = {file.path: strange_imports(file) for file in shells()}
    assert {path: names for path, names in strange.items() if names} == {}


def test_a_strange_import_of_a_shell_is_found() -> None:
    text = "import json\nfrom triton_repo import ranking\nfrom feast import FeatureStore\n"
    assert strange_imports(parse("triton_repo/x/1/model.py", text)) == {"feast"}


def test_no_module_listens_on_every_interface() -> None:
    open_hosts = [file.path for file in product_files() if "0.0.0.0" in file.text]
    assert open_hosts == []
