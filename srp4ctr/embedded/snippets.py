"""A running stack → lines to paste: clients, a variable and addresses of what runs."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from srp4ctr.embedded import ports
from srp4ctr.embedded.stack import STACK_FILE, StackStatus


def snippets(status: StackStatus) -> list[str]:
    """Return one line for each part that runs; none where no stack was started."""
    return list(_lines(status)) if status.addresses else []


def show(status: StackStatus, console: Console) -> None:
    """Print the lines as they are to be pasted: none is wrapped or coloured."""
    for line in snippets(status):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _lines(status: StackStatus) -> Iterator[str]:
    found = status.addresses
    assert found is not None
    names = {running.name for running in status.running}
    if names:  # every command then finds stack.toml, and each part's address in it
        folder = Path(found.data_dir)
        yield f"settings of this stack: {folder / STACK_FILE}"
        yield f"export SRP4CTR_LOCAL__DATA_DIR={shlex.quote(str(folder))}"
    if names & {"broker", "kafka"}:
        yield "from srp4ctr import EventPublisher, KafkaConfig"
        bootstrap = f"{ports.HOST}:{found.kafka_port}"
        yield f'publisher = EventPublisher(KafkaConfig(bootstrap="{bootstrap}"))'
    if "triton" in names:
        yield "from srp4ctr import RankClient"
        yield f'client = RankClient("{ports.HOST}:{found.triton_grpc_port}")'
    pages = {
        "page": (found.page_port, ""),
        "stream worker": (found.worker_metrics_port, "metrics"),
        "monitor": (found.monitor_port, "metrics"),
        "Triton": (found.triton_metrics_port, "metrics"),
        "callers of Triton": (found.caller_metrics_port, "metrics"),
        "Prometheus": (found.prometheus_port, "graph"),
    }
    for name, (port, path) in pages.items():
        if port and ports.is_open(port):
            yield f"{name}: http://{ports.HOST}:{port}/{path}"
