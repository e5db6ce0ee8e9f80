"""The real stack's servers, each started once from its own configuration."""

import gc
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from srp4ctr.embedded import apache_kafka
from srp4ctr.ops import kafka_acl, stack_secrets
from srp4ctr.streams.broker.clients import connect
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import KafkaConfig
from tests.compose import real_stack

MISSING_TOOLS = apache_kafka.missing_tools()
MISSING_TOOLS += [name for name in ("openssl", "bash") if shutil.which(name) is None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedKafka:
    """A broker that lets only its users in."""

    inside: str
    outside: str
    secrets: Path

    def known_as(self, user: str, *, elsewhere: bool = False) -> KafkaConfig:
        """Return the settings of ``user``."""
        return KafkaConfig(
            bootstrap=self.outside if elsewhere else self.inside,
            partitions=1,
            security_protocol="SASL_SSL",
            ssl_ca_file=str(self.secrets / "ca.pem"),
            sasl_mechanism="PLAIN" if user == "admin" else "SCRAM-SHA-512",
            sasl_username=user,
            sasl_password_file=str(self.secrets / f"kafka_{user}"),
        )


@pytest.fixture(scope="session")
def stack_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of certificates and passwords."""
    folder = tmp_path_factory.mktemp("stack") / "secrets"
    stack_secrets.make(folder, ["rank.example.com"])
    return folder


@pytest.fixture(scope="session")
def closed_kafka(
    stack_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClosedKafka]:
    """Yield a broker whose topics exist and whose users have access."""
    folder = tmp_path_factory.mktemp("kafka")
    with real_stack.kafka(folder, stack_files) as (inside, outside):
        broker = ClosedKafka(inside=inside, outside=outside, secrets=stack_files)
        _wait_for(broker.known_as("admin"))
        ensure_topics(broker.known_as("admin"))
        users = kafka_acl.RIGHTS
        passwords = {user: (stack_files / f"kafka_{user}").read_text() for user in users}
        for _ in range(2):  # as at each start of the stack
            kafka_acl.grant(broker.known_as("admin"), passwords)
        yield broker
    gc.collect()


def _wait_for(kafka: KafkaConfig) -> None:
    deadline = time.monotonic() + 60.0
    while True:
        try:
            connect(KafkaAdminClient, kafka).close()
        except ValueError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
