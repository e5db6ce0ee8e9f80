"""Programs in Go that tests and benchmarks need: the one on the path, or one built once."""

import os
import shutil
import subprocess
from pathlib import Path

from srp4ctr import processes
from srp4ctr.errors import MistakeError, OutageError

_BUILD_S = 540.0


def built(name: str, package: str, version: str) -> str:
    """Return the path of a program of ``package``, built with Go where there is none yet.

    Raises ``MistakeError`` where Go is missing, and ``OutageError`` where it fails.
    """
    folder = Path.home() / ".cache" / "srp4ctr" / f"{name}-{version}"
    program, go = folder / name, shutil.which("go")
    with processes.locked(folder / "lock"):  # several processes may run tests
        if program.is_file():
            return str(program)
        if go is None:
            raise MistakeError(
                f"needs {name}, or Go to build it: go install {package}@{version}"
            )
        result = subprocess.run(
            [go, "install", f"{package}@{version}"],
            env={**os.environ, "GOBIN": str(folder)},
            capture_output=True,
            text=True,
            timeout=_BUILD_S,
            check=False,
        )
    if result.returncode:
        raise OutageError(f"{name} {version} could not be built: {result.stderr[-300:]}")
    return str(program)
