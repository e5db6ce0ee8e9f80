"""A change of an SQL registry → the same, though others make it at the same moment."""

from collections.abc import Callable
from typing import TypeVar

from srp4ctr.errors import OutageError
from srp4ctr.features.online.registry_connection import shown

T = TypeVar("T")
_TRIES = 3


def retry_on_conflict(call: Callable[[], T], address: str) -> T:
    """Return ``call``'s answer; it must be harmless to repeat. ``address`` is for errors.

    Of two processes that find the registry empty one makes its tables, and the other hears
    that there are such tables: then it finds them. Raises ``OutageError`` where the
    database does not answer, ``ValueError`` where it refuses us or its driver is missing.
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
    except Exception as error:
        if outage := unanswered(error, address):
            raise outage from error
        raise


def unanswered(error: Exception, address: str) -> ValueError | None:
    """Return ``error`` in a sentence if the database at ``address`` is away or refuses us.

    None for any other error.
    """
    from sqlalchemy.exc import OperationalError

    if not isinstance(error, OperationalError):
        return None
    reason = str(error.orig).partition("\n")[0]
    if "authentication failed" in reason:
        return ValueError(
            f"the registry {shown(address)} refuses us: {reason}; check "
            "features.registry and features.registry_password_file"
        )
    return OutageError(f"the registry {shown(address)} does not answer: {reason}")
