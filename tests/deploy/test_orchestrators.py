"""The examples for orchestrators describe the refresh correctly.

Airflow and Dagster are not installed here: each example has been run with its own by hand.
"""

import ast
import os
import re
import subprocess
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
    matches = re.findall(r"[a-z0-9]+", command)
    assert matches == ["srp4ctr", "model", "refresh"]
    assert CliRunner().invoke(app, [*matches[1:], "--help"]).exit_code == 0
    assert CliRunner().invoke(app, [*matches[1:], "--sideways"]).exit_code == 2


def test_it_reads_what_a_refresh_leaves(example: str) -> None:
    assert f"/{STATUS_FILE}" in example or f'"{STATUS_FILE}"' in example
    named = set(re.findall(r'status\["(\w+)"\]', example))
    assert {"outcome", "error", "gates", "version"} <= named
    assert named <= set(RefreshStatus.__struct_fields__)
    outcomes = set(re.findall(r'\["outcome"\] [!=]= "(\w+)"', example))
    assert outcomes
    assert outcomes <= {each.value for each in RefreshOutcome}


@pytest.mark.parametrize(("status", "goes_on"), [(0, True), (5, True), (1, False)])
def test_airflow_reads_the_outcome_of_a_refusal_too(
    tmp_path: Path, status: int, goes_on: bool
) -> None:
    text = (ROOT / "deploy" / "airflow" / "srp4ctr_refresh.py").read_text(encoding="utf-8")
    named = {"BUNDLES", "COMMAND", "ENDED", "REPORTED"}
    shell: dict[str, str] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in named:
            exec(
                ast.unparse(node), shell
            )  # the example imports Airflow, its strings do not
    command = tmp_path / "srp4ctr"
    command.write_text(f"#!/bin/sh\nexit {status}\n")
    command.chmod(0o755)
    (tmp_path / STATUS_FILE).write_text('{"outcome":\n"refused"}')
    result = subprocess.run(
        ["bash", "-c", shell["REPORTED"]],
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SRP4CTR_TRAINING__BUNDLES_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode == 0) is goes_on
    assert result.stdout == ('{"outcome":"refused"}' if goes_on else "")
