"""Ctrl-C ends a command in one sentence, whatever the libraries make of it."""

import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from srp4ctr.atomic_files import read_json
from srp4ctr.cli.failures import INTERRUPTED, foreseen
from srp4ctr.errors import ArtifactError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.training.refresh.reports import STATUS_FILE, RefreshStatus
from tests.training.logs import write_world

# A command during whose query Ctrl-C comes: DuckDB raises an error of its own.
LONG_QUERY = """
import duckdb, sys
from srp4ctr.cli import main, settings

def query(section):
    print("begun", flush=True)
    try:
        many = "range(1000000)"
        duckdb.sql(f"SELECT sum(sin(a.range)) FROM {many} a, {many} b").fetchall()
    except Exception as error:
        raise ValueError("counting rows failed") from error

settings.in_force = query
sys.argv = ["srp4ctr", "settings", "show"]
main.main()
"""


def interrupted(command: list[str], first_line: str, cwd: Path) -> str:
    """Return what a command prints on stderr that Ctrl-C ends after its first line."""
    with subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(first_line)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED == 130
    return error


def test_a_query_that_is_interrupted_is_no_bug(tmp_path: Path) -> None:
    assert interrupted(["-c", LONG_QUERY], "begun", tmp_path) == "interrupted\n"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureConfig:
    """A log that takes a second to cut, in the settings of the commands."""
    world = write_world(tmp_path, users=60, visits=30)
    for name, value in {
        "FEATURES__LOG_DIR": world.log_dir,
        "FEATURES__REGISTRY": world.registry,
        "TRITON__REPOSITORY": str(tmp_path / "triton"),
        "TRAINING__BUNDLES_DIR": str(tmp_path / "bundles"),
    }.items():
        monkeypatch.setenv(f"SRP4CTR_{name}", value)
    return world


def test_a_refresh_that_is_interrupted_while_examples_are_cut_says_how_to_resume(
    world: FeatureConfig, tmp_path: Path
) -> None:
    command = ["-m", "srp4ctr.cli", "model", "refresh", "--no-promote"]
    error = interrupted(command, "examples 0/1", tmp_path)
    *_, last = error.splitlines()
    assert last == "interrupted: the same command goes on where this one was"
    assert "Traceback" not in error
    status = read_json(tmp_path / "bundles" / STATUS_FILE, RefreshStatus)
    assert status is not None
    assert status.error == "stopped"


def test_half_a_file_of_the_raw_log_is_named(tmp_path: Path) -> None:
    half = tmp_path / "part-1.parquet"
    duckdb.sql("SELECT * FROM range(1000)").write_parquet(str(half))
    for size in (500, 6):
        half.write_bytes(half.read_bytes()[:size])
        with pytest.raises(duckdb.Error) as error:
            duckdb.sql(f"SELECT * FROM '{half}'").fetchall()
        found = foreseen(error.value)
        assert isinstance(found, ArtifactError)
        assert f"{half} is an incomplete Parquet file" in str(found)
