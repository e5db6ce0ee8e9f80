"""Feast's registry in Postgres: where many machines share it, a file will not do."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.state.counters import count
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.user_state import UserState
from tests.features.postgres import missing, running_postgres

pytestmark = [
    pytest.mark.redis,
    # Feast closes no connection of its registry: they end with their pool.
    pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning"),
]
needs_postgres = pytest.mark.skipif(bool(missing()), reason=missing())
BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@pytest.fixture(scope="module")
def sql_config(store_config: FeatureConfig) -> Iterator[FeatureConfig]:
    with running_postgres() as url:
        yield replace(store_config, registry=url)


@needs_postgres
def test_applying_while_another_process_creates_the_tables_finds_them(
    sql_config: FeatureConfig,
) -> None:
    from feast.infra.registry.sql import metadata
    from sqlalchemy import create_engine, text

    from srp4ctr.features.online import feast_store

    engine = create_engine(sql_config.registry)
    with ThreadPoolExecutor(1) as pool, engine.connect() as other:
        metadata.create_all(other)  # and has not committed it
        applied = pool.submit(feast_store.apply, sql_config)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as watcher:
            while not watcher.execute(text(BLOCKED)).scalar():
                assert not applied.done(), applied.result()
                time.sleep(0.02)
        other.commit()
        assert len(applied.result()) == 4
    engine.dispose()


@needs_postgres
def test_rows_are_written_and_read_by_the_views_of_an_sql_registry(
    sql_config: FeatureConfig,
) -> None:
    from srp4ctr.features.online import feast_store, store

    feast_store.apply(sql_config)  # a second time, as an upgrade does
    sink = store.FeatureStoreSink(sql_config)
    written = Rows(users={"sql": count(UserState(), at_ms=1, is_click=True, offset=0)})
    sink.write(written)
    assert sink.read(["sql"], []) == written


def test_a_missing_driver_is_named_with_what_to_install() -> None:
    from srp4ctr.features.online.feast_store import registry_errors

    wanted = pytest.raises(MistakeError, match=r"needs the Python package psycopg: pip")
    with wanted, registry_errors("postgresql+psycopg://db/registry"):
        raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")


def test_a_registry_that_does_not_answer_is_an_outage_in_a_sentence() -> None:
    from srp4ctr.features.online import feast_store

    away = FeatureConfig(registry="postgresql+psycopg://srp4ctr@127.0.0.1:1/registry")
    for call in (feast_store.apply, feast_store.check_views):
        with pytest.raises(
            OutageError, match=r"//…@127\.0\.0\.1:1/registry does not answer: "
        ) as error:
            call(away)
        assert "\n" not in str(error.value)


def test_a_registry_that_refuses_the_password_is_no_outage() -> None:
    from sqlalchemy.exc import OperationalError

    from srp4ctr.features.online.feast_store import registry_errors

    refused = Exception('password authentication failed for user "srp4ctr"\nmore')
    wanted = pytest.raises(MistakeError, match=r"features\.registry_password_file$")
    with wanted, registry_errors("postgresql+psycopg://u@db/r"):
        raise OperationalError("", {}, refused)
