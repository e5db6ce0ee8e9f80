"""Embeddings as attributes: a list of numbers ↔ the text that log and store keep of it.

A producer sends numbers, or the text itself: ``vector:`` and the numbers as float16,
little-endian, in base64. That is 2.7 characters a number, where JSON has ten or more; what
reads a vector takes its direction alone, for which 11 bits are plenty.
"""

import base64
import binascii
import math
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PREFIX = "vector:"
MIN_NUMBERS = 8  # fewer are more likely ids that should have been texts
MAX_NUMBERS = 1024
MAX_LENGTH = len(PREFIX) + 4 * math.ceil(2 * MAX_NUMBERS / 3)


def vector_text(numbers: Sequence[float]) -> str:
    """Return ``numbers`` as text; ``ValueError`` says what is wrong with them."""
    if not MIN_NUMBERS <= len(numbers) <= MAX_NUMBERS:
        raise ValueError(
            f"a list of {len(numbers)} numbers is no vector: that has {MIN_NUMBERS} to "
            f"{MAX_NUMBERS:,}; send ids as texts"
        )
    try:
        content = struct.pack(f"<{len(numbers)}e", *numbers)
    except OverflowError:
        raise ValueError("a vector has a number beyond 65,504") from None
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a vector has a number that is not finite")
    return PREFIX + base64.b64encode(content).decode()


def numbers_of(text: str) -> NDArray[np.float32] | None:
    """Return the numbers of a vector's ``text``; None if it is none."""
    if not text.startswith(PREFIX) or len(text) > MAX_LENGTH:
        return None
    try:
        content = base64.b64decode(text[len(PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(content) % 2 or not MIN_NUMBERS <= len(content) // 2 <= MAX_NUMBERS:
        return None
    numbers = np.frombuffer(content, dtype="<f2").astype(np.float32)
    return numbers if np.isfinite(numbers).all() else None


def shown(text: str) -> str:
    """Return ``text`` as a person reads it: of a vector only how long it is."""
    numbers = numbers_of(text)
    return text if numbers is None else f"a vector of {len(numbers):,} numbers"
