"""Lets a process of our own import Feast without what it does not use.

``import feast`` imports torch if it is installed, recompiles its classes to check types at
run time, and switches the process's prometheus_client, and that of child processes, to
files in a new temporary folder. Only the command line calls ``lightly``: an application
that uses the library gets Feast whole.
"""

import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_FOLDER_VARIABLES = ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR")


def lightly() -> None:
    """Import Feast without torch and type checks, when it is first imported."""
    sys.meta_path = [_LightFeast(), *sys.meta_path]


class _LightFeast(MetaPathFinder, Loader):
    """Finds Feast; while it is executed, its thread, and no other, has no torch."""

    def __init__(self) -> None:
        self._thread = 0  # that imports Feast
        self._loader: Any = None

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return Feast's specification, with this as its loader; refuse torch."""
        if name == "torch" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("hidden from Feast", name=name)
        spec = PathFinder.find_spec(name, path) if name == "feast" else None
        if spec is not None:
            self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python make the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Import Feast, and leave the process as it was."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._thread = threading.get_ident()
        try:
            with _without_side_effects():
                self._loader.exec_module(module)
        finally:
            # A new list: another thread may be looking for a module in the old one.
            sys.meta_path = [each for each in sys.meta_path if each is not self]


@contextmanager
def _without_side_effects() -> Iterator[None]:
    import prometheus_client  # noqa: F401  # it fixes in memory or in files at its import
    import typeguard

    checks = typeguard.typechecked
    unset = [name for name in _FOLDER_VARIABLES if name not in os.environ]
    os.environ.update(dict.fromkeys(unset, ""))  # set: so Feast makes no folder
    typeguard.typechecked = lambda target: target  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            yield
    finally:
        typeguard.typechecked = checks
        for name in unset:
            del os.environ[name]
