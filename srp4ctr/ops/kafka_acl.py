"""Sets the permissions of Kafka's users in the real stack: SCRAM credentials and ACLs.

The broker's StandardAuthorizer denies everything that no rule allows. Setting the rules is
idempotent.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from srp4ctr.errors import MistakeError
from srp4ctr.streams.broker.clients import connect
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    LABELS_TOPIC,
    REJECTED_TOPIC,
)

ALL_TOPICS = (BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC, REJECTED_TOPIC)
PRODUCER = "producer"
GROUP_PREFIX = "srp4ctr-"
"""Prefix of our consumer groups: StreamConfig's defaults, and replay's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """The permissions of one user; READ and WRITE include DESCRIBE."""

    describes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    joins_groups: bool = False
    sees_groups: bool = False


RIGHTS: Mapping[str, Rights] = {
    # It can write events and items, and read nothing, its own events included.
    PRODUCER: Rights(writes=(BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC)),
    # Of the HTTP intake, for producers without Kafka.
    "intake": Rights(writes=(BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC)),
    # Of events it writes only rebuild commands, where the store has lost its rows.
    "stream": Rights(
        reads=ALL_TOPICS,
        writes=(BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC, REJECTED_TOPIC),
        describes=(ITEMS_TOPIC,),
        joins_groups=True,
    ),
    # Operators' commands: rebuild, forget and replay write events, restore everything.
    "ops": Rights(reads=ALL_TOPICS, writes=ALL_TOPICS, joins_groups=True, sees_groups=True),
    # Its gate reads the worker's offsets.
    "promoter": Rights(describes=ALL_TOPICS, sees_groups=True),
    "monitor": Rights(
        describes=ALL_TOPICS,
        reads=(LABELS_TOPIC, BEHAVIOR_EVENTS_TOPIC),
        sees_groups=True,
    ),
}
# With ``monitoring.probe_interval_s`` the monitor acts as a synthetic user.
PROBE = Rights(writes=(BEHAVIOR_EVENTS_TOPIC,))


def grant(
    kafka: KafkaConfig,
    passwords: Mapping[str, str],
    *,
    probes: bool = False,
    monitor_group: str = "",
) -> list[str]:
    """Give the users in ``passwords`` SCRAM credentials and the rights of ``RIGHTS``.

    ``kafka`` has the admin's credentials. ``monitor_group``: the consumer group by which
    monitors share partitions, "" for none. Returns the users. Raises ``MistakeError`` where
    the broker does not answer, or refuses a rule.
    """
    added = [
        UserScramCredentialUpsertion(user, ScramMechanism.SCRAM_SHA_512, password)
        for user, password in passwords.items()
    ]
    rules = [rule for user in passwords for rule in rules_of(user, RIGHTS[user])]
    rules += rules_of("monitor", PROBE) if probes else []
    if monitor_group:
        # By name and not by prefix: a member of the workers' group would stop them.
        group = ResourcePattern(ResourceType.GROUP, monitor_group)
        rules += [_allowed("monitor", ACLOperation.READ, group)]
    with closing(connect(KafkaAdminClient, kafka)) as admin:
        results = admin.alter_user_scram_credentials(added)
        refused = {user: error for user, error in results.items() if error is not None}
        failed = admin.create_acls(rules)["failed"]
    if refused or failed:
        raise MistakeError(
            f"the broker at {kafka.bootstrap} refused the access rules: "
            f"{refused or failed}; is kafka.sasl_username its admin?"
        )
    return list(passwords)


def rules_of(user: str, rights: Rights) -> Iterator[ACL]:
    """Yield the rules that give ``user`` its ``rights``."""
    operations = {
        ACLOperation.DESCRIBE: rights.describes,
        ACLOperation.READ: rights.reads,
        ACLOperation.WRITE: rights.writes,
    }
    for operation, topics in operations.items():
        for topic in topics:
            yield _allowed(user, operation, ResourcePattern(ResourceType.TOPIC, topic))
    group = ResourcePattern(
        ResourceType.GROUP, GROUP_PREFIX, ACLResourcePatternType.PREFIXED
    )
    if rights.joins_groups:
        yield _allowed(user, ACLOperation.READ, group)
    if rights.sees_groups:
        yield _allowed(user, ACLOperation.DESCRIBE, group)


def _allowed(user: str, operation: ACLOperation, resource: ResourcePattern) -> ACL:
    return ACL(f"User:{user}", "*", operation, ACLPermissionType.ALLOW, resource)
