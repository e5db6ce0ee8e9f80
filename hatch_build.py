"""Compiles the features and the native step when the package is built or installed.

With this machine's C compiler (``CC``, else ``cc``), or, where there is none, with that of
the ziglang wheel, for Linux distributions since 2018 (glibc 2.28). The libraries need no
Python: ctypes loads the one in every Python, and Triton the other. Where nothing compiles,
the package is one for all platforms, whose requests take more CPU.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ZIG = "ziglang==0.15.2"
TENSORS, NATIVE = Path("features/tensors"), Path("triton_repo/native")
# As compiled.py has them; features/columns.py writes columns.h.
FEATURES = tuple(
    TENSORS / name for name in ("compiled.c", "columns.h", "compiled.h", "key_map.h")
)
# No -march: the library runs on every machine of this architecture. No fused products: the
# results are those of numpy.
FLAGS = (
    "-std=c11",
    "-O3",
    "-ffp-contract=off",
    "-fPIC",
    "-shared",
    "-pthread",
    "-fvisibility=hidden",
)
LINKED = ("-lm", "-ldl")


class CompiledFeatures(BuildHookInterface):
    """The hook that ``pyproject.toml`` names."""

    def dependencies(self) -> list[str]:
        """Return what the build needs to be installed."""
        return [] if _own_compiler() else [ZIG]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile into the tree that is installed, or into a wheel of this platform."""
        is_tree, root = version == "editable", Path(self.root)
        self.folder = Path(tempfile.mkdtemp(dir=root / TENSORS if is_tree else None))
        native = [path.relative_to(root) for path in sorted((root / NATIVE).glob("*.[ch]"))]
        libraries = {
            TENSORS / "libcompiled.so": FEATURES,
            NATIVE / "libtriton_srp4ctr.so": (*native, *FEATURES),
        }
        for library, sources in libraries.items():
            made = self.folder / library.name
            try:
                _compile([root / source for source in sources], made)
            except (OSError, subprocess.SubprocessError) as error:
                self.app.display_warning(f"{library.name} is not compiled: {error}")
                return
            if is_tree:
                made.replace(root / library)  # at once: processes have it mapped
            else:
                build_data["force_include"][str(made)] = f"srp4ctr/{library}"
        if not is_tree:
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


def _compile(sources: Sequence[Path], library: Path) -> None:
    compiler = _own_compiler()
    if not compiler:
        if importlib.util.find_spec("ziglang") is None:
            raise OSError("there is no C compiler")
        compiler = [sys.executable, "-m", "ziglang", "cc"]
        if sys.platform == "linux":
            compiler += ["-target", f"{platform.machine()}-linux-gnu.2.28"]
    content = b"".join(source.read_bytes() for source in sources)
    number = f"-DSRP4CTR_SOURCE={zlib.crc32(content)}u"
    units = [str(source) for source in sources if source.suffix == ".c"]
    command = [*compiler, *FLAGS, number, *units, "-o", str(library), *LINKED]
    subprocess.run(command, check=True, stdout=sys.stderr)
