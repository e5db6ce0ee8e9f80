"""Processes that call a server at the same time, until they are stopped."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from threading import BrokenBarrierError
from typing import Any

_START_S = 300.0  # of Python and its imports, on a busy machine
_signals: list[Any] = []  # in a caller's own process: the barrier and the end


class Callers:
    """``count`` processes; ``method`` is how ``multiprocessing`` starts them."""

    def __init__(self, count: int, method: str = "spawn") -> None:
        context = multiprocessing.get_context(method)
        self._count, self._context = count, context
        self._ready, self._end = context.Barrier(count + 1), context.Event()
        self._calls: list[Future[Any]] = []
        signals = self._ready, self._end
        self._pool = ProcessPoolExecutor(count, context, _receive, signals)

    def start(self, call: Callable[..., Any], *given: Any) -> None:
        """Let each run ``call(number, *given)``; return when all ``wait_for_all``."""
        # Forked from a process that has imported everything: 5 s less a caller.
        self._context.set_forkserver_preload([call.__module__])
        self._calls = [self._pool.submit(call, n, *given) for n in range(self._count)]
        try:
            self._ready.wait(_START_S)
        except BrokenBarrierError:
            self.check_alive()
            raise

    def stop(self) -> list[Any]:
        """Stop them; return what each of them returns."""
        self._end.set()
        with self._pool:
            return [call.result() for call in self._calls]

    def check_alive(self) -> None:
        """Raise ``RuntimeError`` from the error of a caller that has ended."""
        for call in self._calls:
            if call.done():
                raise RuntimeError("a caller has ended") from call.exception()


def wait_for_all() -> None:
    """Return when every caller is here, connected."""
    _signals[0].wait()


def ends_within(seconds: float) -> bool:
    """Sleep that long, or until the callers are stopped: then return True."""
    return bool(_signals[1].wait(max(0.0, seconds)))


def _receive(*signals: Any) -> None:
    _signals.extend(signals)
