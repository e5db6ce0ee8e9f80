"""Texts are read and written as Triton's own client does."""

import numpy as np
import pytest
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from srp4ctr.triton_repo.serving import byte_tensors

TEXTS: tuple[list[object], ...] = (
    [b"item-1", b"", b"\x00\xff", b"x" * 300],
    ["ö", "", "user=1@2"],
    [],
)


@pytest.mark.parametrize("texts", TEXTS)
def test_texts_are_written_and_read_as_triton_s_client_does(texts: list[object]) -> None:
    tensor = np.array(texts, dtype=object)
    theirs = serialize_byte_tensor(tensor)
    data = theirs.item() if theirs.size else b""
    assert byte_tensors.encoded(tensor) == data
    read = byte_tensors.decoded(np.frombuffer(data, dtype=np.uint8))
    assert read.tolist() == deserialize_bytes_tensor(data).tolist()
