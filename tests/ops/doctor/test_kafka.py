"""The doctor's checks of brokers: closed ones, open ones, other numbers of partitions."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from srp4ctr import processes
from srp4ctr.embedded import broker
from srp4ctr.embedded.ports import reserved_ports
from srp4ctr.ops.doctor import kafka
from srp4ctr.ops.doctor.check_result import answers, own_addresses
from srp4ctr.settings import Settings
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import KafkaConfig
from tests.builders import a_click
from tests.ops.conftest import MISSING_TOOLS, ClosedKafka
from tests.streams.workers import publish

pytestmark = pytest.mark.kafka
needs_apache_kafka = pytest.mark.skipif(
    bool(MISSING_TOOLS), reason=f"needs {MISSING_TOOLS}"
)


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaConfig]:
    """Yield a broker without authentication, on this machine's network address."""
    addresses, folder = own_addresses(), tmp_path_factory.mktemp("exposed")
    if not addresses:
        pytest.skip("this machine is in no network")
    with reserved_ports(1) as (port,):
        command = (*broker.broker_command(folder, port), "--host", addresses[0])
        program = processes.Program(name="broker", command=command)
        running = processes.start(program, folder, tied=True)
        processes.wait_ready(running, lambda: answers(addresses[0], port))
    yield KafkaConfig(bootstrap=f"{addresses[0]}:{port}", partitions=2)
    processes.stop(running, folder)


@needs_apache_kafka
def test_the_real_stack_s_is_closed(closed_kafka: ClosedKafka) -> None:
    settings = Settings(kafka=closed_kafka.known_as("promoter"))
    (access,) = kafka.anonymous(settings)
    (rules,) = kafka.rules(settings)
    topics, labels = kafka.topics(settings)
    assert (access.state, rules.state, topics.state) == ("ok", "ok", "ok")
    assert "lets nobody in without a name" in access.found
    assert labels.check == "labels"


@needs_apache_kafka
def test_another_number_of_partitions_than_in_the_settings_is_wrong(
    closed_kafka: ClosedKafka,
) -> None:
    other = replace(closed_kafka.known_as("promoter"), partitions=7)
    topics, _ = kafka.topics(Settings(kafka=other))
    assert topics.state == "wrong"
    assert topics.do == "set kafka.partitions = 1"


@needs_apache_kafka
def test_what_a_user_may_not_see_is_missing_for_it(closed_kafka: ClosedKafka) -> None:
    producer = Settings(kafka=closed_kafka.known_as("producer"))
    (topics,) = kafka.topics(producer)
    assert topics.state == "wrong"
    assert "missing, or not visible to us: impression-labels" in topics.found


@needs_apache_kafka
def test_rules_that_hold_for_all_users_or_are_shown_to_services_are_open(
    closed_kafka: ClosedKafka,
) -> None:
    admin = closed_kafka.known_as("admin")
    (seen,) = kafka.rules(Settings(kafka=admin))
    assert (seen.state, seen.found.partition(" ")[2]) == (
        "ok",
        "rules, none of them for everybody",
    )
    service = replace(admin, sasl_username="stream")
    found = kafka.of_rules(service, ["User:stream", "User:*"])
    assert [each.state for each in found] == ["open", "open"]


def test_a_broker_that_lets_all_in_is_open(exposed: KafkaConfig) -> None:
    (access,) = kafka.anonymous(Settings(kafka=exposed))
    assert access.state == "open"
    assert access.found.startswith(f"every client of {exposed.bootstrap} may")
    ensure_topics(exposed)
    topics, labels = kafka.topics(Settings(kafka=exposed))
    assert topics.state == "ok"
    assert labels.state == "not checked"


def test_more_partitions_than_in_the_settings_may_have_been_added(
    exposed: KafkaConfig,
) -> None:
    """The number is only to be copied where no row has offsets of another one."""
    ensure_topics(exposed)
    fewer = Settings(kafka=replace(exposed, partitions=1))
    topics, _ = kafka.topics(fewer)
    assert (topics.state, topics.do) == ("wrong", "set kafka.partitions = 2")
    publish(exposed, [a_click()])
    topics, _ = kafka.topics(fewer)
    assert topics.do.endswith(
        "if partitions were added, docs/scaling.md: another number of partitions"
    )


def test_a_password_that_is_not_encrypted_is_open(exposed: KafkaConfig) -> None:
    named = replace(
        exposed,
        security_protocol="SASL_PLAINTEXT",
        sasl_username="ann",
        sasl_password="s3cret",
    )
    first, second = kafka.anonymous(Settings(kafka=named))
    assert (first.state, second.state) == ("open", "open")
    assert first.found == "passwords and events are not encrypted"
