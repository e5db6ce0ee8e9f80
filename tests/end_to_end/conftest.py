"""One demo on a shop's own events, left running for all tests that look at it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.end_to_end import shop


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningDemo:
    """A demo that has gone round the loop."""

    output: str
    """All that it has printed, to the line of figures."""
    good_events: int
    folder: Path
    """Of its stack: ``stack.toml`` in it says where everything listens."""


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    """Run ``srp4ctr demo --keep``; at the end it must leave nothing behind."""
    folder = tmp_path_factory.mktemp("demo")
    good = shop.write(folder / "mine.jsonl")
    command = [
        sys.executable,
        "-m",
        "srp4ctr.cli",
        "--data-dir",
        str(folder / "data"),
        "demo",
    ]
    process = subprocess.Popen(
        [*command, "--events", str(folder / "mine.jsonl"), "--keep"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output = _to_the_figures(process)
        (stack,) = (folder / "data").glob("demo-*")
        yield RunningDemo(output=output, good_events=good, folder=stack)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert list((folder / "data").glob("demo-*")) == []
    assert _still_running(folder) == []


def _to_the_figures(process: "subprocess.Popen[str]") -> str:
    printed = []
    assert process.stdout is not None
    for line in process.stdout:
        printed.append(line)
        if line.startswith('{"events"'):
            break
    return "".join(printed)


def _still_running(folder: Path) -> list[str]:
    """Return the command lines of processes that name ``folder``."""
    found = [
        " ".join(process.info["cmdline"] or ())
        for process in psutil.process_iter(["pid", "cmdline"])
        if process.info["pid"] != os.getpid()
    ]
    return [line for line in found if str(folder) in line]
