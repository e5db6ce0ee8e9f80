"""How every Kafka client reaches the brokers: addresses, TLS and SASL, said once.

In: ``KafkaConfig``. Out: the keyword arguments that kafka-python and aiokafka share.
"""

import socket
import ssl
from typing import Any

from streams.config import KafkaConfig, password_in

_CONNECT_S = 5.0


def client_arguments(kafka: KafkaConfig) -> dict[str, Any]:
    """Return what any client of kafka-python or aiokafka needs to reach ``kafka``.

    Raises ``ValueError`` for a certificate or password file that cannot be read.
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
    """Return what checks the brokers' certificates and names."""
    try:
        return ssl.create_default_context(cafile=kafka.ssl_ca_file or None)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"kafka.ssl_ca_file {kafka.ssl_ca_file}: {error}") from error


def sasl_password(kafka: KafkaConfig) -> str:
    """Return the password; raises ``ValueError`` if its file cannot be read."""
    return password_in(
        kafka.sasl_password_file, kafka.sasl_password, "kafka.sasl_password_file"
    )


def reachable(kafka: KafkaConfig, timeout_s: float = _CONNECT_S) -> dict[str, Any]:
    """Return ``client_arguments``; raises ``ValueError`` where no broker accepts anyone.

    kafka-python itself retries for half a minute and then says "NoBrokersAvailable".
    """
    errors = []
    for address in kafka.addresses:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=timeout_s).close()
            return client_arguments(kafka)
        except (OSError, ValueError) as error:
            errors.append(str(error))
    reasons = "; ".join(errors)
    raise ValueError(f"no Kafka broker answers at {kafka.bootstrap}: {reasons}")
