"""Every client over TLS with name and password, on an Apache Kafka that demands both."""

import gc
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from srp4ctr import processes
from srp4ctr.embedded import apache_kafka
from srp4ctr.embedded.ports import HOST, reserved_ports
from srp4ctr.errors import MistakeError
from srp4ctr.monitoring.collector.consumer_lag import WorkerProgressReader
from srp4ctr.monitoring.collector.topic_readers import LabelReader
from srp4ctr.ops.doctor import kafka as doctor_kafka
from srp4ctr.settings import Settings
from srp4ctr.streams.broker import producer
from srp4ctr.streams.broker.clients import client_arguments
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.streams.events.schema import REJECTED_TOPIC
from srp4ctr.testing.fault_injection.topic_reading import read_topic
from tests.builders import a_behavior, an_impression, an_item
from tests.certificates import make_certificates
from tests.streams.worker_process import COUNTED, start, wait_until_counted

USER, PASSWORD = "ann", 's3cret, "1e5"='
PLAIN_USER, PLAIN_PASSWORD = "bob", "plain-s3cret"
MODULE = "org.apache.kafka.common.security"
MISSING = apache_kafka.missing_tools()
MISSING += [] if shutil.which("openssl") else ["openssl"]
needs_apache_kafka = pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}")
SECURED = KafkaConfig(
    security_protocol="SASL_SSL", sasl_username=USER, sasl_password=PASSWORD
)


def secured(keystore: Path, plain: int, controller: int, port: int) -> dict[str, str]:
    """Return the properties of a broker with one more listener, ``CLIENTS``."""
    names = ("PLAINTEXT", plain), ("CONTROLLER", controller), ("CLIENTS", port)
    listeners = [f"{name}://{HOST}:{number}" for name, number in names]
    clients = "listener.name.clients"
    scram = f"{MODULE}.scram.ScramLoginModule required;"
    return {
        "listeners": ",".join(listeners),
        "advertised.listeners": f"{listeners[0]},{listeners[2]}",
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,CLIENTS:SASL_SSL"
        ),
        "inter.broker.listener.name": "PLAINTEXT",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keystore),
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        f"{clients}.scram-sha-256.sasl.jaas.config": scram,
        f"{clients}.scram-sha-512.sasl.jaas.config": scram,
        f"{clients}.plain.sasl.jaas.config": (
            f"{MODULE}.plain.PlainLoginModule required "
            f'user_{PLAIN_USER}="{PLAIN_PASSWORD}";'
        ),
    }


