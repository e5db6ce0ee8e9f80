"""Opens Feast's store and registers the project's views in its registry.

Neither a worker nor a server needs them: rows are read and written without Feast.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.connection import (
    connection_string,
    redacted,
    registry_settings,
)
from srp4ctr.features.online.row_codec import PROFILES, PROJECT, VIEWS
from srp4ctr.retries import retry

PROFILE_LOG = "item-profiles.parquet"
"""In the log's folder: item updates in the columns of ``item_profile``."""


def open_store(config: FeatureConfig) -> Any:
    """Return Feast's ``FeatureStore`` of the project: online rows, and DuckDB's history."""
    from feast import FeatureStore, RepoConfig

    return FeatureStore(
        config=RepoConfig(
            project=PROJECT,
            provider="local",
            registry=registry_settings(config),
            online_store={
                "type": "redis",
                "redis_type": "redis_cluster" if config.redis_cluster else "redis",
                "connection_string": connection_string(config, 5.0),
            },
            offline_store={"type": "duckdb"},  # its other engine for files loses rows
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
    definitions.profile_log.file_options.uri = str(profile_log(config))

    def call() -> list[str]:
        with registry_errors(config.registry):
            store = open_store(config)
            store.apply(objects)
            return sorted(view.name for view in store.list_feature_views())

    return retry("registry", call, attempts=3)


def profile_log(config: FeatureConfig) -> Path:
    """Return the file of ``PROFILE_LOG``."""
    return Path(config.log_dir).absolute() / PROFILE_LOG


def check_profile_log(config: FeatureConfig) -> None:
    """Raise ``MistakeError`` if the registry names another folder's ``PROFILE_LOG``.

    As in a project that was copied or moved, with its registry: Feast would read what
    stands there.
    """
    check_views(config)
    with registry_errors(config.registry):
        view = open_store(config).get_feature_view(PROFILES.name)
    if (found := view.batch_source.path) != (own := str(profile_log(config))):
        raise MistakeError(
            f"the registry {redacted(config.registry)} has items' attributes in {found}, "
            f"and features.log_dir is that of {own}: run `srp4ctr features apply` here"
        )


def check_views(config: FeatureConfig) -> None:
    """Raise ``MistakeError`` unless the registry holds the project's views.

    Raises ``OutageError`` if the registry does not answer.
    """
    with registry_errors(config.registry):
        found = {view.name for view in open_store(config).list_feature_views()}
    if lacking := sorted({view.name for view in VIEWS} - found):
        raise MistakeError(
            f"the registry {redacted(config.registry)} does not hold our views "
            f"({', '.join(lacking)}): run `srp4ctr features apply` first"
        )


@contextmanager
def registry_errors(address: str) -> Iterator[None]:
    """Turn the errors of the registry's database into mistakes and outages.

    Of two processes that find the registry empty, one creates its tables and the other
    gets an error, an outage that passes: at the next try it finds them.
    """
    from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

    registry = f"the registry {redacted(address)}"
    try:
        yield
    except ModuleNotFoundError as error:
        raise MistakeError(
            f"the registry's database needs the Python package {error.name}: "
            "pip install 'srp4ctr[postgres]'"
        ) from error
    except (IntegrityError, ProgrammingError) as error:
        raise OutageError(f"{registry} is being changed: {_reason(error)}") from error
    except OperationalError as error:
        if "authentication failed" in (reason := _reason(error)):
            raise MistakeError(
                f"{registry} refuses us: {reason}; check features.registry and "
                "features.registry_password_file"
            ) from error
        raise OutageError(f"{registry} does not answer: {reason}") from error


def _reason(error: Any) -> str:
    return str(error.orig).partition("\n")[0]
