"""The chart's objects are valid for Kubernetes, with every values file."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from tests.deploy.helm import (
    CHART,
    FULL,
    KUBERNETES,
    NAMESPACE,
    RELEASE,
    SERVERS,
    VALUES,
    parsed,
    rendered,
    run,
    template,
)
from tests.structure.source_tree import ROOT

# The oldest that the chart wants, and the newest whose schemas the package has.
RELEASES = ("1.27", "1.37")
# Kubernetes has no schema of these: what each must have is in their operators' documents.
OF_OPERATORS = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): {"selector", "endpoints"},
    ("monitoring.coreos.com/v1", "PrometheusRule"): {"groups"},
    ("keda.sh/v1alpha1", "ScaledObject"): {"scaleTargetRef", "triggers"},
    ("keda.sh/v1alpha1", "TriggerAuthentication"): {"secretTargetRef", "env"},
}
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def labels_in(tree: Any) -> Iterator[dict[str, str]]:
    """Yield every mapping of labels, in selectors too."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name in ("labels", "matchLabels") and isinstance(value, dict):
                yield value
            yield from labels_in(value)
    elif isinstance(tree, list):
        for each in tree:
            yield from labels_in(each)


def test_there_are_values_for_a_try_for_production_and_for_gpus() -> None:
    assert set(VALUES) == {"try", "production", "gpu"}


@pytest.mark.parametrize("values", sorted(VALUES))
def test_helm_finds_nothing_wrong(values: str) -> None:
    done = run("lint", CHART, "--strict", "--values", VALUES[values])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout + done.stderr


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("values", sorted(VALUES))
def test_every_object_is_of_kubernetes_schema(values: str, release: str) -> None:
    objects = rendered(values).objects
    assert len(objects) > 20
    for each in objects:
        if (each["apiVersion"], each["kind"]) in OF_OPERATORS:
            continue
        kubernetes_validate.validate(each, release, strict=True)


def test_an_object_that_kubernetes_does_not_know_is_found() -> None:
    wrong = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "dat": {}}
    with pytest.raises(kubernetes_validate.ValidationError, match="dat"):
        kubernetes_validate.validate(wrong, RELEASES[-1], strict=True)


def test_objects_of_operators_have_what_those_want() -> None:
    met = set()
    for each in rendered("production").objects:
        kind = (each["apiVersion"], each["kind"])
        if kind in OF_OPERATORS:
            met.add(kind)
            assert set(each["spec"]) >= OF_OPERATORS[kind]
    assert met == OF_OPERATORS.keys()


@pytest.mark.parametrize("values", sorted(VALUES))
@pytest.mark.parametrize(
    "release", ["x", "srp4ctr", "a.b", "a-release-with-a-name-of-53-letters-" + 17 * "x"]
)
def test_names_fit_whatever_the_release_is_called(values: str, release: str) -> None:
    made = parsed(template("--values", VALUES[values], release=release))
    for each in made.objects:
        name = each["metadata"]["name"]
        longest = 52 if each["kind"] in ("CronJob", "StatefulSet") else 63
        assert NAME.fullmatch(name), name
        assert len(name) <= longest, name
        for labels in labels_in(each):
            assert all(LABEL.fullmatch(value) for value in labels.values()), labels


def test_two_releases_in_one_namespace_share_no_object() -> None:
    names = [
        {(o["kind"], o["metadata"]["name"]) for o in parsed(made).objects}
        for made in (
            template("--values", VALUES["production"], release="a"),
            template("--values", VALUES["production"], release="b"),
            template("--values", VALUES["production"], release=52 * "a" + "b"),
            template("--values", VALUES["production"], release=52 * "a" + "c"),
        )
    ]
    assert sum(map(len, names)) == len(set.union(*names))


def test_objects_are_where_the_release_is() -> None:
    made = rendered("production")
    assert not any("namespace" in each["metadata"] for each in made.objects)
    assert "-triton-pods.shop.svc:8001" in json.dumps(made.objects)


