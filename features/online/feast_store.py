"""Opens Feast's store and registers the project's views in its registry.

Import it late: Feast costs 3–4 s.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from srp4ctr.errors import MistakeError, OutageError, Srp4ctrError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.connection import (
    connection_string,
    redacted,
    registry_settings,
)
from srp4ctr.features.online.feast_import import FeatureStore, NoOfflineStore, RepoConfig
from srp4ctr.features.online.row_codec import PROJECT, VIEWS

PROFILE_LOG = "item-profiles.parquet"
"""In the log's folder: item updates in the columns of ``item_profile``."""

_NO_OFFLINE_STORE = f"{NoOfflineStore.__module__}.{NoOfflineStore.__name__}"
_TRIES = 3
_TIMEOUT_S = 5.0

T = TypeVar("T")


def open_store(config: FeatureConfig, *, offline: bool = False) -> FeatureStore:
    """Return Feast's store for ``config``.

    ``offline`` can read history with DuckDB, which the server's environment does not have.
    """
    return FeatureStore(
        config=RepoConfig(
            project=PROJECT,
            provider="local",
            registry=registry_settings(config),
            online_store={
                "type": "redis",
                "redis_type": "redis_cluster" if config.redis_cluster else "redis",
                "connection_string": connection_string(config, _TIMEOUT_S),
            },
            # Feast's other engine for files loses rows.
            offline_store={"type": "duckdb" if offline else _NO_OFFLINE_STORE},
            entity_key_serialization_version=3,
            repo_path=Path(config.log_dir).absolute(),
        )
    )


def apply(config: FeatureConfig) -> list[str]:
    """Register the views with Feast and return their names; it may be repeated."""
    from srp4ctr.features.repo import definitions  # builds Feast's objects: not at import

    if "://" not in config.registry:
        Path(config.registry).absolute().parent.mkdir(parents=True, exist_ok=True)
    Path(config.log_dir).mkdir(parents=True, exist_ok=True)
    kinds = ("Entity", "FeatureView", "FeatureService", "FileSource")
    objects = [o for o in vars(definitions).values() if type(o).__name__ in kinds]
    log_dir = Path(config.log_dir).absolute()
    definitions.profile_log.file_options.uri = str(log_dir / PROFILE_LOG)
    return retry_on_conflict(partial(_apply, config, objects), config.registry)


def check_views(config: FeatureConfig) -> None:
    """Raise ``ValueError`` unless the registry holds the project's views.

    Raises ``OutageError`` if the registry does not answer.
    """
    store = open_store(config)
    try:
        for view in VIEWS:
            store.get_feature_view(view.name)
    except Exception as error:
        raise registry_error(error, config.registry) or ValueError(
            f"the registry {redacted(config.registry)} does not hold our views "
            f"({error}): run `srp4ctr features apply` first"
        ) from error


def retry_on_conflict(call: Callable[[], T], address: str) -> T:
    """Return the result of ``call``, repeated if another process changes the registry.

    Of two processes that find the registry empty, one creates its tables and the other
    gets an error; at the next try it finds them. ``address`` is for error messages. Raises
    ``OutageError`` if the database does not answer, ``ValueError`` if it refuses access or
    its driver is missing.
    """
    from sqlalchemy.exc import IntegrityError, ProgrammingError  # a dependency of Feast

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
        if outage := registry_error(error, address):
            raise outage from error
        raise


def registry_error(error: Exception, address: str) -> Srp4ctrError | None:
    """Return the ``OutageError`` or ``MistakeError`` to raise for the database's ``error``.

    None if ``error`` is not about the connection to the database at ``address``.
    """
    from sqlalchemy.exc import OperationalError

    if not isinstance(error, OperationalError):
        return None
    reason = str(error.orig).partition("\n")[0]
    if "authentication failed" in reason:
        return MistakeError(
            f"the registry {redacted(address)} refuses us: {reason}; check "
            "features.registry and features.registry_password_file"
        )
    return OutageError(f"the registry {redacted(address)} does not answer: {reason}")


def _apply(config: FeatureConfig, objects: list[Any]) -> list[str]:
    store = open_store(config, offline=True)
    store.apply(objects)
    return sorted(view.name for view in store.list_feature_views())
