"""The chart's containers are compose.yaml's: same images, commands, settings and rights."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from srp4ctr import settings
from tests.compose.real_stack import COMPOSE, DEFAULTED, ROOT, SERVICES, settings_of
from tests.deploy.helm import (
    FULL,
    ROLES,
    SERVERS,
    WITH_SERVERS,
    Rendered,
    parsed,
    rendered,
    template,
)
from tests.structure.source_tree import PROJECT

# Where a pod is, and what only Kubernetes knows.
ADDRESSES = {
    "SRP4CTR_TRITON__GRPC",
    "SRP4CTR_TRITON__METRICS_URL",
    "SRP4CTR_TRITON__REPOSITORY",
    "SRP4CTR_INTAKE__HOST",
    "SRP4CTR_MONITORING__TLS_ENDPOINTS",
}
OF_KUBERNETES = {"POD", "SRP4CTR_SETTINGS", "PGDATA"}
UNITS = {"m": "Mi", "g": "Gi"}


@pytest.fixture(scope="module")
def chart() -> Rendered:
    """The chart as it is, with the bundled servers."""
    return parsed(template(*WITH_SERVERS))


def container(chart: Rendered, role: str) -> dict[str, Any]:
    (found,) = chart.pod(role)["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def environment(found: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in found.get("env", []) if "value" in each}


def size(text: str) -> str:
    """Return a size of compose, or a setting's default, as Kubernetes writes it."""
    size = text.split(":-")[-1].rstrip("}")
    return f"{size[:-1]}{UNITS[size[-1]]}"


def cpus(text: str) -> float:
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def test_every_service_of_compose_has_a_pod_or_belongs_to_the_cluster() -> None:
    own = {"prometheus", "alertmanager", "grafana"}
    variants = {name for name in SERVICES if name.endswith("-gpu")}
    assert set(SERVICES) - own - variants == {*ROLES, *SERVERS}


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((ROOT / "deploy/helm/srp4ctr/Chart.yaml").read_text())
    assert chart["appVersion"] == PROJECT["version"] == chart["version"]


@pytest.mark.parametrize("role", ROLES + SERVERS)
def test_images_are_the_same(chart: Rendered, role: str) -> None:
    assert container(chart, role)["image"] == SERVICES[role]["image"]


@pytest.mark.parametrize("role", ROLES + SERVERS)
def test_the_command_is_the_same(chart: Rendered, role: str) -> None:
    found, service = container(chart, role), SERVICES[role]
    command = service.get("command", [])
    if role == "trainer":  # a CronJob's schedule repeats it
        assert command[-2:] == ["--every", "1h"]
        command = command[:-2]
    if role == "ops":  # it waits for what is typed into it
        assert "sleep" in found["command"][-1]
        return
    assert found.get("command", []) == service.get("entrypoint", [])
    assert found["args"] == command


@pytest.mark.parametrize("role", ROLES + SERVERS)
def test_the_environment_is_the_same_but_for_where_triton_is(
    chart: Rendered, role: str
) -> None:
    found = environment(container(chart, role))
    for name in OF_KUBERNETES:
        found.pop(name, None)
    wanted = {
        name: DEFAULTED.sub(r"\1", str(value))
        for name, value in SERVICES[role].get("environment", {}).items()
    }
    assert found.keys() == wanted.keys()
    differing = {name for name in wanted if found[name] != wanted[name]}
    assert differing <= ADDRESSES