@pytest.mark.parametrize("values", sorted(VALUES))
def test_selectors_find_their_own_pods_and_no_others(values: str) -> None:
    made = rendered(values)
    pods = {name: pod["metadata"]["labels"] for name, pod in made.pods().items()}
    for each in made.objects:
        if each["kind"] in ("Deployment", "StatefulSet"):
            wanted = each["spec"]["selector"]["matchLabels"]
        elif each["kind"] == "Service":
            wanted = each["spec"]["selector"]
        elif each["kind"] == "PodDisruptionBudget":
            wanted = each["spec"]["selector"]["matchLabels"]
        else:
            continue
        names = [name for name, has in pods.items() if wanted.items() <= has.items()]
        assert len(names) == 1, (each["kind"], each["metadata"]["name"], names)


def test_what_is_mounted_is_a_volume_and_each_volume_is_mounted() -> None:
    for values in VALUES:
        for name, pod in rendered(values).pods().items():
            spec = pod["spec"]
            containers = spec["containers"] + spec.get("initContainers", [])
            mounted = {m["name"] for c in containers for m in c["volumeMounts"]}
            had = {volume["name"] for volume in spec.get("volumes", [])}
            of_claims = {*SERVERS} & {name.rpartition("-")[2]}
            assert mounted == had | of_claims, name


def test_rules_are_those_of_prometheus_here() -> None:
    for path in (ROOT / "monitoring" / "rules").glob("*.yml"):
        made = rendered("production").one("PrometheusRule", path.stem)
        assert made["spec"] == yaml.safe_load(path.read_text(encoding="utf-8"))
        assert made["metadata"]["labels"]["release"] == "prometheus"


def test_dashboards_are_those_of_grafana_here() -> None:
    made = rendered("production").all("ConfigMap")
    boards = [o for o in made.values() if "grafana_dashboard" in o["metadata"]["labels"]]
    found = {name: text for board in boards for name, text in board["data"].items()}
    folder = ROOT / "monitoring" / "grafana" / "dashboards"
    assert found == {path.name: path.read_text() for path in folder.glob("*.json")}
    assert all(
        len(json.dumps(board)) < 250_000 for board in boards
    )  # an annotation's limit


def test_prometheus_scrapes_each_part_under_the_name_that_rules_say() -> None:
    monitors = rendered("production").all("ServiceMonitor")
    scrapes = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text())
    jobs = {config["job_name"] for config in scrapes["scrape_configs"]}
    assert set(monitors) == {f"{FULL}-{job}" for job in jobs}
    services = rendered("production").all("Service").values()
    for monitor in monitors.values():
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        (service,) = [s for s in services if wanted <= s["metadata"]["labels"].items()]
        job = service["metadata"]["labels"][monitor["spec"]["jobLabel"]]
        assert monitor["metadata"]["name"] == f"{FULL}-{job}"
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        assert endpoint["interval"] == scrapes["global"]["scrape_interval"]


def test_keda_follows_the_workers_own_lag() -> None:
    made = rendered("production")
    (trigger,) = made.one("ScaledObject", "stream")["spec"]["triggers"]
    stream = StreamConfig()
    assert trigger["metadata"]["consumerGroup"] == stream.group_id
    assert trigger["metadata"]["topic"] == BEHAVIOR_EVENTS_TOPIC
    spec = made.one("TriggerAuthentication", "stream")["spec"]
    assert {each["name"] for each in spec["secretTargetRef"]} == {
        "srp4ctr",
        "events-cluster-ca-cert",
    }
    (username,) = spec["env"]
    (container,) = made.pod("stream")["spec"]["containers"]
    assert username["containerName"] == container["name"]
    assert username["name"] in {each["name"] for each in container["env"]}
    assert "replicas" not in made.one("Deployment", "stream")["spec"]


def test_a_package_carries_the_linked_files(tmp_path: Path) -> None:
    done = run("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.iterdir()
    where = ("--namespace", NAMESPACE, "--kube-version", KUBERNETES)
    made = run("template", RELEASE, archive, *where, "--values", VALUES["production"])
    assert made.stdout == template("--values", VALUES["production"]).stdout
