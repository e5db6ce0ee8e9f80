"""The table of gates, the functions that compute them, and the page that lists them."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields

import pytest

from srp4ctr.features.bundles.gates import GATES, GateEntry, Phase
from srp4ctr.training.config import RefreshConfig
from srp4ctr.triton_repo.config import TritonConfig
from tests.structure.source_tree import ROOT, SourceFile, product_files

NAMES = [entry.name for entry in GATES]
SECTIONS = {"training": RefreshConfig, "triton": TritonConfig}


def row(entry: GateEntry) -> str:
    """Return the line of ``docs/model.md`` on a gate."""
    cells = (f"`{entry.name}`", entry.measures, entry.limit, entry.failure)
    return f"| {' | '.join(cells)} |"


def module_of(file: SourceFile) -> str:
    """Return the name by which a product file is imported."""
    path = file.path.removesuffix(".py").removeprefix("srp4ctr/")
    return f"srp4ctr.{path.replace('/', '.')}"


def made_in(file: SourceFile) -> Iterator[str]:
    """Yield the names of gates that a module writes down."""
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        named = [keyword.value for keyword in node.keywords if keyword.arg == "gate"]
        named += node.args[:1] if node.func.id == "skipped" else []
        if node.func.id not in {"Gate", "skipped"}:
            continue
        for value in named:
            if isinstance(value, ast.Constant):
                yield str(value.value)
            elif isinstance(value, ast.Name):  # a constant of the module, or an argument
                found = getattr(importlib.import_module(module_of(file)), value.id, None)
                yield from [found] if isinstance(found, str) else []


def test_names_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("entry", GATES, ids=NAMES)
def test_every_gate_has_its_function(entry: GateEntry) -> None:
    assert inspect.getdoc(entry.load())


def test_every_gate_that_is_made_is_in_the_table() -> None:
    made = {(file.path, name) for file in product_files() for name in made_in(file)}
    assert {name for _, name in made} >= {"auc", "exported", "skew", "golden", "latency"}
    assert [each for each in sorted(made) if each[1] not in NAMES] == []


@pytest.mark.parametrize("entry", GATES, ids=NAMES)
def test_a_limit_names_settings_that_exist(entry: GateEntry) -> None:
    for section, name in re.findall(r"`(training|triton)\.(\w+)`", entry.limit):
        assert name in {field.name for field in fields(SECTIONS[section])}


def test_only_gates_of_judged_slates_are_skipped_where_negatives_are_sampled() -> None:
    skipping = {entry.phase for entry in GATES if entry.skipped_if_sampled}
    assert skipping == {Phase.JUDGED}


def test_the_page_lists_the_table() -> None:
    page = (ROOT / "docs/model.md").read_text(encoding="utf-8")
    section = page.split("### The gates\n")[1].split("\n### ")[0]
    listed = [line for line in section.splitlines() if line.startswith("| `")]
    assert listed == [row(entry) for entry in GATES], "copy the rows that differ"
