"""How many examples a fuzzed test tries: few in a suite, more in a deep run.

``make fuzz`` sets ``FUZZ``; a suite is to be fast, and tries new examples each time.
"""

import os
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def examples(few: int) -> int:
    """Return ``few``, or a multiple of it in a deep run."""
    return few * int(os.environ.get("FUZZ", "1"))


def outcome(call: Callable[[], Result]) -> tuple[Result | None, str]:
    """Return what ``call`` returns, or None and the ``ValueError`` that it raised."""
    try:
        return call(), ""
    except ValueError as error:
        return None, str(error) or repr(error)
