"""Who may do what on Kafka: users and access rules of the real stack, set by its admin.

In: a table of users. Out: SCRAM credentials and ACLs on a broker whose StandardAuthorizer
lets nobody do what no rule allows. Setting them again changes nothing.
"""

from collections.abc import Iterator, Mapping
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
"""Of the names of our consumer groups: StreamConfig's defaults, and replay's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What one user may do; DESCRIBE comes with READ and WRITE."""

    describes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    joins_groups: bool = False
    sees_groups: bool = False


RIGHTS: Mapping[str, Rights] = {
    # Events and items, and nothing else: it can read neither those of others nor its own.
    PRODUCER: Rights(writes=(BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC)),
    # Of events it writes rebuild commands alone, where the store has lost its rows.
    "stream": Rights(
        reads=ALL_TOPICS,
        writes=(BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC, REJECTED_TOPIC),
        describes=(ITEMS_TOPIC,),
        joins_groups=True,
    ),
    # Operators' commands: rebuild, forget and replay write events, restore everything.
    "ops": Rights(reads=ALL_TOPICS, writes=ALL_TOPICS, joins_groups=True, sees_groups=True),
    # Its gate asks how far the worker is.
    "trainer": Rights(describes=ALL_TOPICS, sees_groups=True),
    "monitor": Rights(
        describes=ALL_TOPICS,
        reads=(LABELS_TOPIC, BEHAVIOR_EVENTS_TOPIC),
        sees_groups=True,
    ),
}
# With ``monitoring.probe_interval_s`` the monitor acts as a synthetic user.
PROBE = Rights(writes=(BEHAVIOR_EVENTS_TOPIC,))


def grant(
    kafka: KafkaConfig, passwords: Mapping[str, str], *, probes: bool = False
) -> list[str]:
    """Let the users in ``passwords`` in by SCRAM, with the rights of ``RIGHTS``.

    ``kafka`` is reached as its admin. Returns the users. Raises ``ValueError`` where the
    broker does not answer, or does not take a rule.
    """
    admin = connect(KafkaAdminClient, kafka)
    try:
        added = [
            UserScramCredentialUpsertion(user, ScramMechanism.SCRAM_SHA_512, password)
            for user, password in passwords.items()
        ]
        refused = {
            user: error
            for user, error in admin.alter_user_scram_credentials(added).items()
            if error is not None
        }
        rules = [rule for user in passwords for rule in rules_of(user, RIGHTS[user])]
        rules += rules_of("monitor", PROBE) if probes else []
        failed = admin.create_acls(rules)["failed"]
    finally:
        admin.close()
    if refused or failed:
        raise ValueError(
            f"the broker at {kafka.bootstrap} did not take the access rules: "
            f"{refused or failed}; is kafka.sasl_username its admin?"
        )
    return list(passwords)


def rules_of(user: str, rights: Rights) -> Iterator[ACL]:
    """Yield the rules that allow ``user`` what ``rights`` say."""
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
