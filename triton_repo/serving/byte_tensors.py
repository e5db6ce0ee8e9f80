"""Tensors of texts ↔ the bytes that Triton moves, faster than ``pb_utils`` does it itself.

Triton's stub calls these functions of its module ``triton_python_backend_utils`` by their
names, for every tensor. Its own read a text by two calls of ``struct`` and compare a dtype
with thirteen others: of 100 item ids .07 ms, of a request's answer .04 ms.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTH_BYTES = 4
_DTYPES = (np.float32, np.int64, np.uint8, np.object_)


def install(pb_utils: Any) -> None:
    """Replace the functions of ``pb_utils``, as Triton gives it to a step."""
    own = pb_utils.numpy_to_triton_type
    types = {np.dtype(dtype): own(np.dtype(dtype)) for dtype in _DTYPES}

    def triton_type(dtype: Any) -> Any:
        return types.get(dtype) or own(dtype)

    pb_utils.numpy_to_triton_type = triton_type
    pb_utils.deserialize_bytes_tensor = decoded
    pb_utils.serialize_byte_tensor = encoded


def decoded(tensor: Any) -> NDArray[np.object_]:
    """Return the texts (n,), as bytes, in the bytes of a tensor."""
    data, end, texts = bytes(tensor), 0, []
    while end < len(data):
        start = end + _LENGTH_BYTES
        end = start + int.from_bytes(data[end:start], "little")
        texts.append(data[start:end])
    return np.array(texts, dtype=object)


def encoded(tensor: NDArray[Any]) -> bytes:
    """Return a tensor of texts as bytes: the length of each before it."""
    parts: list[bytes] = []
    for text in tensor.ravel().tolist():
        content = text if isinstance(text, bytes) else str(text).encode()
        parts += len(content).to_bytes(_LENGTH_BYTES, "little"), content
    return b"".join(parts)
