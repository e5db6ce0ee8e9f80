"""Encoder states beside the features: what the stream has encoded, for requests to read.

In: ``STATE_TENSORS`` of one history. Out: the same in half precision, one value a user,
under a digest of the encoder and of all that it read. So states of another model, or of a
history that has moved on, are never taken for those of this one, nor is what was damaged.
Padding is left out.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from srp4ctr.features import schema
from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.sink import UnusableStoreError

States = Mapping[str, NDArray[Any]]
Read = Callable[[Sequence[str]], Sequence[bytes | None]]

_MASK = "state_mask"
_CONTENT = tuple(spec for spec in schema.STATE_TENSORS if spec.name != _MASK)
_HALF = np.dtype("<f2")
_FORMAT = b"1"  # of the values: another one's are not read
_DIGEST_BYTES, _SUM_BYTES = 16, 8
_REST_S = 1.0  # after a read that failed: each request would wait for the store again


class StateStore:
    """Values of users in the online store, which drops those that nobody has renewed.

    Raises ``ConnectionError`` when the store does not answer.
    """

    def __init__(self, config: FeatureConfig, timeout_s: float) -> None:
        """Answer, or fail, in about two times ``timeout_s``."""
        from srp4ctr.features import online_calls, store  # Feast: 3 s

        self._tried_twice = online_calls.tried_twice
        self._client = store.client_of(config, timeout_s)
        self._prefix = f"{store.PROJECT}:states:"

    def read(self, user_ids: Sequence[str]) -> Sequence[bytes | None]:
        """Return the value of each user, None where there is none that can be read."""
        commands = [("GET", self._prefix + user_id) for user_id in user_ids]
        found = self._tried_twice(partial(self._sent, commands, raises=False))
        return [each if isinstance(each, bytes) else None for each in found]

    def write(self, values: Mapping[str, bytes], keep_s: float) -> None:
        """Store a value for each user, for ``keep_s`` from now."""
        keep_ms = max(round(keep_s * 1000.0), 1)
        self._all(
            ("SET", self._prefix + user_id, value, "PX", keep_ms)
            for user_id, value in values.items()
        )

    def remove(self, user_ids: Iterable[str]) -> None:
        """Remove the values of users who have no history any more."""
        self._all(("DEL", self._prefix + user_id) for user_id in user_ids)

    def _all(self, commands: Iterable[tuple[Any, ...]]) -> None:
        self._tried_twice(partial(self._sent, list(commands)))

    def _sent(self, commands: Sequence[tuple[Any, ...]], raises: bool = True) -> list[Any]:
        """Return the answers; a command's own error is raised, or is its answer."""
        with self._client().pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return list(pipe.execute(raise_on_error=raises))


def for_requests(config: FeatureConfig) -> StateStore:
    """Return the store for who cannot wait."""
    from srp4ctr.features.store import REQUEST_TIMEOUT_S

    return StateStore(config, REQUEST_TIMEOUT_S)


class StoredStates:
    """Looks for the states of histories; a store that is away costs one wait a second."""

    def __init__(
        self,
        read: Read,
        encoder: bytes,
        sizes: Mapping[str, int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``encoder`` is a digest of the encoder, ``sizes`` are the bundle's."""
        self._read = read
        self._encoder = encoder
        self._sizes = sizes
        self._clock = clock
        self._rests_until_s = float("-inf")

    def find(self, users: Mapping[bytes, str]) -> dict[bytes, States]:
        """Return the states that there are of histories (as bytes), each of a user."""
        if not users or self._clock() < self._rests_until_s:
            return {}
        try:
            values = self._read(list(users.values()))
        except (ConnectionError, UnusableStoreError):
            self._rests_until_s = self._clock() + _REST_S
            return {}
        found = {
            history: unpacked(value, digest_of(self._encoder, history), self._sizes)
            for history, value in zip(users, values, strict=True)
            if value is not None
        }
        return {history: states for history, states in found.items() if states is not None}


def digest_of(encoder: bytes, history: bytes) -> bytes:
    """Return what names the states that ``encoder`` makes of ``history``."""
    digest: bytes = xxhash.xxh3_128_digest(_FORMAT + encoder + history)
    return digest


def packed(states: States, digest: bytes) -> bytes | None:
    """Return one history's states (1, …) as a value; None if halves cannot hold them."""
    is_valid = states[_MASK][0] > 0.0
    parts = [np.packbits(is_valid).tobytes()]
    for spec in _CONTENT:
        with np.errstate(over="ignore"):
            half = states[spec.name][0].compress(is_valid, _axis(spec)).astype(_HALF)
        if not np.isfinite(half).all():
            return None
        parts.append(half.tobytes())
    content = b"".join(parts)
    return digest + _sum_of(content) + content


def unpacked(value: bytes, digest: bytes, sizes: Mapping[str, int]) -> States | None:
    """Return the states (1, …) in ``value``; None if they are not those of ``digest``."""
    at = _DIGEST_BYTES + _SUM_BYTES
    if value[:at] != digest + _sum_of(value[at:]):
        return None
    slots = sizes["S"]
    bits = np.frombuffer(value, dtype=np.uint8, count=-(-slots // 8), offset=at)
    is_valid = np.unpackbits(bits, count=slots).astype(bool)
    at += len(bits)
    states: dict[str, NDArray[Any]] = {_MASK: is_valid.astype(np.float32)[None]}
    for spec in _CONTENT:
        axis, shape = _axis(spec), spec.dims(sizes)
        dense = (*shape[:axis], int(is_valid.sum()), *shape[axis + 1 :])
        count = int(np.prod(dense))
        half = np.frombuffer(value, dtype=_HALF, count=count, offset=at).reshape(dense)
        at += half.nbytes
        whole = np.zeros(shape, dtype=np.float32)
        whole[(slice(None),) * axis + (is_valid,)] = half
        states[spec.name] = whole[None]
    return states


def _sum_of(content: bytes) -> bytes:
    checksum: bytes = xxhash.xxh3_64_digest(content)
    return checksum


def _axis(spec: schema.TensorSpec) -> int:
    """Return the axis of the history's slots, the batch's left out."""
    return spec.shape.index("S")
