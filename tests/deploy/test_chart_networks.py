"""Pods reach exactly those that compose.yaml's networks allow."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.compose.real_stack import SERVICES
from tests.deploy.helm import ROLES as OURS
from tests.deploy.helm import SERVERS, WITH_SERVERS, Rendered, parsed, rendered, template

ROLES = OURS + SERVERS
Labels = Mapping[str, str]


@pytest.fixture(scope="module")
def chart() -> Rendered:
    return parsed(template(*WITH_SERVERS))


def selects(selector: Mapping[str, Any], labels: Labels) -> bool:
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def policies_of(chart: Rendered, labels: Labels, kind: str) -> list[dict[str, Any]]:
    """Return the policies that close a pod for one direction."""
    return [
        each["spec"]
        for each in chart.all("NetworkPolicy").values()
        if kind in each["spec"]["policyTypes"]
        and selects(each["spec"]["podSelector"], labels)
    ]


def lets(chart: Rendered, labels: Labels, other: Labels, way: tuple[str, str, str]) -> bool:
    """Return whether a rule of the pod's own policies names the other pod."""
    kind, rules, peers = way
    return any(
        selects(peer["podSelector"], other)
        for spec in policies_of(chart, labels, kind)
        for rule in spec.get(rules, [])
        for peer in rule.get(peers, [])
        if "podSelector" in peer and "namespaceSelector" not in peer
    )


def reaches(chart: Rendered, one: Labels, other: Labels) -> bool:
    return lets(chart, one, other, ("Egress", "egress", "to")) and lets(
        chart, other, one, ("Ingress", "ingress", "from")
    )


def test_pods_reach_those_that_they_share_a_network_with_in_compose(
    chart: Rendered,
) -> None:
    labels = {role: chart.pod(role)["metadata"]["labels"] for role in ROLES}
    networks = {role: set(SERVICES[role]["networks"]) for role in ROLES}
    for one in ROLES:
        for other in ROLES:
            wanted = bool(networks[one] & networks[other])
            assert reaches(chart, labels[one], labels[other]) is wanted, (one, other)


def test_a_pod_is_in_the_same_networks(chart: Rendered) -> None:
    for role in ROLES:
        labels = chart.pod(role)["metadata"]["labels"]
        prefix = "srp4ctr/network-"
        found = {name.removeprefix(prefix) for name in labels if name.startswith(prefix)}
        assert found == set(SERVICES[role]["networks"]), role


def test_no_pod_of_the_release_is_open_or_may_leave() -> None:
    for values in ("try", "production", "gpu"):
        made = rendered(values)
        for name, pod in made.pods().items():
            labels = pod["metadata"]["labels"]
            for kind in ("Ingress", "Egress"):
                assert policies_of(made, labels, kind), name


def test_another_release_cannot_be_reached(chart: Rendered) -> None:
    other = parsed(template(*WITH_SERVERS, release="other"))
    ours = chart.pod("stream")["metadata"]["labels"]
    pods = {name: pod["metadata"]["labels"] for name, pod in other.pods().items()}
    assert not any(reaches(chart, ours, theirs) for theirs in pods.values())


def open_ports(chart: Rendered, role: str) -> dict[Any, Any]:
    """Return the ports of a role that outsiders may reach: port → their addresses."""
    pod = chart.pod(role)
    labels = pod["metadata"]["labels"]
    has = {p["name"] for c in pod["spec"]["containers"] for p in c.get("ports", [])}
    return {
        port["port"]: rule.get("from", "any client")
        for spec in policies_of(chart, labels, "Ingress")
        for rule in spec.get("ingress", [])
        for port in rule.get("ports", [])
        if port["port"] in has
    }


def test_from_elsewhere_callers_reach_triton_and_prometheus_the_metrics() -> None:
    made = rendered("production")

    def named(name: str) -> list[dict[str, Any]]:
        labels = {"kubernetes.io/metadata.name": name}
        return [{"namespaceSelector": {"matchLabels": labels}}]

    shop, prometheus = named("shop"), named("monitoring")
    assert open_ports(made, "triton") == {"grpc": shop, "metrics": prometheus}
    for role in ("stream", "monitor"):
        assert open_ports(made, role) == {"metrics": prometheus}
    assert open_ports(made, "intake") == {"events": "any client", "metrics": prometheus}
    for role in ("trainer", "promoter", "ops", "init"):
        assert open_ports(made, role) == {}


def test_producers_reach_the_bundled_kafka_by_its_outer_listener(chart: Rendered) -> None:
    assert open_ports(chart, "kafka") == {"outside": "any client"}
    assert all(open_ports(chart, role) == {} for role in ("redis", "postgres", "objects"))


def test_the_clusters_own_servers_are_reached_on_their_ports_alone() -> None:
    made = rendered("production")
    labels = made.pod("stream")["metadata"]["labels"]
    outside = {
        tuple(port["port"] for port in rule["ports"]): rule["to"]
        for spec in policies_of(made, labels, "Egress")
        for rule in spec["egress"]
        if "ports" in rule
    }
    assert set(outside) == {(53, 53), (9093,), (6379,), (5432,), (9000,)}
    for role, allowed in (("monitor", {9093, 9000}), ("trainer", {9000, 5432})):
        assert ports_outside(made, role) == {53} | allowed


def ports_outside(chart: Rendered, role: str) -> set[int]:
    """Return the ports of other servers that a role may reach."""
    labels = chart.pod(role)["metadata"]["labels"]
    return {
        port["port"]
        for spec in policies_of(chart, labels, "Egress")
        for rule in spec["egress"]
        for port in rule.get("ports", [])
    }
