"""Statuses of stacks that do not run."""

from pathlib import Path

from srp4ctr import processes
from srp4ctr.embedded.addresses import Addresses
from srp4ctr.embedded.stack import StackStatus


def a_status(folder: Path, *names: str, monitor_port: int = 0) -> StackStatus:
    """Return the status of a stack of which ``names`` run."""
    addresses = Addresses(
        data_dir=str(folder),
        broker="noida",
        kafka_port=9092,
        redis_port=6379,
        triton_grpc_port=8001,
        triton_metrics_port=0,
        worker_metrics_port=0,
        monitor_port=monitor_port,
        caller_metrics_port=0,
        page_port=0,
        prometheus_port=0,
        intake_port=0,
        intake_metrics_port=0,
    )
    running = (processes.Running(name=n, pid=1, birth="", log="") for n in names)
    return StackStatus(addresses=addresses, running=tuple(running), ended=())
