"""Checks a broker: unauthenticated clients, permissions, and topics."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from kafka import TopicPartition
from kafka.admin import (
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    OffsetSpec,
    ResourcePatternFilter,
    ResourceType,
)
from kafka.errors import ClusterAuthorizationFailedError, KafkaError, SecurityDisabledError

from srp4ctr.ops.doctor import check_result as result
from srp4ctr.ops.doctor.check_result import Finding, is_open, is_wrong, not_checked, ok
from srp4ctr.ops.kafka_acl import ALL_TOPICS
from srp4ctr.settings import Settings
from srp4ctr.streams.broker.clients import connect, opened, tls_context
from srp4ctr.streams.broker.topics import (
    beginning_offsets,
    committed_offsets,
    end_offsets,
)
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC

_ANONYMOUS_MS = 3000
_CLOSE = "docs/security.md: kafka.security_protocol SASL_SSL on both sides"
_ANY_RULE = ACLFilter(
    None,
    None,
    ACLOperation.ANY,
    ACLPermissionType.ANY,
    ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
)


def anonymous(settings: Settings) -> Iterator[Finding]:
    """Yield whether the broker lets clients in without a name, plainly or over TLS."""
    kafka, check = settings.kafka, "kafka access"
    if kafka.security_protocol == "SASL_PLAINTEXT":
        yield is_open(check, "passwords and events are not encrypted", _CLOSE)
    if not any(result.answers(*result.split(address)) for address in kafka.addresses):
        yield not_checked(check, f"nothing answers at {kafka.bootstrap}")
        return
    ways = ("PLAINTEXT", "SSL") if kafka.has_tls else ("PLAINTEXT",)
    let_in = [name for name in ways if _lets_in(kafka, name)]
    away = [a for a in kafka.addresses if result.reached_at(*result.split(a))]
    if not let_in:
        yield ok(check, f"{kafka.bootstrap} lets nobody in without a name")
    elif away:
        found = f"every client of {kafka.bootstrap} may read and write ({let_in[0]})"
        yield is_open(check, found, _CLOSE)
    else:
        found = "no authentication, but on 127.0.0.1 only: users of this machine get in"
        yield ok(check, found)


def rules(settings: Settings) -> Iterator[Finding]:
    """Yield whether a user's permissions are limited by rules."""
    check = "kafka rules"
    if not settings.kafka.has_sasl:
        return
    try:
        with closing(connect(KafkaAdminClient, settings.kafka)) as admin:
            found, error = admin.describe_acls(_ANY_RULE)
        if getattr(error, "errno", 0):
            raise error
    except SecurityDisabledError:
        yield is_open(
            check,
            "the broker has no authorizer: every user may read and write all topics",
            "authorizer.class.name, as in streams/kafka.properties; srp4ctr stack init",
        )
    except ClusterAuthorizationFailedError:
        yield ok(check, "the broker has an authorizer, and hides its rules from us")
    else:
        yield from of_rules(settings.kafka, [str(acl.principal) for acl in found])


def of_rules(kafka: KafkaConfig, principals: list[str]) -> Iterator[Finding]:
    """Yield whether rules are for all users, or visible to an ordinary user."""
    if "User:*" in principals:
        do = "srp4ctr stack init sets the rules; delete those of User:*"
        yield is_open("kafka rules", "a rule allows something to everybody, User:*", do)
    else:
        yield ok("kafka rules", f"{len(principals)} rules, none of them for everybody")
    if kafka.sasl_username == "admin":
        return
    yield is_open(
        "kafka rules",
        f"{kafka.sasl_username} may see the broker's rules: more than it needs",
        "give it only the rights in srp4ctr/ops/kafka_acl.py",
    )


