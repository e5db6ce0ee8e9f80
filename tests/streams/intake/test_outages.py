"""The intake while its broker is away, and while it is stopped itself."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from srp4ctr import processes
from srp4ctr.embedded.broker import start_broker
from srp4ctr.embedded.ports import HOST, is_open, reserved_ports
from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import IntakeConfig, KafkaConfig
from srp4ctr.streams.events.codec import encode
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from srp4ctr.streams.intake import delivery
from srp4ctr.streams.intake.delivery import Delivery
from srp4ctr.testing.fault_injection.topic_reading import read_topic
from tests.builders import a_behavior, a_click
from tests.streams.intake.service import running
from tests.structure.source_tree import ROOT

pytestmark = pytest.mark.kafka
SHORT = IntakeConfig(ack_timeout_s=1.0)


@contextmanager
def own_broker(folder: Path, port: int) -> Iterator[processes.Running]:
    """Yield a broker that may be stopped."""
    folder.mkdir(exist_ok=True)
    broker = start_broker(folder, port, tied=True)
    try:
        yield broker
    finally:
        with_signal(broker, signal.SIGCONT)
        processes.stop(broker, folder)


def with_signal(broker: processes.Running, number: signal.Signals) -> None:
    if broker.is_alive():
        os.kill(broker.pid, number)
    if number == signal.SIGSTOP:
        while psutil.Process(broker.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)


def test_what_kafka_did_not_acknowledge_is_named_and_may_be_sent_again(
    tmp_path: Path,
) -> None:
    with reserved_ports(1) as (port,):
        kafka = KafkaConfig(bootstrap=f"{HOST}:{port}", partitions=1)
        with own_broker(tmp_path / "broker", port) as broker:
            ensure_topics(kafka)
            with running(kafka, SHORT) as service:
                assert service.post(encode(a_click())).status_code == 200
                with_signal(broker, signal.SIGSTOP)
                body = b"\n".join(
                    (encode(a_behavior("i2")), b"{", encode(a_behavior("i3")))
                )
                lost = service.post(body)
                assert lost.status_code == 503
                assert int(lost.headers["retry-after"]) >= 1
                said = lost.json()
                found = [(e["index"], e["event_id"], e["status"]) for e in said["events"]]
                assert found == [
                    (0, a_behavior("i2").event_id, "unacknowledged"),
                    (1, None, "rejected"),
                    (2, a_behavior("i3").event_id, "unacknowledged"),
                ]
                assert (said["accepted"], said["unacknowledged"]) == (0, 2)
                # From now on at once, without waiting for the broker.
                assert service.post(encode(a_click("i4"))).status_code == 503
                assert service.health().status_code == 503
                with_signal(broker, signal.SIGCONT)
                service.wait_until_up()
                assert service.post(body).status_code == 207
            items = [r.value for r in read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)]
            for event in (a_click(), a_behavior("i2"), a_behavior("i3")):
                assert encode(event) in items


def test_a_service_that_starts_before_its_broker_waits_for_it(tmp_path: Path) -> None:
    with reserved_ports(1) as (port,):
        kafka = KafkaConfig(bootstrap=f"{HOST}:{port}", partitions=1)
        with running(kafka, SHORT) as service:
            refused = service.post(encode(a_click()))
            assert (refused.status_code, refused.json()["unacknowledged"]) == (503, 1)
            assert service.health().json() == {"error": "no broker answers"}
            with own_broker(tmp_path / "broker", port):
                ensure_topics(kafka)
                service.wait_until_up()
                assert service.post(encode(a_click())).status_code == 200
                assert len(read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)) == 1


def test_a_broker_that_is_not_trusted_is_a_mistake(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    wrong = replace(kafka, security_protocol="SSL", ssl_ca_file=str(tmp_path / "none"))
    with pytest.raises(MistakeError, match=r"kafka\.ssl_ca_file"):
        Delivery(wrong, None, 1.0)


def test_sigterm_ends_it_when_what_is_in_progress_is_answered(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    with reserved_ports(2) as (port, metrics_port):
        process = start_command(kafka, tmp_path, port, metrics_port)
        try:
            token = wait_for_token(process, tmp_path, port)
            headers = {"Authorization": f"Bearer {token}"}
            url = f"http://{HOST}:{port}/events"

            def slowly() -> Iterator[bytes]:
                yield encode(a_click()) + b"\n"
                with httpx.Client(
                    headers=headers, timeout=60.0
                ) as other:  # until it is in progress
                    while other.post(url, content=b"").status_code != 429:
                        time.sleep(0.05)
                process.send_signal(signal.SIGTERM)
                while is_open(port):  # it listens no more
                    time.sleep(0.05)
                yield encode(a_click("i2"))

            answer = httpx.post(url, content=slowly(), headers=headers, timeout=60.0)
            assert answer.json()["accepted"] == 2
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
            said, _ = process.communicate()
    assert len(read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)) == 2
    assert token not in said
    assert "Traceback" not in said


def start_command(
    kafka: KafkaConfig, folder: Path, port: int, metrics_port: int
) -> "subprocess.Popen[str]":
    """Start ``srp4ctr events serve`` in ``folder``."""
    given = {
        "SRP4CTR_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "SRP4CTR_INTAKE__PORT": str(port),
        "SRP4CTR_INTAKE__METRICS_PORT": str(metrics_port),
        "SRP4CTR_INTAKE__MAX_REQUESTS": "1",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "srp4ctr.cli", "events", "serve"],
        cwd=folder,
        env={**os.environ, **given},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait_for_token(process: "subprocess.Popen[str]", folder: Path, port: int) -> str:
    """Return the token that the command made, once the service answers."""
    deadline = time.monotonic() + 60
    while not is_open(port):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    file = folder / ".data" / "intake_token"
    assert re.fullmatch(r"[\w-]{40,}\n", file.read_text())
    return file.read_text().strip()


def test_an_unforeseen_error_ends_no_keeper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where no file descriptor is left for the connection."""
    errors: list[Exception] = [OutageError("away"), OSError(24, "Too many open files")]

    class Connected:
        def disconnect(self) -> None: ...

    def connected(_: Delivery) -> Connected:
        if errors:
            raise errors.pop(0)
        return Connected()

    monkeypatch.setattr(Delivery, "_connected", connected)
    monkeypatch.setattr(delivery, "_CHECK_S", 0.02)
    with Delivery(KafkaConfig(), None, 1.0) as made:
        deadline = time.monotonic() + 30.0
        while made._publisher is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not errors
