"""The native step's library: where it is, whether it can serve, and its copies.

Triton loads a library once for each path, and keeps it open until it ends. So the name has
a number of its sources: another release's code never has the path of this one. In a live
repository all versions with the same code have one file under several names, which the
server's linker maps once.
"""

import os
import shutil
import zlib
from contextlib import suppress
from pathlib import Path

import srp4ctr
from srp4ctr.errors import MistakeError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.connection import native_address
from srp4ctr.features.tensors import compiled
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import model_config

# Not resolved: in a checkout its folders are links, in a wheel they are folders.
_FOLDER = Path(srp4ctr.__file__).parent / "triton_repo" / "native"
LIBRARY = _FOLDER / "libtriton_srp4ctr.so"


def obstacle(config: TritonConfig, features: FeatureConfig) -> str:
    """Return why no native step can serve by these settings; "" where one can."""
    if config.backend != "python":
        return f"triton.backend is {config.backend!r}, not 'python'"
    if config.exploration.kind != "none":
        return "triton.exploration draws the order, which the Python step does"
    try:
        native_address(features)
    except MistakeError as error:
        return str(error)
    return "" if _is_built() else "its library is not compiled, or of other sources"


def backend() -> str:
    """Return Triton's name of our backend, which is part of its library's name."""
    return f"{model_config.NATIVE}_{_source():08x}"


def place(folder: Path) -> None:
    """Put the library into the version folder of a step.

    It is linked to that of another step in the same live repository, if one has it.
    """
    name = f"libtriton_{backend()}.so"
    content = LIBRARY.read_bytes()
    steps = f"{model_names.NATIVE_RANKER}_*/{folder.name}/{name}"
    for other in sorted(folder.parents[1].glob(steps)):
        with suppress(OSError):  # removed meanwhile, or the disk has no links
            if other.read_bytes() == content:
                os.link(other, folder / name)
                return
    shutil.copyfile(LIBRARY, folder / name)


def _source() -> int:
    """Return the number of the sources, which the library has as well."""
    sources = (*sorted(_FOLDER.glob("*.[ch]")), *compiled.SOURCES)
    return zlib.crc32(b"".join(source.read_bytes() for source in sources))


def _is_built() -> bool:
    """Return whether there is a library of the sources next to it."""
    mark = b"srp4ctr native source %du" % _source()
    return LIBRARY.is_file() and mark in LIBRARY.read_bytes()
