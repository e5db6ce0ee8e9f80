"""How many of the project's modules one click, refresh, promotion and request run.

What has to be read to understand a path is what runs on it: `pytest -s` prints the modules,
to compare before and after a change. The paths are the real ones: broker, worker, store and
Triton, each in a process of its own.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from srp4ctr.client.rank_client import RankClient
from srp4ctr.embedded import ports, triton_server
from srp4ctr.embedded.triton_install import ServingEnv
from srp4ctr.ops import promotion_service
from srp4ctr.settings import Settings
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.broker.topics import committed_offsets
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC
from srp4ctr.streams.raw_log.delta_tables import LOGGED_TOPICS, dataset
from srp4ctr.streams.state.label_join import decode_label
from srp4ctr.testing.fault_injection.topic_reading import progress_of, read_topic, until
from srp4ctr.training.refresh.pipeline import refresh
from srp4ctr.triton_repo.config import TritonConfig
from tests.builders import a_click, an_impression
from tests.journey.tracing import Recorder, listening, recorder
from tests.live_stream import live_stream
from tests.structure.source_tree import product_files
from tests.training.conftest import RECIPE
from tests.training.logs import write_world
from tests.triton_repo.conftest import Server

pytestmark = [pytest.mark.stack, pytest.mark.kafka, pytest.mark.triton]

# What a process is called here → what its number and command have in them.
PROCESSES = {
    "here": f"{os.getpid()}: ",
    "worker": " stream run ",
    "step": "triton_python_backend_stub",
}
ANSWERING = "MainThread"  # a step's others look after its table and report its counters
LENGTH = 6


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """Record this process, and those that are started while this is in use."""
    folder, own = tmp_path_factory.mktemp("trace"), triton_server.environment

    def environment(serving: ServingEnv, plan: triton_server.ServerPlan) -> dict[str, str]:
        home = listening(serving.python.parent.parent, folder)
        found = own(serving, plan)
        return {**found, "PATH": f"{home / 'bin'}{os.pathsep}{found['PATH']}"}

    with recorder(folder) as recording, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        patch.setattr(triton_server, "environment", environment)
        yield recording


@pytest.fixture(scope="module")
def running(
    trace: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """Run a stream, and a Triton that serves nothing yet."""
    folder = tmp_path_factory.mktemp("running")
    with live_stream(folder, LENGTH) as live, ports.reserved_ports(2) as (grpc, metrics):
        plan = triton_server.ServerPlan(
            repository=folder / "triton",
            redis=live.features.redis,
            registry=live.features.registry,
            grpc_port=grpc,
            metrics_port=metrics,
        )
        triton = TritonConfig(
            grpc=f"{ports.HOST}:{grpc}", repository=str(plan.repository), instances=1
        )
        server = Server(folder, plan, triton, live.features)
        server.start()
        try:
            yield Settings(
                kafka=live.kafka,
                streams=live.streams,
                features=live.features,
                triton=triton,
            )
        finally:
            server.stop()


@pytest.fixture(scope="module")
def bundle(trace: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a tiny model that four users trained; its refresh is recorded."""
    folder = tmp_path_factory.mktemp("refresh")
    recipe = replace(
        RECIPE,
        bundles_dir=str(folder / "bundles"),
        pretrain_epochs=1,
        finetune_epochs=1,
        min_auc=0.0,
        max_calibration_error=9.0,
    )
    log = write_world(folder, users=4, visits=8)
    streams = StreamConfig(sequence_length=LENGTH)
    with trace.recording("refresh"):
        return refresh(recipe, log, streams).folder


@pytest.fixture(scope="module")
def serving(trace: Recorder, running: Settings, bundle: Path) -> Settings:
    """The running stack once it serves the bundle; the promotion is recorded."""
    with trace.recording("promotion"):
        promotion_service.check_and_promote(running, bundle)
    return running


def modules(path: str, trace: Recorder, processes: list[str], thread: str = "") -> int:
    """Return how many modules the recording of ``path`` saw; print them as they came.

    They are known by their text: a step has copies.
    """
    ours = {each.text: each.path for each in product_files()}
    found: dict[str, str] = {}
    for visit in trace.visits(path):
        where = [name for name in processes if PROCESSES[name] in visit.process]
        file = Path(visit.file)
        if where and thread in visit.thread and file.is_file():
            name = ours.get(file.read_text(errors="replace"), "")
            found.setdefault(name, f"  {name}: {visit.function} ({where[0]})")
    found.pop("", None)  # libraries and tests
    found.pop("srp4ctr/logs.py", None)  # filters any line that is logged meanwhile
    sys.stdout.write("\n".join([f"{path}: {len(found)} modules", *found.values(), ""]))
    assert found
    return len(found)


def test_one_click_from_the_producer_to_its_label(
    trace: Recorder, running: Settings
) -> None:
    at_ms, group = time.time_ns() // 1_000_000, running.streams.group_id
    log = running.features.raw_log
    with (
        progress_of(running.kafka, group, BEHAVIOR_EVENTS_TOPIC) as committed,
        EventPublisher(running.kafka) as publisher,
    ):

        def is_kept(events: int) -> bool:
            logged: int = dataset(log, BEHAVIOR_EVENTS_TOPIC).count_rows()
            return committed() == logged == events

        def have_begun() -> bool:
            """Return whether the log's group, which has most partitions, has each."""
            offsets = (
                committed_offsets(running.kafka, running.streams.log_group_id, topic)
                for topic in LOGGED_TOPICS
            )
            return all(len(offset) == running.kafka.partitions for offset in offsets)

        asyncio.run(until(have_begun))
        publisher.publish(an_impression(at_ms=at_ms))
        asyncio.run(until(lambda: is_kept(1)))
        with trace.recording("click"):
            publisher.publish(a_click(at_ms=at_ms + 1))
            asyncio.run(until(lambda: is_kept(2)))
    (record,) = read_topic(running.kafka, LABELS_TOPIC)
    assert decode_label(record.value).clicked
    assert modules("click", trace, ["here", "worker"])


def test_one_refresh_from_the_event_log_to_a_bundle(trace: Recorder, bundle: Path) -> None:
    assert list(bundle.glob("*.onnx"))
    assert modules("refresh", trace, ["here"])


def test_one_promotion_from_a_bundle_to_serving(trace: Recorder, serving: Settings) -> None:
    assert modules("promotion", trace, ["here", "step"], ANSWERING)


def test_one_request_from_the_client_to_its_scores(
    trace: Recorder, serving: Settings, bundle: Path
) -> None:
    with RankClient(serving.triton.grpc) as client:
        client.rank("nobody", ["i1"], deadline_s=30.0)  # connects
        with trace.recording("request"):
            ranking = client.rank("u1", ["i1", "i2"], deadline_s=30.0)
    assert ranking.model_version == bundle.name
    assert modules("request", trace, ["here", "step"], ANSWERING)
