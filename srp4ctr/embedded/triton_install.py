"""Installs the embedded tritonserver and the Python environment of its stubs.

The server binary is from the nvidia-pytriton wheel; the stubs have an environment of their
own, because they need numpy < 2 while the project uses numpy 2. Both are built once (650 MB
to fetch), and rebuilt when a lock file or the Python changes.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from srp4ctr import processes
from srp4ctr.atomic_files import read_json, write_json
from srp4ctr.errors import MistakeError, OutageError, Srp4ctrError

SERVER_LOCK = Path(__file__).with_name("triton-server.lock")
LOCK_FILE = Path(__file__).with_name("triton-requirements.lock")
_RECORD = "serving.json"  # written last: its existence means the folder is complete
_LIBRARY_MISSING = 127  # the dynamic loader's exit status
_STUB = "triton_python_backend_stub"
_FALLBACK_PYTHON = "3.11"
# Version, and the folders where this Python's libpython may be.
_PYTHON_DETAILS = """
import json, sys, sysconfig
version = f"{sys.version_info.major}.{sys.version_info.minor}"
libdir = sysconfig.get_config_var("LIBDIR") or ""
print(json.dumps([version, libdir, sys.base_prefix + "/lib"]))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingEnv:
    """The paths of the embedded server's parts."""

    python: Path
    """The stubs' interpreter."""
    server: Path
    """Folder with ``bin/tritonserver`` and ``backends``."""
    library_path: str
    """The LD_LIBRARY_PATH with which the stub finds libpython; may be empty."""


def build(serving_dir: Path, note: Callable[[str], None] | None = None) -> ServingEnv:
    """Return the environment in ``serving_dir``, building it first if need be.

    ``note`` gets a line for each long step. Raises ``MistakeError`` with what to install
    where this machine cannot run the server. A second builder waits.
    """
    root = serving_dir.resolve()
    with processes.locked(root / "build.lock"):
        record = read_json(root / _RECORD, dict[str, str]) or {}
        if record.get("key") != _key():
            _check_platform()
            library_path = _install(root, note or (lambda _: None))
            record = {"key": _key(), "library_path": library_path}
            write_json(root / _RECORD, record)
    python, server = _env_python(root), _server(root)
    return ServingEnv(python=python, server=server, library_path=record["library_path"])


def _install(root: Path, note: Callable[[str], None]) -> str:
    """Unpack the server, make its stubs' environment; return the library path."""
    (root / _RECORD).unlink(missing_ok=True)
    shutil.rmtree(root / "server", ignore_errors=True)
    note("unpacking NVIDIA's tritonserver (140 MB)")
    locked, target = ("--require-hashes", "-r"), str(root / "server")
    _uv(root, "pip", "install", "--no-deps", "--target", target, *locked, str(SERVER_LOCK))
    library_path = _make_env(root, note)
    note("installing the Python environment of Triton's stubs (510 MB)")
    python = str(_env_python(root))
    _uv(root, "pip", "sync", "--require-hashes", "--python", python, str(LOCK_FILE))
    return library_path


def _make_env(root: Path, note: Callable[[str], None]) -> str:
    """Make an empty environment whose Python the stub can load; return where it finds it.

    Debian's Python has no shared libpython without another package: then uv fetches a
    Python with one; if that fails, the error names the package to install.
    """
    try:
        return _try_python(root, "--python", sys.executable)
    except Srp4ctrError as error:
        note("this Python has no shared libpython: fetching one that has")
        try:
            return _try_python(root, "--managed-python", "--python", _FALLBACK_PYTHON)
        except Srp4ctrError:
            raise error from None


def _try_python(root: Path, *which: str) -> str:
    """Make the environment of that Python and return the library path its stub needs."""
    shutil.rmtree(root / "env", ignore_errors=True)
    _uv(root, "venv", *which, str(root / "env"))
    result = subprocess.run(
        [str(_env_python(root)), "-c", _PYTHON_DETAILS], capture_output=True, check=True
    )
    version, *folders = json.loads(result.stdout)
    _link_stub(root, version)
    return _find_libpython(root, version, folders)


def _link_stub(root: Path, version: str) -> None:
    """Put the stub of Python ``version`` where the server looks for it."""
    stub = Path("..", "..", "python_backend_stubs", version, _STUB)
    folder = _server(root) / "backends" / "python"
    if not (folder / stub).exists():
        raise MistakeError(
            f"tritonserver has no stub for Python {version}; use 3.11 or 3.12"
        )
    (folder / _STUB).unlink(missing_ok=True)
    (folder / _STUB).symlink_to(stub)


def _find_libpython(root: Path, version: str, folders: Sequence[str]) -> str:
    """Return which of ``folders`` holds the stub's libpython, "" if the system does.

    Without it the server would hang without a log line. So the stub is run here: without
    arguments it exits with 1, or with 127 where a library is missing.
    """
    stub = _server(root) / "backends" / "python" / _STUB
    for folder in (*folders, ""):
        env = {**os.environ, "LD_LIBRARY_PATH": folder}
        tried = subprocess.run([str(stub)], env=env, capture_output=True, check=False)
        if tried.returncode != _LIBRARY_MISSING:
            return folder
    raise MistakeError(
        f"Triton's stub cannot load its libraries: {tried.stderr.decode().strip()}\n"
        f"This Python ({sys.executable}) has no shared libpython{version}. On Debian or "
        f"Ubuntu: apt install libpython{version}; or use a Python from uv, pyenv "
        "(--enable-shared) or conda, which include it"
    )


def _check_platform() -> None:
    machine = f"{platform.system()} {platform.machine()}"
    if machine != "Linux x86_64":
        raise MistakeError(
            f"the embedded tritonserver runs on Linux x86_64, this is {machine}; "
            "use compose.yaml instead"
        )


def _uv(root: Path, *arguments: str) -> None:
    """Run uv; its log stays in the folder, and an error names it."""
    from uv import find_uv_bin  # of an extra: only a build needs it

    log = root / "build.log"
    with log.open("a") as sink:
        result = subprocess.run(
            [find_uv_bin(), *arguments], stdout=sink, stderr=subprocess.STDOUT, check=False
        )
    if result.returncode:
        last = log.read_text().strip().splitlines()[-8:]
        raise OutageError(f"uv {arguments[0]} failed; its log: {log}\n" + "\n".join(last))


def _key() -> str:
    """Return a digest of the locked versions and the Python."""
    locked = LOCK_FILE.read_text(), SERVER_LOCK.read_text()
    built_from = (*locked, sys.version, sys.base_prefix)
    return hashlib.sha256("\n".join(built_from).encode()).hexdigest()[:16]


def _env_python(root: Path) -> Path:
    return root / "env" / "bin" / "python"


def _server(root: Path) -> Path:
    return root / "server" / "pytriton" / "tritonserver"