def topics(settings: Settings) -> Iterator[Finding]:
    """Yield whether the topics exist, with the number of partitions of the settings."""
    admin = connect(KafkaAdminClient, settings.kafka)
    try:
        there = set(admin.list_topics())
        missing = [name for name in ALL_TOPICS if name not in there]
        if missing:
            found = f"missing, or not visible to us: {', '.join(missing)}"
            yield is_wrong("topics", found, "srp4ctr stack init, as Kafka's admin")
        (events,) = admin.describe_topics([BEHAVIOR_EVENTS_TOPIC])
        count, wanted = len(events["partitions"]), settings.kafka.partitions
        if count != wanted and BEHAVIOR_EVENTS_TOPIC in there:
            found = f"{BEHAVIOR_EVENTS_TOPIC} has {count} partitions, the settings {wanted}"
            yield is_wrong("topics", found, _to_do_about(settings, count))
        elif not missing:
            yield ok(
                "topics", f"all {len(ALL_TOPICS)}; {count} partitions, as in the settings"
            )
        if LABELS_TOPIC in there:
            yield _newest_label(admin)
    finally:
        admin.close()


def _to_do_about(settings: Settings, count: int) -> str:
    """Return what to do: the topic has ``count`` partitions, the settings others."""
    has_events = any(end_offsets(settings.kafka, BEHAVIOR_EVENTS_TOPIC).values())
    if count < settings.kafka.partitions or not has_events:
        return f"set kafka.partitions = {count}"
    return (
        f"set kafka.partitions = {count} if the topic was created with them; if partitions "
        "were added, docs/scaling.md: another number of partitions"
    )


def unread(settings: Settings) -> Iterator[Finding]:
    """Yield whether Kafka has dropped records before workers have read them."""
    check, streams, gone = "unread records", settings.streams, dict[str, int]()
    first = beginning_offsets(settings.kafka, BEHAVIOR_EVENTS_TOPIC)
    for group in (streams.group_id, streams.log_group_id):
        read = committed_offsets(settings.kafka, group, BEHAVIOR_EVENTS_TOPIC)
        lacks = sum(max(0, first.get(p, 0) - at) for p, at in read.items())
        if lacks:
            gone[group] = lacks
    if gone:
        by_group = ", ".join(
            f"{number:,} records of {group}" for group, number in gone.items()
        )
        found = f"Kafka dropped them before they were read: {by_group}"
        yield is_wrong(check, found, "lengthen the topic's retention; srp4ctr stream run")
    else:
        yield ok(check, "Kafka has all that workers have not read")


def _newest_label(admin: KafkaAdminClient) -> Finding:
    check, newest_ms = "labels", -1
    (labels,) = admin.describe_topics([LABELS_TOPIC])
    parts = [
        TopicPartition(LABELS_TOPIC, p["partition_index"]) for p in labels["partitions"]
    ]
    try:
        partition_offsets: dict[Any, Any] = admin.list_partition_offsets(
            dict.fromkeys(parts, OffsetSpec.MAX_TIMESTAMP)
        )
        newest_ms = max((at.timestamp for at in partition_offsets.values()), default=-1)
    except KafkaError as error:  # the embedded broker does not support it
        return not_checked(
            check, f"the broker does not return the time of the last one: {error}"
        )
    if newest_ms < 0:
        return not_checked(check, "none yet", "srp4ctr stream run, and publish impressions")
    minutes = (time.time() - newest_ms / 1000) / 60
    return ok(check, f"the newest is {minutes:,.0f} minutes old")


def _lets_in(kafka: KafkaConfig, protocol: str) -> bool:
    """Return whether a client without a name can list the topics."""
    more = {"ssl_context": tls_context(kafka)} if protocol == "SSL" else {}
    try:
        client = opened(
            KafkaAdminClient,
            bootstrap_servers=kafka.addresses,
            security_protocol=protocol,
            bootstrap_timeout_ms=_ANONYMOUS_MS,
            request_timeout_ms=_ANONYMOUS_MS,
            **more,
        )
        with closing(client):
            client.list_topics()
    except KafkaError:
        return False
    return True
