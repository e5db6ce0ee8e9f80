"""Replaces the crashed steps of a running tritonserver until it ends; run as a module.

``crash_recovery.py`` describes what a crash costs callers.
"""

import argparse
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from srp4ctr import logs, processes
from srp4ctr.embedded import ports
from srp4ctr.embedded.triton_server import ServerPlan
from srp4ctr.triton_repo.config import TlsConfig, TritonConfig

INTERVAL_S = 0.2
CONTROL_KEY = "SRP4CTR_TRITON__CONTROL_KEY"  # the variable of the setting
CONTROL_KEY_FILE = f"{CONTROL_KEY}_FILE"
TLS = "SRP4CTR_TRITON__TLS__"
LOG = logging.getLogger("srp4ctr.ops.triton.watchdog")


def start(
    server: processes.Running, plan: ServerPlan, folder: Path, *, tied: bool
) -> processes.Running:
    """Start a process that replaces crashed steps of ``server`` and ends with it."""
    address = f"{ports.HOST}:{plan.grpc_port}"
    arguments = (str(server.pid), address, str(plan.repository.resolve()))
    # Not an argument, which every user of the machine can see. Other variables of TLS and
    # keys are for another server.
    own = {CONTROL_KEY: plan.control_key, CONTROL_KEY_FILE: "", f"{TLS}ENABLED": ""}
    program = processes.python(
        "watch", "-m", "srp4ctr.ops.triton.watchdog", *arguments, env=own
    )
    return processes.start(replace(program, latency_critical=True), folder, tied=tied)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("server_pid", type=int)
    made.add_argument("grpc", help="its address")
    made.add_argument("repository", help="its live model repository")
    return made


def tls_in(environment: Mapping[str, str]) -> TlsConfig:
    """Return the TLS configuration from the settings' variables."""
    if environment.get(f"{TLS}ENABLED", "").lower() not in ("1", "true", "yes", "on"):
        return TlsConfig()
    files = ("ca_file", "certificate_file", "key_file")
    named = {name: environment.get(f"{TLS}{name.upper()}", "") for name in files}
    return TlsConfig(enabled=True, **named)


def config_in(environment: Mapping[str, str], grpc: str, repository: str) -> TritonConfig:
    """Return the configuration to call and control the server at ``grpc``."""
    return TritonConfig(
        grpc=grpc,
        repository=repository,
        tls=tls_in(environment),
        control_key_file=environment.get(CONTROL_KEY_FILE, ""),
        control_key=environment.get(CONTROL_KEY, ""),
    )


def main() -> None:
    """Replace crashed steps of the server in the arguments."""
    # tritonclient is not needed where this module only starts the process.
    from srp4ctr.ops.triton.crash_recovery import Watch

    arguments = parser().parse_args()
    logs.configure("triton-watch")
    watch = Watch(
        arguments.server_pid, config_in(os.environ, arguments.grpc, arguments.repository)
    )
    while Path(f"/proc/{arguments.server_pid}").is_dir():
        try:
            watch.poll()
        except Exception:  # the next poll may succeed
            LOG.exception("crashed steps could not be replaced; trying again")
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    main()