def add_user(bootstrap: str) -> None:
    """Let ``USER`` in by both kinds of SCRAM."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    for kind in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
        added = UserScramCredentialUpsertion(USER, kind, PASSWORD)
        assert admin.alter_user_scram_credentials([added]) == {USER: None}
    admin.close()


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaConfig]:
    """Yield how to reach a broker that takes names and passwords over TLS only."""
    folder = tmp_path_factory.mktemp("secured")
    certificates = make_certificates(folder)
    with reserved_ports(3) as (plain, controller, port):
        properties = secured(certificates.keystore, plain, controller, port)
        broker = apache_kafka.start(folder, plain, controller, tied=True, more=properties)
    (folder / "password").write_text(f"{PASSWORD}\n")
    try:
        add_user(f"{HOST}:{plain}")
        yield replace(
            SECURED,
            bootstrap=f"{HOST}:{port}",
            partitions=2,
            ssl_ca_file=str(certificates.authority),
            sasl_password="",
            sasl_password_file=str(folder / "password"),
        )
    finally:
        processes.stop(broker, folder)
        gc.collect()


def work_once(kafka: KafkaConfig, folder: Path, *counted: str) -> None:
    """Run a worker until its metrics have ``counted``, and then stop it."""
    with reserved_ports(1) as (port,):
        pass
    worker = start(kafka, port, folder)
    try:
        wait_until_counted(port, counted)
        worker.terminate()
        assert worker.wait(timeout=30) == 0
    finally:
        worker.kill()
        worker.wait()


@needs_apache_kafka
@pytest.mark.kafka
def test_a_worker_and_the_monitor_have_access(kafka: KafkaConfig, tmp_path: Path) -> None:
    now_ms = time.time_ns() // 1_000_000
    ensure_topics(kafka)
    with EventPublisher(kafka) as events:
        events.publish(an_impression(at_ms=now_ms - 3_600_000), backfill=True)
        events.publish(a_behavior(at_ms=now_ms))
        events.publish(an_item(at_ms=now_ms))
        events.publish_raw(b"{", key=b"u1")
    work_once(kafka, tmp_path, *COUNTED, 'srp4ctr_labels_total{clicked="false"} 1.0')
    assert [record.value for record in read_topic(kafka, REJECTED_TOPIC)] == [b"{"]
    with EventPublisher(kafka) as events:
        events.publish(a_behavior(at_ms=now_ms + 1))
    work_once(kafka, tmp_path, COUNTED[0])  # after a replay of what was committed
    reader = LabelReader(kafka)
    while not (labels := reader.read().labels):
        time.sleep(0.1)
    reader.close()
    assert [label.label.user_id for label in labels] == ["u1"]
    watch = WorkerProgressReader(kafka, StreamConfig().group_id)
    assert not watch.read().is_running
    watch.close()


@needs_apache_kafka
@pytest.mark.kafka
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN"])
def test_the_other_mechanisms_have_access(kafka: KafkaConfig, mechanism: str) -> None:
    if mechanism == "PLAIN":
        kafka = replace(kafka, sasl_password=PLAIN_PASSWORD)
        kafka = replace(kafka, sasl_username=PLAIN_USER)
    ensure_topics(replace(kafka, sasl_mechanism=mechanism))


@needs_apache_kafka
@pytest.mark.kafka
def test_a_wrong_password_is_an_error_that_says_what_to_check(kafka: KafkaConfig) -> None:
    wrong = replace(kafka, sasl_password="not-it")
    with pytest.raises(ValueError, match=r"did not let us in.*sasl_username") as error:
        ensure_topics(wrong)
    assert "not-it" not in str(error.value)


@needs_apache_kafka
@pytest.mark.kafka
def test_an_untrusted_certificate_is_refused_at_once(kafka: KafkaConfig) -> None:
    with pytest.raises(ValueError, match="CERTIFICATE_VERIFY_FAILED"):
        ensure_topics(replace(kafka, ssl_ca_file=""))


@needs_apache_kafka
@pytest.mark.kafka
def test_a_clock_that_runs_ahead_is_an_error_that_says_what_to_do(
    kafka: KafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead_ms = time.time_ns() // 1_000_000 + 600_000
    monkeypatch.setattr(producer, "now_ms", lambda: ahead_ms)
    ensure_topics(kafka)
    for event in (a_behavior(at_ms=ahead_ms), an_item(at_ms=ahead_ms)):
        with (
            pytest.raises(MistakeError, match=r"clock \(NTP\), then publish again"),
            EventPublisher(kafka) as ahead,
        ):
            ahead.publish(event, backfill=True)


@needs_apache_kafka
@pytest.mark.kafka
def test_the_doctor_says_that_every_user_of_this_broker_may_do_all(
    kafka: KafkaConfig,
) -> None:
    (found,) = doctor_kafka.rules(Settings(kafka=kafka))
    assert found.state == "open"
    assert found.found.startswith("the broker has no authorizer")


def test_a_plain_broker_needs_an_address_alone() -> None:
    assert client_arguments(KafkaConfig(bootstrap="a:1, b:2")) == {
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "PLAINTEXT",
    }


def test_a_password_is_in_no_repr() -> None:
    assert PASSWORD not in repr(SECURED)


def test_a_password_s_file_may_end_with_a_line(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(" two words \n")
    config = replace(SECURED, sasl_password="", sasl_password_file=str(path))
    assert client_arguments(config)["sasl_plain_password"] == " two words "


def test_a_missing_password_file_is_an_error_that_names_it() -> None:
    config = replace(SECURED, sasl_password="", sasl_password_file="nowhere")
    with pytest.raises(ValueError, match=r"kafka.sasl_password_file nowhere: No such"):
        client_arguments(config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"security_protocol": "TLS"}, "one of PLAINTEXT, SSL"),
        ({"security_protocol": "SASL_SSL"}, "needs kafka.sasl_username"),
        ({"sasl_username": "ann"}, "SASL_SSL would use it"),
        ({"ssl_ca_file": "ca.pem"}, "nothing would be encrypted"),
        ({"sasl_mechanism": "GSSAPI"}, "one of PLAIN, SCRAM"),
    ],
)
def test_half_of_a_security_setting_is_an_error(
    values: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        KafkaConfig(**values)  # type: ignore[arg-type]
