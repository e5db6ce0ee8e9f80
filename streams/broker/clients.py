"""How every Kafka client connects to the brokers: addresses, TLS and SASL.

In: ``KafkaConfig``. Out: the keyword arguments that kafka-python and aiokafka share.
"""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from kafka.errors import AuthorizationError, KafkaError
from kafka.net.compat import KafkaNetClient

from srp4ctr.errors import MistakeError, OutageError, Srp4ctrError
from srp4ctr.streams.config import KafkaConfig, password_in

_CONNECT_S = 5.0
_MAKES_TOPICS = "allow_auto_create_topics"
_BOOTSTRAP_MS = 10_000  # a broker that is starting needs some seconds

_Client = TypeVar("_Client")


class RefusedError(MistakeError):
    """A broker that answers does not let us in, or is still starting: it does not say."""


def client_arguments(kafka: KafkaConfig) -> dict[str, Any]:
    """Return what any client of kafka-python or aiokafka needs to reach ``kafka``.

    Raises ``MistakeError`` for a certificate or password file that cannot be read.
    """
    arguments: dict[str, Any] = {
        "bootstrap_servers": kafka.addresses,
        "security_protocol": kafka.security_protocol,
    }
    if kafka.has_tls:
        arguments["ssl_context"] = tls_context(kafka)
    if kafka.has_sasl:
        arguments |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.sasl_username,
            "sasl_plain_password": sasl_password(kafka),
        }
    return arguments


def tls_context(kafka: KafkaConfig) -> ssl.SSLContext:
    """Return the context that checks the brokers' certificates and names."""
    try:
        return ssl.create_default_context(cafile=kafka.ssl_ca_file or None)
    except OSError as error:  # ssl.SSLError is one
        raise MistakeError(f"kafka.ssl_ca_file {kafka.ssl_ca_file}: {error}") from error


def sasl_password(kafka: KafkaConfig) -> str:
    """Return the password; raises ``MistakeError`` if its file cannot be read."""
    return password_in(
        kafka.sasl_password_file, kafka.sasl_password, "kafka.sasl_password_file"
    )


def reachable(kafka: KafkaConfig, timeout_s: float = _CONNECT_S) -> dict[str, Any]:
    """Return ``client_arguments``; raises ``OutageError`` where no broker can be reached.

    Raises ``MistakeError`` where the broker's certificate is not trusted.

    kafka-python itself retries for half a minute, then raises "NoBrokersAvailable".
    """
    arguments, errors = client_arguments(kafka), []
    failure: type[Srp4ctrError] = OutageError
    for address in kafka.addresses:
        host, _, port = address.rpartition(":")
        try:
            context = arguments.get("ssl_context")
            _connect_once(host.strip("[]"), int(port), context, timeout_s)  # [::1]
            return arguments
        except (OSError, ValueError) as error:
            errors.append(str(error))
            if isinstance(error, ssl.SSLCertVerificationError):
                failure = MistakeError
    reasons = "; ".join(errors)
    raise failure(f"no Kafka broker answers at {kafka.bootstrap}: {reasons}")


def connect(client: Callable[..., _Client], kafka: KafkaConfig, **more: Any) -> _Client:
    """Return kafka-python's ``client`` of ``kafka`` with ``more`` arguments.

    Raises ``OutageError`` where no broker answers, ``MistakeError`` where access is denied.
    """
    arguments = reachable(kafka) | more
    try:
        return opened(client, **arguments, bootstrap_timeout_ms=_BOOTSTRAP_MS)
    except KafkaError as error:  # without a reason, even for a wrong password
        names = "kafka.security_protocol"
        if kafka.has_sasl:
            names += ", kafka.sasl_mechanism, kafka.sasl_username and its password"
        raise RefusedError(
            f"the Kafka broker at {kafka.bootstrap} did not let us in: check {names} "
            f"({error})"
        ) from error


def opened(client: Callable[..., _Client], *topics: str, **arguments: Any) -> _Client:
    """Return kafka-python's ``client`` of ``topics`` and ``arguments``.

    Where it fails its sockets are closed: kafka-python 3.0 leaves them to the garbage
    collector, and a client that tries again every second in an outage collects them.
    """
    made: list[KafkaNetClient] = []

    def network(**settings: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(**settings))
        makes_topics = settings.get(_MAKES_TOPICS, True)  # 3.0.12 does not pass it on
        made[-1].cluster.config[_MAKES_TOPICS] = makes_topics
        return made[-1]

    try:
        return client(*topics, **arguments, kafka_client=network)
    except BaseException:
        for each in made:
            each.close()
        raise


@contextmanager
def connected(
    client: Callable[..., _Client], kafka: KafkaConfig, **more: Any
) -> Iterator[_Client]:
    """Yield ``connect(…)``, and close it at the end.

    What the broker does not do in the block becomes an ``OutageError``, what it forbids a
    ``MistakeError``.
    """
    connection: Any = connect(client, kafka, **more)
    try:
        yield connection
    except AuthorizationError as error:
        user = kafka.sasl_username or "a client without a name"
        raise MistakeError(
            f"the Kafka broker does not permit {user} this: {error}"
        ) from error
    except KafkaError as error:
        if not error.retriable:
            raise
        raise OutageError(
            f"the Kafka broker at {kafka.bootstrap} did not answer: {error}"
        ) from error
    finally:
        connection.close()


def _connect_once(
    host: str, port: int, context: ssl.SSLContext | None, timeout_s: float
) -> None:
    """Open a connection and close it again; with TLS, check the certificate too."""
    with socket.create_connection((host, port), timeout=timeout_s) as connection:
        if context is not None:
            context.wrap_socket(connection, server_hostname=host).close()
