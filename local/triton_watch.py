"""A tritonserver → the same, looked after until it ends: ``python -m local.triton_watch``.

What a death costs a caller is told by ``local/revival.py``.
"""

import argparse
import logging
import os
import time
from pathlib import Path

from local import ports, processes
from local.triton_server import ServerPlan
from triton_repo.config import TritonConfig

INTERVAL_S = 0.5
CONTROL_KEY = "SRP4CTR_TRITON__CONTROL_KEY"  # as a setting is named
LOG = logging.getLogger("local.triton_watch")


def start(
    server: processes.Running, plan: ServerPlan, folder: Path, *, tied: bool
) -> processes.Running:
    """Start a process that looks after ``server`` and ends with it."""
    address = f"{ports.HOST}:{plan.grpc_port}"
    arguments = (str(server.pid), address, str(plan.repository.resolve()))
    # Not an argument: those are for all to see.
    key = {CONTROL_KEY: plan.control_key}
    program = processes.python("watch", "-m", "local.triton_watch", *arguments, env=key)
    return processes.start(program, folder, tied=tied)


def parser() -> argparse.ArgumentParser:
    """Return what reads the arguments."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("server_pid", type=int)
    made.add_argument("grpc", help="its address")
    made.add_argument("repository", help="its live model repository")
    return made


def main() -> None:
    """Look after the server in the arguments."""
    from local.revival import Watch  # tritonclient: who only starts us needs none

    asked = parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = TritonConfig(
        grpc=asked.grpc,
        repository=asked.repository,
        control_key=os.environ.get(CONTROL_KEY, ""),
    )
    watch = Watch(asked.server_pid, config)
    while Path(f"/proc/{asked.server_pid}").is_dir():
        try:
            watch.look()
        except Exception:  # the next look may succeed
            LOG.exception("not looked after")
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    main()
