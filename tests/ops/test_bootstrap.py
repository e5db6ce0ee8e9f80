"""``stack init``: topics, users and views of the real stack, and its model's status."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from srp4ctr.ops import bootstrap, kafka_acl
from srp4ctr.ops.bootstrap import initialize
from srp4ctr.settings import Settings
from srp4ctr.streams.broker.topics import PUBLISHED_TOPICS, ensure_topics
from srp4ctr.training.config import RefreshConfig
from srp4ctr.triton_repo.config import TritonConfig
from tests.compose import real_stack
from tests.ops.conftest import MISSING_TOOLS, ClosedKafka

NEEDED = [
    *MISSING_TOOLS,
    *(["redis-server"] if shutil.which("redis-server") is None else []),
]
needs_servers = pytest.mark.skipif(bool(NEEDED), reason=f"needs {NEEDED}")


@pytest.fixture
def as_init(
    closed_kafka: ClosedKafka, stack_files: Path, tmp_path: Path
) -> Iterator[Settings]:
    """Yield the settings of Kafka's admin who is the stream to the store."""
    with real_stack.redis(tmp_path, stack_files) as address:
        yield Settings(
            kafka=closed_kafka.known_as("admin"),
            features=real_stack.store_of(address, "stream", stack_files, tmp_path),
            training=RefreshConfig(bundles_dir=str(tmp_path / "bundles")),
            triton=TritonConfig(repository=str(tmp_path / "models")),
        )


@needs_servers
@pytest.mark.kafka
@pytest.mark.redis
def test_each_start_says_what_is_there_and_what_will_serve(
    as_init: Settings, closed_kafka: ClosedKafka, stack_files: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    initialize(as_init, stack_files, said.append)
    topics, users, views, model = said
    assert topics == "topics: all there"
    assert users == f"Kafka users: {', '.join(kafka_acl.RIGHTS)}"
    assert "user_behavior_sequence" in views
    assert model.startswith("model: none yet; Triton answers NOT_FOUND until")
    assert ensure_topics(closed_kafka.known_as("producer"), PUBLISHED_TOPICS) == []

    bundle, models = tmp_path / "bundles" / "v3", tmp_path / "models"
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").write_text("{}")
    initialize(as_init, None, said.append)
    assert said[-1] == "model: none serves; `srp4ctr model promote v3` makes it serve"
    models.mkdir()
    (models / "serving.json").write_text(json.dumps({"serving": "v3"}))
    initialize(as_init, None, said.append)
    assert said[-1] == "model: v3 serves again once Triton is up"


@needs_servers
@pytest.mark.kafka
@pytest.mark.redis
def test_a_user_without_a_password_is_an_error_that_names_the_file(
    as_init: Settings, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"--kafka-users .*kafka_producer: No such file"):
        initialize(as_init, tmp_path, lambda _: None)


@needs_servers
@pytest.mark.kafka
@pytest.mark.redis
def test_a_producer_cannot_initialize(
    as_init: Settings, closed_kafka: ClosedKafka, stack_files: Path
) -> None:
    other = as_init.model_copy(update={"kafka": closed_kafka.known_as("producer")})
    with pytest.raises(ValueError, match="`srp4ctr stack init` as Kafka's admin"):
        initialize(other, stack_files, lambda _: None)


def test_ended_by_sigterm_it_has_not_prepared_the_servers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def waiting(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    monkeypatch.setattr(bootstrap, "initialize", waiting)
    with pytest.raises(SystemExit) as end:
        bootstrap.initialize_when_up(Settings(), None, lambda _: None)
    assert end.value.code == 143
