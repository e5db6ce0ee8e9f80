"""A change of an SQL registry → the same, though others make it at the same moment."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_TRIES = 3


def beside_others(call: Callable[[], T]) -> T:
    """Return ``call``'s answer; it must be harmless to repeat.

    Of two processes that find the registry empty one makes its tables, and the other hears
    that there are such tables: then it finds them. Raises ``ValueError`` where the
    database's driver is not installed.
    """
    from sqlalchemy.exc import IntegrityError, ProgrammingError  # Feast brings it along

    try:
        for _ in range(_TRIES - 1):
            try:
                return call()
            except (IntegrityError, ProgrammingError):
                continue
        return call()
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the registry's database needs the Python package {error.name}: "
            "pip install 'srp4ctr[postgres]'"
        ) from error
