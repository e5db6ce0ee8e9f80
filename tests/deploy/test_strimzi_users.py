"""Kafka's users in the example for Strimzi have the rights that the project gives them."""

from typing import Any

import pytest
import yaml

from srp4ctr.ops.kafka_acl import ALL_TOPICS, RIGHTS, rules_of
from srp4ctr.ops.stack_secrets import KAFKA_USERS
from tests.deploy.helm import CHART

TEXT = (CHART / "examples" / "strimzi-users.yaml").read_text(encoding="utf-8")
USERS: dict[str, Any] = {
    each["metadata"]["name"]: each["spec"] for each in yaml.safe_load_all(TEXT) if each
}
PATTERNS = {"PREFIXED": "prefix", "LITERAL": "literal"}
Rule = tuple[str, str, str, str]


def rules_in(spec: dict[str, Any]) -> set[Rule]:
    """Return operation, kind, name and pattern of each rule."""
    assert spec["authorization"]["type"] == "simple"
    return {
        (operation, rule["resource"]["type"], rule["resource"]["name"],
         rule["resource"].get("patternType", "literal"))
        for rule in spec["authorization"]["acls"]
        for operation in rule["operations"]
    }  # fmt: skip


def test_every_user_is_there_with_the_password_of_make_secrets() -> None:
    assert set(USERS) == set(KAFKA_USERS)
    for name, spec in USERS.items():
        assert spec["authentication"]["type"] == "scram-sha-512"
        password = spec["authentication"]["password"]["valueFrom"]["secretKeyRef"]
        assert password == {"name": "srp4ctr", "key": f"kafka_{name}"}


@pytest.mark.parametrize("name", sorted(RIGHTS))
def test_a_user_has_the_same_rights(name: str) -> None:
    wanted = {
        (
            rule.operation.name.title(),
            rule.resource_pattern.resource_type.name.lower(),
            rule.resource_pattern.resource_name,
            PATTERNS[rule.resource_pattern.pattern_type.name],
        )
        for rule in rules_of(name, RIGHTS[name])
    }
    assert rules_in(USERS[name]) == wanted


def test_its_admin_may_make_the_topics_and_nothing_else() -> None:
    assert rules_in(USERS["admin"]) == {
        (operation, "topic", topic, "literal")
        for operation in ("Create", "Describe")
        for topic in ALL_TOPICS
    }
