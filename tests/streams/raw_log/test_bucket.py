"""A raw log in a bucket whose server is away, slow, silent, or refuses us."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srp4ctr import processes
from srp4ctr.cli.main import app
from srp4ctr.embedded.ports import reserved_ports
from srp4ctr.errors import ArtifactError, MistakeError, OutageError
from srp4ctr.retries import RETRIES
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from srp4ctr.streams.raw_log import log_writer
from srp4ctr.streams.raw_log.delta_tables import (
    STORE,
    check_files,
    created,
    dataset,
    opened,
    reading,
)
from srp4ctr.streams.raw_log.log_writer import EventLogWriter
from srp4ctr.testing.fault_injection.topic_reading import progress_of, until
from srp4ctr.testing.object_store import ObjectStore
from tests.builders import NOON_MS, a_behavior
from tests.proxies import proxy
from tests.streams.logs import TOPIC, log, logged, offsets, write
from tests.streams.workers import publish, running

READ = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, .* are read from the environment"


class OwnServer:
    """A server of this test, which may stop."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.running: processes.Running | None = None

    def start(self) -> None:
        self.running = self.store.start()

    def stop(self) -> None:
        if self.running:
            processes.stop(self.running, self.store.folder)
        self.running = None


@pytest.fixture
def own_server(
    bucket_log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OwnServer]:
    """Yield a started server; the environment has its keys."""
    with reserved_ports(1) as (port,):
        server = OwnServer(ObjectStore(folder=tmp_path / "objects", port=port))
        for name, value in server.store.environment().items():
            monkeypatch.setenv(name, value)
        server.start()
        yield server
        server.stop()


def publish_some(kafka: KafkaConfig, number: int, start: int = 0) -> None:
    users = range(start, start + number)
    events = [a_behavior(at_ms=NOON_MS + n, user_id=f"u{n}") for n in users]
    publish(kafka, events, backfill=True)


@pytest.mark.kafka
def test_an_outage_is_reported_and_waited_for_and_nothing_is_lost(
    kafka: KafkaConfig,
    config: StreamConfig,
    bucket_log: str,
    own_server: OwnServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_writer, "_TIDY_EVERY_S", 0.2)  # compaction fails, too
    counter = RETRIES.labels("log_files")
    before = counter._value.get()

    async def run() -> None:
        writer = EventLogWriter(kafka, config, bucket_log)
        async with running(writer):
            await until(lambda: committed() >= 10)
            own_server.stop()
            publish_some(kafka, 10, start=10)
            await until(lambda: counter._value.get() - before >= 2)
            own_server.start()
            await until(lambda: writer.crashed or committed() >= 20)
        assert writer.crash_reason is None

    publish_some(kafka, 10)
    with progress_of(kafka, config.log_group_id, BEHAVIOR_EVENTS_TOPIC) as committed:
        asyncio.run(run())
    assert len(logged(bucket_log)) == len(set(logged(bucket_log))) == 20
    said = [record.getMessage() for record in caplog.records]
    [waits, *_] = [each for each in said if each.startswith("log_files: again in")]
    assert f"the raw log {bucket_log}" in waits
    assert "onnection refused" in waits
    assert "\n" not in waits
    assert own_server.store.secret_key not in "".join(said)


@pytest.mark.kafka
def test_slow_answers_are_waited_for(
    kafka: KafkaConfig,
    config: StreamConfig,
    bucket_log: str,
    object_store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slowly(data: bytes) -> bytes:
        time.sleep(0.3)
        return data

    publish_some(kafka, 20)
    with proxy(object_store.port, answer=slowly) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        log(kafka, config, bucket_log, 20)
        assert len(logged(bucket_log)) == len(set(logged(bucket_log))) == 20


def test_a_server_that_never_answers_is_an_outage(
    bucket_log: str, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STORE, "retry_timeout", "1s")
    monkeypatch.setenv("AWS_TIMEOUT", "1s")
    write(bucket_log, 0, 5)
    silent = False

    def answer(data: bytes) -> bytes:
        return b"" if silent else data

    with proxy(object_store.port, answer=answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        rows = dataset(bucket_log, TOPIC)
        silent = True
        calls: list[Callable[[], object]] = [
            partial(opened, bucket_log, TOPIC),
            partial(write, bucket_log, 5, 9),
            partial(check_files, bucket_log),
            partial(_read, bucket_log, rows.count_rows),
        ]
        for call in calls:
            with pytest.raises(OutageError, match="the raw log s3://"):
                call()
        silent = False
        write(bucket_log, 5, 9)  # the same process continues
        assert offsets(bucket_log) == list(range(9))


def _read(address: str, call: Callable[[], object]) -> None:
    with reading(address):
        call()


def test_a_server_that_ends_while_files_are_read_damages_none(
    bucket_log: str, own_server: OwnServer
) -> None:
    write(bucket_log, 0, 5)
    rows = dataset(bucket_log, TOPIC)
    own_server.stop()
    with pytest.raises(OutageError, match="the raw log s3://"):
        _read(bucket_log, rows.to_table)
    own_server.start()
    with pytest.raises(OutageError, match="the raw log s3://"):
        _read(bucket_log, _lost_connection)
    _read(bucket_log, rows.to_table)


def _lost_connection() -> None:
    raise OSError("Generic S3 error: Error performing GET http://…: connection reset")


def test_a_damaged_object_is_named(bucket_log: str, object_store: ObjectStore) -> None:
    write(bucket_log, 0, 5)
    [path] = object_store.folder_of(bucket_log).rglob("date=*/**/*.parquet")
    path.write_bytes(b"PAR1 broken")
    with pytest.raises(ArtifactError, match=f"{path.name} is damaged"):
        offsets(bucket_log)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "other"}, r"these keys are refused \(SignatureDoes"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "these keys are refused"),
        ({"AWS_REGION": "eu-west-9"}, "the region is wrong"),
        ({"AWS_ALLOW_HTTP": "false"}, "no TLS there"),
    ],
)
def test_what_a_person_must_change_is_a_mistake_that_names_the_variables(
    bucket_log: str,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    sentence: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for call in (opened, created):
        with pytest.raises(MistakeError, match=f"{sentence}.*{READ}"):
            call(bucket_log, TOPIC)


def test_a_missing_bucket_is_no_empty_log(bucket_log: str) -> None:
    for call in (opened, created):
        with pytest.raises(MistakeError, match="there is no such bucket"):
            call("s3://no-such-bucket/events", TOPIC)


@pytest.mark.kafka
def test_a_writer_whose_keys_are_refused_ends(
    kafka: KafkaConfig,
    config: StreamConfig,
    bucket_log: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    publish_some(kafka, 1)
    with pytest.raises(MistakeError, match="these keys are refused"):
        log(kafka, config, bucket_log, 1)


def test_a_command_ends_with_the_status_of_a_mistake_and_shows_no_secret(
    bucket_log: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRP4CTR_FEATURES__LOG_URI", bucket_log)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    done = CliRunner().invoke(app, ["--debug", "features", "erase-forgotten"])
    assert isinstance(done.exception, MistakeError)
    assert done.exception.exit_status == 2
    assert "not-the-secret" not in done.output + str(done.exception) + caplog.text
