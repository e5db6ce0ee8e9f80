"""Errors of calls → what their callers read: Triton's code, and a sentence."""

from srp4ctr.triton_repo.model_names import NO_MEMORY, QUEUED_TOO_LONG, STEP_FAILED


class RefusedError(ValueError):
    """A call that its caller can fix."""

    def __init__(self, message: str, reason: str) -> None:
        """``reason`` is one of ``REFUSALS``: a metric's label."""
        super().__init__(message)
        self.reason = reason


class Refusing:
    """A block that refuses a call for ``mistakes`` in it, which are counted as ``reason``.

    No generator: each request runs three of these.
    """

    def __init__(self, reason: str, *mistakes: type[ValueError]) -> None:
        self._reason, self._mistakes = reason, mistakes

    def __enter__(self) -> None:
        """Nothing is needed."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise ``RefusedError`` from a mistake."""
        if isinstance(error, self._mistakes):
            raise RefusedError(str(error), self._reason) from error


class QueuedTooLongError(Exception):
    """A call that would be answered too late."""


def without_frames(error: Exception) -> Exception:
    """Return ``error`` without what it was raised in: its calls, and Triton's memory.

    They would stay until Python's next full collection, and crash the process at its exit.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def triton_error(error: Exception) -> tuple[str, str]:
    """Return the name of Triton's code, and what the caller is to read."""
    if isinstance(error, RefusedError):
        return "INVALID_ARG", str(error)
    if isinstance(error, QueuedTooLongError):
        return "UNAVAILABLE", f"{QUEUED_TOO_LONG}: the server has more to do than it can"
    if isinstance(error, MemoryError):
        return "UNAVAILABLE", f"{NO_MEMORY}: {error}"
    return "INTERNAL", f"{STEP_FAILED}: {error!r}"
