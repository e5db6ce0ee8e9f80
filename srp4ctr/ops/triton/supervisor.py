"""Runs tritonserver as a container's first process, and replaces its crashed steps.

Run as a module with ``GRPC REPOSITORY -- tritonserver …``, it starts the server, replaces
its step processes that crash (``crash_recovery.py``), and ends with the server's exit
status, so that the container is restarted as a whole. It is in the server's own container
because it must see the server's processes: a second container that joins the first one's
process namespace ends with it, and Docker does not start it again.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from srp4ctr import logs
from srp4ctr.ops.triton import watchdog

if TYPE_CHECKING:  # tritonclient: the parser alone needs none
    from srp4ctr.ops.triton.crash_recovery import Watch

LOG = logging.getLogger("srp4ctr.ops.triton.supervisor")
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SIGNALLED = 128  # a shell's exit status of a process that a signal ended: 128 + its number
# Not passed to the server: its steps have a Python and packages of their own.
_OWN_VARIABLES = ("PYTHONPATH", "VIRTUAL_ENV")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("grpc", help="the server's address, HOST:PORT")
    made.add_argument("repository", help="its live model repository")
    made.add_argument("command", nargs="+", help="-- tritonserver and its arguments")
    return made


def supervise(command: Sequence[str], grpc: str, repository: str) -> int:
    """Run ``command`` until it ends, and return the exit status for the container.

    SIGTERM and SIGINT are forwarded to the server, which finishes its requests and ends.
    Orphans of the server are reaped, as a container's first process must do.
    """
    from srp4ctr.ops.triton.crash_recovery import Watch

    environment = {n: v for n, v in os.environ.items() if n not in _OWN_VARIABLES}
    server = subprocess.Popen(command, env=environment)
    for number in _FORWARDED:
        signal.signal(number, lambda given, _: server.send_signal(given))
    watch = Watch(server.pid, watchdog.config_in(os.environ, grpc, repository))
    while (status := _reaped(server.pid)) is None:
        _poll(watch)
        time.sleep(watchdog.INTERVAL_S)
    code = os.waitstatus_to_exitcode(status)
    server.returncode = code  # reaped here, not by subprocess
    LOG.info("tritonserver ended: %s", f"signal {-code}" if code < 0 else f"status {code}")
    return _SIGNALLED - code if code < 0 else code


def _poll(watch: "Watch") -> None:
    try:
        watch.poll()
    except Exception:  # the next poll may succeed
        LOG.exception("crashed steps could not be replaced; trying again")


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


def main() -> None:
    """Supervise the server of the arguments."""
    arguments = parser().parse_args()
    logs.configure("triton-supervisor")
    sys.exit(supervise(arguments.command, arguments.grpc, arguments.repository))


if __name__ == "__main__":
    main()
