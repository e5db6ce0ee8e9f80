"""A Postgres of a test's own: Debian's, in a folder that ends with the test."""

import gc
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from srp4ctr import processes
from srp4ctr.embedded import ports

USER = "postgres"  # who runs it where the tests run as root: Postgres refuses that


def missing() -> str:
    """Return what this machine lacks for a Postgres and its clients; "" if nothing."""
    if find_spec("psycopg") is None:
        return "psycopg is not installed: pip install 'srp4ctr[postgres]'"
    if _folder() is None:
        return "Postgres is not installed (Debian: postgresql)"
    return ""


@contextmanager
def running_postgres() -> Iterator[str]:
    """Yield the URL of an empty database."""
    programs = _folder()
    assert programs is not None
    with tempfile.TemporaryDirectory() as name, ports.reserved_ports(1) as (port,):
        folder, data = Path(name), Path(name) / "data"
        as_user: list[str] = []
        if os.geteuid() == 0:
            known = pwd.getpwnam(USER)
            os.chown(folder, known.pw_uid, known.pw_gid)
            as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups"]
            as_user.append("--pdeathsig=TERM")  # another user's process would forget it
        make = [*as_user, str(programs / "initdb"), "--pgdata", str(data)]
        make += ["--username", "srp4ctr", "--auth", "trust", "--no-sync"]
        subprocess.run(make, check=True, capture_output=True, cwd=folder)
        command = [*as_user, str(programs / "postgres"), "-D", str(data), "-p", str(port)]
        command += ["-c", f"listen_addresses={ports.HOST}", "-c", "fsync=off", "-k", name]
        program = processes.Program(name="postgres", command=tuple(command), cwd=name)
        running = processes.start(program, folder, tied=True)
        try:
            processes.wait_ready(running, lambda: _answers(programs, port))
            yield f"postgresql+psycopg://srp4ctr@{ports.HOST}:{port}/postgres"
        finally:
            os.kill(running.pid, signal.SIGINT)  # by SIGTERM it waits for its clients
            processes.stop(running, folder)
            # Feast closes no registry: a later test would be blamed for its connections.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()


def _folder() -> Path | None:
    """Return where Postgres' programs are; Debian has them off the path."""
    places = [*Path("/usr/lib/postgresql").glob("*/bin")]
    if on_path := shutil.which("postgres"):
        places.append(Path(on_path).resolve().parent)
    return next((place for place in places if (place / "initdb").is_file()), None)


def _answers(programs: Path, port: int) -> bool:
    command = [str(programs / "pg_isready"), "-q", "-h", ports.HOST, "-p", str(port)]
    return subprocess.run(command, check=False).returncode == 0
