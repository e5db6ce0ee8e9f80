"""Hashes and letters are what Python makes of the same bytes."""

import ctypes
import random
from typing import Any

import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.triton_repo.native.parts import sized

NASTY = [0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF]
NASTY += [0xE0, 0xE1, 0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF]


def test_hashes_are_those_of_python(library: Any) -> None:
    chance, found = random.Random(1), ctypes.c_uint64()
    for length in [*range(241), *range(241)]:
        text = chance.randbytes(length)
        assert library.hash3(*sized(text), ctypes.byref(found)) == 1
        assert found.value == xxhash.xxh3_64_intdigest(text), length
    assert library.hash3(*sized(bytes(241)), ctypes.byref(found)) == 0


def letters_of(text: bytes) -> int:
    try:
        return len(text.decode())
    except UnicodeDecodeError:
        return -1


def test_every_letter_is_one(library: Any) -> None:
    some = [*range(0x900), *range(0xD700, 0xE100), *range(0xFF00, 0x10200)]
    for code in [*some, *range(0x900, 0x110000, 97), 0x10FFFF]:
        text = chr(code).encode(errors="surrogatepass")
        is_letter = not 0xD800 <= code < 0xE000
        assert library.letters(*sized(text)) == (1 if is_letter else -1), hex(code)


def test_two_bytes_of_any_kind_begin_what_python_decodes(library: Any) -> None:
    for number in range(256 * 256):
        text = number.to_bytes(2, "big")
        for more in (b"\x80", b"\x80\x80") if text[0] >= 0xE0 else (b"",):
            assert library.letters(*sized(text + more)) == letters_of(text + more)


any_bytes = st.lists(st.sampled_from(NASTY), max_size=6).map(bytes)
any_pieces = st.lists(
    st.one_of(any_bytes, st.binary(), st.text().map(str.encode), st.just(b"ascii" * 3))
)


@settings(deadline=None)
@given(pieces=any_pieces)
def test_letters_are_those_that_python_decodes(library: Any, pieces: list[bytes]) -> None:
    text = b"".join(pieces)
    assert library.letters(*sized(text)) == letters_of(text)
