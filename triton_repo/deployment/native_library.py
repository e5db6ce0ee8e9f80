"""The native step's library: where it is, and whether it can serve."""

import zlib
from pathlib import Path

import srp4ctr
from srp4ctr.errors import MistakeError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.connection import native_address
from srp4ctr.features.tensors import compiled
from srp4ctr.triton_repo.config import TritonConfig

# Not resolved: in a checkout its folders are links, in a wheel they are folders.
_FOLDER = Path(srp4ctr.__file__).parent / "triton_repo" / "native"
LIBRARY = _FOLDER / "libtriton_srp4ctr.so"
_MAIN = _FOLDER / "native_ranker.c"


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


def _is_built() -> bool:
    """Return whether there is a library of the sources beside it."""
    sources = (_MAIN, *compiled.SOURCES, *sorted(_FOLDER.glob("*.h")))
    content = b"".join(each.read_bytes() for each in sources)
    mark = b"srp4ctr native source %du" % zlib.crc32(content)
    return LIBRARY.is_file() and mark in LIBRARY.read_bytes()
