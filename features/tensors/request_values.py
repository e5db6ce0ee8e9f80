"""What a caller sends of a request → ids, keys and times, or what is wrong with them."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.errors import MistakeError
from srp4ctr.features.tensors import vocabulary
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.events.codec import MAX_OCCURRED_AT_MS, MIN_OCCURRED_AT_MS
from srp4ctr.streams.events.schema import MAX_ID_LENGTH, item_key

Text = str | bytes
# A context's rows (X,), its numbers, and how far the user's clock is ahead, in ms.
ReadContext = tuple[NDArray[np.int64], NDArray[np.float32], int]
Int64s = NDArray[np.int64]
# More than a catalogue's ids; ids that clients invent must not fill the memory.
MAX_CACHED_IDS = 200_000
_MAX_CONTEXT_LETTERS = 1 << 16


class ItemKeyCache(dict[Text, int]):
    """Item id → key: each id is decoded and hashed once, "" is 0."""

    def __missing__(self, item_id: Text) -> int:
        if len(self) >= MAX_CACHED_IDS:
            self.clear()
        key = item_key(text_of(item_id, "item_ids")) if item_id else 0
        self[item_id] = key
        return key


def text_of(given: Text, name: str, max_length: int = MAX_ID_LENGTH) -> str:
    """Return an id or a context as text; ``MistakeError`` for what it may not be."""
    try:
        text = given.decode() if isinstance(given, bytes) else given
    except UnicodeDecodeError as error:
        raise MistakeError(
            f"{name} is not UTF-8: {error.reason} in {given!r:.80}"
        ) from None
    if len(text) > max_length:
        raise MistakeError(f"{name} has {len(text)} letters; at most {max_length}")
    return text


def context_of(text: Text) -> dict[str, str]:
    """Return a caller's context; ``MistakeError`` for one that is not a flat map."""
    return vocabulary.parse_context(text_of(text, "context", _MAX_CONTEXT_LETTERS))


def read_context(words: Vocabulary, context: Mapping[str, str]) -> ReadContext:
    """Return a context's rows and numbers, and how far the user's clock is ahead."""
    numbers = vocabulary.context_numbers(context, words.context_numbers)
    return vocabulary.context_rows(context), numbers, words.utc_offset_ms(context)


def times_of(times_ms: Sequence[int] | NDArray[Any] | None, count: int) -> Int64s:
    """Return the requests' times (B,): the clock's for 0. Raises ``MistakeError``."""
    now_ms = time.time_ns() // 1_000_000
    given = [0] * count if times_ms is None else np.ravel(times_ms).tolist()
    times = [each or now_ms for each in given]
    if times and min(times) < MIN_OCCURRED_AT_MS:
        raise MistakeError(
            f"request_time_ms {min(times)} is before 1973: is it in seconds? "
            "Send milliseconds"
        )
    if times and max(times) > MAX_OCCURRED_AT_MS:
        raise MistakeError(
            f"request_time_ms {max(times)} is after 2100: is it in microseconds? "
            "Send milliseconds"
        )
    return np.array(times, dtype=np.int64).reshape(count)
