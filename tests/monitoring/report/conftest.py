"""A real Prometheus whose series are those of simulated traffic."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from srp4ctr import processes
from srp4ctr.embedded import ports
from srp4ctr.embedded import prometheus as local_prometheus
from tests.monitoring.report.simulated_traffic import Traffic

Serve = Callable[[Traffic, tuple[str, ...]], str]
"""Traffic and further lines → the address of a Prometheus that has them."""


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    binary, promtool = local_prometheus.find_prometheus(), shutil.which("promtool")
    if binary is None or promtool is None:
        pytest.skip("Prometheus is not installed (Debian: prometheus)")
    with ExitStack() as opened:

        def start(traffic: Traffic, more: tuple[str, ...] = ()) -> str:
            folder = tmp_path_factory.mktemp("prometheus")
            _write_blocks(promtool, folder, traffic, more)
            (port,) = opened.enter_context(ports.reserved_ports(1))
            running = local_prometheus.start(binary, {}, port, folder, tied=True)
            opened.callback(processes.stop, running, folder)
            return f"http://127.0.0.1:{port}"

        yield start


def _write_blocks(
    promtool: str, folder: Path, traffic: Traffic, more: tuple[str, ...]
) -> None:
    lines = folder / "series.txt"
    with lines.open("w") as file:
        file.writelines(f"{line}\n" for line in traffic.openmetrics(more))
    command = (promtool, "tsdb", "create-blocks-from", "openmetrics", "--quiet")
    done = subprocess.run(
        [*command, str(lines), str(folder / "prometheus" / "series")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def last_minute_ms() -> int:
    """Return when the last whole minute was."""
    return int(time.time() // 60) * 60_000