@pytest.mark.parametrize("role", [role for role in ROLES if role != "triton"])
def test_the_settings_are_read_and_name_every_triton(
    role: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    made = rendered("production")
    text = made.one("ConfigMap", "settings")["data"]["settings.toml"]
    (tmp_path / "settings.toml").write_text(text)
    found = environment(container(made, role))
    found["SRP4CTR_SETTINGS"] = str(tmp_path / "settings.toml")
    ours = settings_of({"environment": found}, monkeypatch)
    servers = ours.triton.servers()
    triton = made.one("StatefulSet", "triton")
    pods = [f"{FULL}-triton-{n}" for n in range(triton["spec"]["replicas"])]
    domain = f"{triton['spec']['serviceName']}.shop.svc"
    assert [server.grpc for server in servers] == [f"{pod}.{domain}:8001" for pod in pods]
    assert [server.repository for server in servers] == [f"/models/{pod}" for pod in pods]
    assert ours.triton.metrics_pages() == {
        f"{pod}.{domain}:8001": f"http://{pod}.{domain}:8002/metrics" for pod in pods
    }
    assert "metrics_url" in text  # the chart says it of each, as no default can
    assert ours.kafka.partitions == 24
    assert isinstance(ours, settings.Settings)


def test_a_triton_pod_serves_its_own_folder_and_fills_it_before() -> None:
    spec = rendered("production").pod("triton")["spec"]
    (triton,), (fill,) = spec["containers"], spec["initContainers"]
    (own,) = [m for m in triton["volumeMounts"] if m["name"] == "models"]
    assert (own["mountPath"], own["subPathExpr"]) == ("/models", "$(POD)")
    assert fill["args"] == ["model", "fill", "/models/$(POD)"]
    assert fill["image"] == triton["image"]
    assert "secrets" not in {m["name"] for m in fill["volumeMounts"]}
    # It has no key of the bucket: it reads the promoter's copies.
    assert environment(fill)["SRP4CTR_TRAINING__BUNDLES_URI"] == ""
    copies = environment(fill)["SRP4CTR_TRAINING__BUNDLES_DIR"]
    for each in (fill, container(rendered("production"), "promoter")):
        assert environment(each)["SRP4CTR_TRAINING__BUNDLES_DIR"] == copies
        assert {"data": "/data"}.items() <= {
            m["name"]: m["mountPath"] for m in each["volumeMounts"]
        }.items()
    probe = triton["readinessProbe"]["exec"]["command"]
    assert probe[1:3] == ["-m", "srp4ctr.ops.triton.readiness"]
    assert probe[3] in triton["args"][-1]
    assert probe[4] == own["mountPath"]
    assert probe[0] in triton["args"][-1]  # the interpreter that has our code


def files_in(pod: dict[str, Any]) -> set[str]:
    (secrets,) = [v for v in pod["spec"]["volumes"] if v["name"] == "secrets"]
    return {
        item["path"]
        for source in secrets["projected"]["sources"]
        for item in source["secret"]["items"]
    }


@pytest.mark.parametrize("role", ROLES + SERVERS)
def test_a_pod_sees_the_secrets_that_compose_gives_it(chart: Rendered, role: str) -> None:
    assert files_in(chart.pod(role)) == set(SERVICES[role]["secrets"])


def test_every_secret_is_an_existing_one() -> None:
    for values in ("try", "production", "gpu"):
        assert rendered(values).all("Secret") == {}


def volumes_of(service: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Yield a service's named volumes: name, path, and whether it may write."""
    for each in service.get("volumes", []):
        source, path, *mode = each.split(":")
        if not source.startswith("./"):
            yield source, path, mode != ["ro"]


@pytest.mark.parametrize("role", ROLES + SERVERS)
def test_volumes_are_mounted_with_the_same_rights(chart: Rendered, role: str) -> None:
    mounts = {
        (m["name"], m["mountPath"], not m.get("readOnly", False))
        for m in container(chart, role)["volumeMounts"]
        if m["name"] in COMPOSE["volumes"]
    }
    assert mounts == set(volumes_of(SERVICES[role]))


@pytest.mark.parametrize("role", ROLES + SERVERS)
def test_disks_in_memory_have_the_same_size(chart: Rendered, role: str) -> None:
    spec = chart.pod(role)["spec"]
    memory = {
        volume["name"]: volume["emptyDir"]["sizeLimit"]
        for volume in spec["volumes"]
        if volume.get("emptyDir", {}).get("medium") == "Memory"
    }
    (found,) = spec["containers"]
    sizes = {
        m["mountPath"]: memory[m["name"]]
        for m in found["volumeMounts"]
        if m["name"] in memory
    }
    wanted = {}
    for each in SERVICES[role].get("tmpfs", []):
        path, _, options = each.partition(":")
        (limit,) = re.findall(r"size=(\w+)", options)
        wanted[path] = size(limit)
    if "shm_size" in SERVICES[role]:
        wanted["/dev/shm"] = size(SERVICES[role]["shm_size"])
    assert sizes == wanted


@pytest.mark.parametrize("role", ROLES + SERVERS)
def test_a_container_has_no_more_rights(chart: Rendered, role: str) -> None:
    service, spec = SERVICES[role], chart.pod(role)["spec"]
    user, group = map(int, service["user"].split(":"))
    assert spec["securityContext"]["runAsUser"] == user
    assert spec["securityContext"]["runAsGroup"] == group
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    # A variable SRP4CTR_TRITON_PORT of a Service would be an unknown setting.
    assert spec["enableServiceLinks"] is False
    for each in spec["containers"] + spec.get("initContainers", []):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": service["read_only"],
            "capabilities": {"drop": service["cap_drop"]},
        }


@pytest.mark.parametrize("role", ROLES + SERVERS)
def test_a_container_has_the_same_limits(chart: Rendered, role: str) -> None:
    wanted = SERVICES[role]["deploy"]["resources"]["limits"]
    limits = container(chart, role)["resources"]["limits"]
    assert limits["memory"] == size(wanted["memory"])
    assert cpus(str(limits["cpu"])) == cpus(DEFAULTED.sub(r"\1", str(wanted["cpus"])))


@pytest.mark.parametrize("role", ["trainer", "triton"])
def test_on_a_gpu_as_in_compose(role: str) -> None:
    made = rendered("gpu")
    wanted = SERVICES[f"{role}-gpu"]["deploy"]["resources"]
    (device,) = wanted["reservations"]["devices"]
    limits = container(made, role)["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == device["count"]
    assert limits["memory"] == size(wanted["limits"]["memory"])
    assert made.pod(role)["spec"]["nodeSelector"]
    backend = environment(container(made, "trainer"))["SRP4CTR_TRITON__BACKEND"]
    assert backend == "onnxruntime"


def test_refreshes_do_not_overlap_and_are_not_repeated(chart: Rendered) -> None:
    spec = chart.one("CronJob", "trainer")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0


@pytest.mark.parametrize("role", ROLES + SERVERS)
def test_a_container_has_the_same_grace_period(chart: Rendered, role: str) -> None:
    grace = SERVICES[role].get("stop_grace_period")
    if grace:
        given = chart.pod(role)["spec"]["terminationGracePeriodSeconds"]
        assert f"{given}s" == grace


@pytest.mark.parametrize("role", ["stream", "monitor", "triton", *SERVERS])
def test_probes_are_compose_s_health_checks(chart: Rendered, role: str) -> None:
    _, *command = SERVICES[role]["healthcheck"]["test"]
    probe = container(chart, role)["readinessProbe"]
    if "exec" in probe:
        assert probe["exec"]["command"] == command
        return
    ports = {
        port["name"]: port["containerPort"] for port in container(chart, role)["ports"]
    }
    address = f"127.0.0.1:{ports[probe['httpGet']['port']]}{probe['httpGet']['path']}'"
    assert address in command[-1]


def test_bundled_servers_are_where_the_settings_look(chart: Rendered) -> None:
    found = environment(container(chart, "promoter"))
    ports = {
        (name, port["port"])
        for name, each in chart.all("Service").items()
        for port in each["spec"]["ports"]
    }
    names = ("SRP4CTR_KAFKA__BOOTSTRAP", "SRP4CTR_FEATURES__REDIS", "AWS_ENDPOINT_URL")
    for name in names:
        host, _, port = found[name].removeprefix("https://").partition(":")
        assert (host, int(port)) in ports
    assert ("postgres", 5432) in ports
    (properties,) = chart.one("ConfigMap", "kafka")["data"].values()
    assert properties == (ROOT / "streams" / "kafka.properties").read_text()
