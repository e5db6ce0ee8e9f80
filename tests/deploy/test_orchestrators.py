"""The examples for orchestrators describe the refresh correctly.

Airflow and Dagster are not installed here: each example has been run with its own by hand.
"""

import ast
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from srp4ctr.training.refresh.reports import STATUS_FILE, RefreshOutcome, RefreshStatus
from tests.structure.source_tree import ROOT

EXAMPLES = sorted((ROOT / "deploy").glob("*/srp4ctr_refresh.py"))


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.parent.name)
def example(request: pytest.FixtureRequest) -> str:
    assert isinstance(request.param, Path)
    return request.param.read_text(encoding="utf-8")


def test_there_is_one_for_airflow_and_one_for_dagster() -> None:
    assert [path.parent.name for path in EXAMPLES] == ["airflow", "dagster"]


def test_it_compiles_and_says_what_each_function_does(example: str) -> None:
    tree = ast.parse(example)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert functions
    assert [f.name for f in functions if not ast.get_docstring(f)] == []


def test_it_runs_a_command_that_exists(example: str) -> None:
    (command,) = re.findall(r"^COMMAND = (.+)$", example, re.MULTILINE)
    words = re.findall(r"[a-z0-9]+", command)
    assert words == ["srp4ctr", "model", "refresh"]
    assert CliRunner().invoke(app, [*words[1:], "--help"]).exit_code == 0
    assert CliRunner().invoke(app, [*words[1:], "--sideways"]).exit_code == 2


def test_it_reads_what_a_refresh_leaves(example: str) -> None:
    assert f"/{STATUS_FILE}" in example or f'"{STATUS_FILE}"' in example
    named = set(re.findall(r'status\["(\w+)"\]', example))
    assert {"outcome", "error", "gates", "version"} <= named
    assert named <= set(RefreshStatus.__struct_fields__)
    outcomes = set(re.findall(r'\["outcome"\] [!=]= "(\w+)"', example))
    assert outcomes
    assert outcomes <= {each.value for each in RefreshOutcome}
