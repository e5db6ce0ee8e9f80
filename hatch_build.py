"""Compiles ``features/tensors/compiled.c`` when the package is built or installed.

With this machine's C compiler (``CC``, else ``cc``), or, where there is none, with that of
the ziglang wheel, for Linux distributions since 2018 (glibc 2.28). The library needs no
Python: ctypes loads it in every one. Where nothing compiles, the package is one for all
platforms, whose requests take more CPU.
"""

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ZIG = "ziglang==0.15.2"
SOURCE = Path("features/tensors/compiled.c")
LIBRARY = SOURCE.with_name("libcompiled.so")
# No -march: the library runs on every machine of this architecture. No fused products: the
# results are those of numpy.
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fPIC", "-shared")


class CompiledFeatures(BuildHookInterface):
    """The hook that ``pyproject.toml`` names."""

    def dependencies(self) -> list[str]:
        """Return what the build needs to be installed."""
        return [] if _own_compiler() else [ZIG]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile into the tree that is installed, or into a wheel of this platform."""
        is_tree = version == "editable"
        beside = Path(self.root, SOURCE.parent) if is_tree else None
        self.folder = Path(tempfile.mkdtemp(dir=beside))
        library = self.folder / LIBRARY.name
        try:
            _compile(Path(self.root, SOURCE), library)
        except (OSError, subprocess.SubprocessError) as error:
            self.app.display_warning(f"{SOURCE} is not compiled: {error}")
            return
        if is_tree:
            library.replace(Path(self.root, LIBRARY))  # at once: processes have it mapped
        else:
            build_data["force_include"][str(library)] = f"srp4ctr/{LIBRARY}"
            tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data.update(pure_python=False, tag=f"py3-none-{tag}")

    def finalize(
        self, version: str, build_data: dict[str, Any], artifact_path: str
    ) -> None:
        """Remove what the wheel has a copy of."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _own_compiler() -> list[str]:
    """Return the command of this machine's C compiler; [] if there is none."""
    command = shlex.split(os.environ.get("CC", "cc"))
    return command if shutil.which(command[0]) else []


def _compile(source: Path, library: Path) -> None:
    compiler = _own_compiler()
    if not compiler:
        if importlib.util.find_spec("ziglang") is None:
            raise OSError("there is no C compiler")
        compiler = [sys.executable, "-m", "ziglang", "cc"]
        if sys.platform == "linux":
            compiler += ["-target", f"{platform.machine()}-linux-gnu.2.28"]
    number = f"-DSRP4CTR_SOURCE={zlib.crc32(source.read_bytes())}u"
    command = [*compiler, *FLAGS, number, str(source), "-o", str(library), "-lm"]
    subprocess.run(command, check=True, stdout=sys.stderr)
