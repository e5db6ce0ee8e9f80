"""Feast's names that this folder uses, imported without Feast's side effects.

``import feast`` switches the process's prometheus_client, and that of child processes, to
files in a new temporary folder. It changes the warnings filters and recompiles its classes
to check types at run time (2 s of 5). It imports torch if it is installed (3 s and 200 MB
more) and web servers (an eighth of the rest); neither is used here.
Import Feast only through this module, and late.
"""

import os
import sys
import warnings
from types import ModuleType
from typing import Any

import prometheus_client  # before Feast: it fixes in memory or in files at its import
import typeguard

_FOLDER_VARIABLES = ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR")
_unset = [name for name in _FOLDER_VARIABLES if name not in os.environ]
os.environ.update(dict.fromkeys(_unset, ""))  # set: so Feast makes no folder
_hidden = "torch" not in sys.modules
if _hidden:
    sys.modules["torch"] = None  # type: ignore[assignment]  # Python's own way to say no
_WEB = (
    *("feast.feature_server", "feast.ui_server", "fastapi", "fastapi.concurrency"),
    *("fastapi.requests", "fastapi.security"),
)


class _Blank(ModuleType):
    """A module whose every name is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Exception,), {})


_blank = [name for name in _WEB if name not in sys.modules]
sys.modules.update({name: _Blank(name) for name in _blank})
_typechecked = typeguard.typechecked
typeguard.typechecked = lambda target: target  # type: ignore[assignment]
try:
    with warnings.catch_warnings():
        from feast import FeatureStore, RepoConfig
        from feast.repo_config import FeastConfigBaseModel
finally:
    typeguard.typechecked = _typechecked
    for _name in _blank:
        del sys.modules[_name]
    if _hidden:
        del sys.modules["torch"]
    for _name in _unset:
        del os.environ[_name]


class NoOfflineStore:
    """For online reads and writes only: Feast's own store of files imports Dask (0.7 s)."""


class NoOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]  # untyped
    """Feast finds it by its name, in the module of ``NoOfflineStore``."""

    type: str


__all__ = [
    "FeatureStore",
    "NoOfflineStore",
    "RepoConfig",
    "prometheus_client",
]
