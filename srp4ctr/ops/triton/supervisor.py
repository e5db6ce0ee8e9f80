"""Replaces the crashed steps of a tritonserver until it ends; run as a module.

``crash_recovery.py`` describes what a crash costs callers. With ``GRPC REPOSITORY --
tritonserver …`` it is a container's first process: it starts the server, and ends with its
exit status, so that the container is restarted as a whole. It must see the server's
processes: a second container that joins the first one's process namespace ends with it, and
Docker does not start it again. With ``GRPC REPOSITORY --pid PID`` it watches a server that
runs, as the embedded stack's does.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from srp4ctr import logs, processes
from srp4ctr.embedded import ports
from srp4ctr.embedded.triton_server import ServerPlan
from srp4ctr.triton_repo.config import TlsConfig, TritonConfig

LOG = logging.getLogger("srp4ctr.ops.triton.supervisor")
INTERVAL_S = 0.2
CONTROL_KEY = "SRP4CTR_TRITON__CONTROL_KEY"  # the variable of the setting
CONTROL_KEY_FILE = f"{CONTROL_KEY}_FILE"
TLS = "SRP4CTR_TRITON__TLS__"
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SIGNALLED = 128  # a shell's exit status of a process that a signal ended: 128 + its number
# Not passed to the server: its steps have a Python and packages of their own.
_OWN_VARIABLES = ("PYTHONPATH", "VIRTUAL_ENV")


def start(
    server: processes.Running, plan: ServerPlan, folder: Path, *, tied: bool
) -> processes.Running:
    """Start a process that replaces crashed steps of ``server`` and ends with it."""
    address = f"{ports.HOST}:{plan.grpc_port}"
    arguments = (address, str(plan.repository.resolve()), "--pid", str(server.pid))
    # Not an argument, which every user of the machine can see. Other variables of TLS and
    # keys are for another server.
    own = {CONTROL_KEY: plan.control_key, CONTROL_KEY_FILE: "", f"{TLS}ENABLED": ""}
    program = processes.python(
        "watch", "-m", "srp4ctr.ops.triton.supervisor", *arguments, env=own
    )
    return processes.start(replace(program, latency_critical=True), folder, tied=tied)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("grpc", help="the server's address, HOST:PORT")
    made.add_argument("repository", help="its live model repository")
    made.add_argument("--pid", type=int, help="of a server that runs")
    made.add_argument("command", nargs="*", help="-- tritonserver and its arguments")
    return made


def supervise(command: Sequence[str], grpc: str, repository: str) -> int:
    """Run ``command`` until it ends, and return the exit status for the container.

    SIGTERM and SIGINT are forwarded to the server, which finishes its requests and ends.
    Orphans of the server are reaped, as a container's first process must do.
    """
    environment = {n: v for n, v in os.environ.items() if n not in _OWN_VARIABLES}
    early: list[int] = []  # signals from before there is a server to send them to
    for number in _FORWARDED:
        signal.signal(number, lambda given, _: early.append(given))
    server = subprocess.Popen(command, env=environment)
    for number in _FORWARDED:
        signal.signal(number, lambda given, _: server.send_signal(given))
    for missed in early:
        server.send_signal(missed)
    config = config_in(os.environ, grpc, repository)
    status = watch(server.pid, config, lambda: _reaped(server.pid))
    code = os.waitstatus_to_exitcode(status)
    server.returncode = code  # reaped here, not by subprocess
    LOG.info("tritonserver ended: %s", f"signal {-code}" if code < 0 else f"status {code}")
    return _SIGNALLED - code if code < 0 else code


def watch(server: int, config: TritonConfig, ended: Callable[[], int | None]) -> int:
    """Replace crashed steps of ``server`` until it ``ended``; return its status."""
    # tritonclient is not needed where this module only starts the process.
    from srp4ctr.ops.triton.crash_recovery import Watch

    steps = Watch(server, config)
    while (status := ended()) is None:
        try:
            steps.poll()
        except Exception:  # the next poll may succeed
            LOG.exception("crashed steps could not be replaced; trying again")
        time.sleep(INTERVAL_S)
    return status


def _reaped(server: int) -> int | None:
    """Reap ended children; return the server's status once it has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:  # no child is left: the server was reaped elsewhere
            return 0
        if pid == 0:
            return None
        if pid == server:
            return status


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
    """Supervise the server of the arguments."""
    options = parser().parse_args()
    if not (options.pid or options.command):
        parser().error("a command, or --pid")
    logs.configure("triton-supervisor")
    if not options.pid:
        sys.exit(supervise(options.command, options.grpc, options.repository))
    config, process = config_in(os.environ, options.grpc, options.repository), options.pid
    folder = Path(f"/proc/{process}")
    sys.exit(watch(process, config, lambda: None if folder.is_dir() else 0))


if __name__ == "__main__":
    main()
