"""A call to the online store → its answer, at the second try, or an error callers know.

A request cannot wait for a store that is away, and Redis' own clients sleep between their
tries; of a cluster the first try that fails also asks anew which node has which slots.
"""

from collections.abc import Callable
from typing import TypeVar

from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisClusterException,
    RedisError,
)

from srp4ctr.streams.state.state_store import FatalStoreError

T = TypeVar("T")
_FAILURES = (RedisError, RedisClusterException, OSError)  # the second is no RedisError


def retry_once(call: Callable[[], T]) -> T:
    """Return ``call``'s answer, at the second try if the first one breaks or times out.

    Raises Redis' errors as the ``ConnectionError`` that callers know.
    """
    try:
        return call()
    except (AuthenticationError, NoPermissionError) as error:
        raise FatalStoreError(
            f"the feature store refuses us: {error}; the worker needs +@read, +@write, "
            "+@connection and +eval on its keys"
        ) from error
    except _FAILURES:
        try:
            return call()
        except _FAILURES as error:
            raise ConnectionError(f"the feature store did not answer: {error}") from error
