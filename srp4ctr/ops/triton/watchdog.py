"""A tritonserver → the same, looked after until it ends: run it as a module.

What a death costs a caller is told by ``local/revival.py``.
"""

import argparse
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from srp4ctr import processes
from srp4ctr.embedded import ports
from srp4ctr.embedded.triton_server import ServerPlan
from srp4ctr.triton_repo.config import TlsConfig, TritonConfig

INTERVAL_S = 0.2
CONTROL_KEY = "SRP4CTR_TRITON__CONTROL_KEY"  # as a setting is named
CONTROL_KEY_FILE = f"{CONTROL_KEY}_FILE"
TLS = "SRP4CTR_TRITON__TLS__"
LOG = logging.getLogger("srp4ctr.ops.triton.watchdog")


def start(
    server: processes.Running, plan: ServerPlan, folder: Path, *, tied: bool
) -> processes.Running:
    """Start a process that looks after ``server`` and ends with it."""
    address = f"{ports.HOST}:{plan.grpc_port}"
    arguments = (str(server.pid), address, str(plan.repository.resolve()))
    # Not an argument: those are for all to see. What else the environment says of TLS and
    # keys is of another server.
    own = {CONTROL_KEY: plan.control_key, CONTROL_KEY_FILE: "", f"{TLS}ENABLED": ""}
    program = processes.python(
        "watch", "-m", "srp4ctr.ops.triton.watchdog", *arguments, env=own
    )
    return processes.start(replace(program, latency_critical=True), folder, tied=tied)


def parser() -> argparse.ArgumentParser:
    """Return what reads the arguments."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("server_pid", type=int)
    made.add_argument("grpc", help="its address")
    made.add_argument("repository", help="its live model repository")
    return made


def tls_in(environment: Mapping[str, str]) -> TlsConfig:
    """Return how to reach the server, in the words of the settings' variables."""
    if environment.get(f"{TLS}ENABLED", "").lower() not in ("1", "true", "yes", "on"):
        return TlsConfig()
    files = ("ca_file", "certificate_file", "key_file")
    named = {name: environment.get(f"{TLS}{name.upper()}", "") for name in files}
    return TlsConfig(enabled=True, **named)


def config_in(environment: Mapping[str, str], grpc: str, repository: str) -> TritonConfig:
    """Return how to reach and control the server at ``grpc``."""
    return TritonConfig(
        grpc=grpc,
        repository=repository,
        tls=tls_in(environment),
        control_key_file=environment.get(CONTROL_KEY_FILE, ""),
        control_key=environment.get(CONTROL_KEY, ""),
    )


def main() -> None:
    """Look after the server in the arguments."""
    from srp4ctr.ops.triton.crash_recovery import (
        Watch,  # tritonclient: who only starts us needs none
    )

    asked = parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    watch = Watch(asked.server_pid, config_in(os.environ, asked.grpc, asked.repository))
    while Path(f"/proc/{asked.server_pid}").is_dir():
        try:
            watch.look()
        except Exception:  # the next look may succeed
            LOG.exception("not looked after")
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    main()
