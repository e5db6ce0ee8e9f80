"""The real stack is consistent with the settings, the images and the embedded stack."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer import Typer

from srp4ctr import settings
from srp4ctr.cli.main import app
from srp4ctr.embedded import apache_kafka
from srp4ctr.monitoring.cost import triton_counters
from srp4ctr.monitoring.dashboards import FOLDER
from srp4ctr.ops.triton import supervisor
from srp4ctr.testing import object_store
from srp4ctr.triton_repo.model_names import ENSEMBLES
from tests.compose.real_stack import (
    COMPOSE,
    DEFAULTED,
    DOCKERFILE,
    OURS,
    PRODUCERS,
    ROOT,
    SERVICES,
    published_ports,
    settings_of,
)

PINNED = re.compile(r"[^:\s]+:v?\d+(\.\d+)+[\w.-]*")


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> settings.Settings:
    """The settings as a container of ours has them."""
    monkeypatch.chdir(ROOT)
    return settings_of(SERVICES["promoter"], monkeypatch)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> settings.Settings:
    """The settings as a command on this machine has them."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SRP4CTR_EMBEDDED__DATA_DIR", str(tmp_path))  # no running stack's
    return settings.load()


def port_of(address: str) -> str:
    return address.removesuffix("/metrics").rpartition(":")[2]


def test_every_part_of_the_real_stack_is_there() -> None:
    assert set(SERVICES) == {
        "kafka",
        "redis",
        "postgres",
        "objects",
        "init",
        "stream",
        "intake",
        "trainer",
        "trainer-gpu",
        "promoter",
        "triton",
        "triton-gpu",
        "ops",
        "monitor",
        "prometheus",
        "alertmanager",
        "grafana",
    }


def test_kafka_is_the_release_that_was_tried() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{apache_kafka.KAFKA}"


def test_the_s3_server_is_the_release_that_was_tried() -> None:
    assert f"FROM ghcr.io/versity/versitygw:{object_store.VERSION} AS objects" in DOCKERFILE


def test_images_are_pinned_to_a_release() -> None:
    bases = re.findall(r"^FROM (\S+?:\S+)", DOCKERFILE, re.MULTILINE)
    images = [service["image"] for service in SERVICES.values()]
    assert len(bases) == 3
    assert [i for i in images + bases if not PINNED.fullmatch(i)] == []


def test_every_variable_is_a_setting_and_names_a_service(
    inside: settings.Settings,
) -> None:
    endpoint = SERVICES["promoter"]["environment"]["AWS_ENDPOINT_URL"]
    addresses = (
        endpoint.removeprefix("https://"),
        inside.kafka.bootstrap,
        inside.features.redis,
        inside.triton.grpc,
        inside.triton.metrics_url.removeprefix("http://").removesuffix("/metrics"),
        inside.features.registry.rpartition("@")[2].partition("/")[0],
        inside.monitoring.prometheus_url.removeprefix("http://"),
    )
    for address in addresses:
        assert address.partition(":")[0] in SERVICES, address


def test_what_is_published_is_where_the_settings_look(outside: settings.Settings) -> None:
    inside = {name: SERVICES[name] for name in ("triton", "intake")}
    published = published_ports(inside | PRODUCERS["services"])
    looked_at = (outside.triton.grpc, outside.kafka.bootstrap)
    assert {*map(port_of, looked_at), str(outside.intake.port)} == set(published)


def test_kafka_advertises_addresses_inside_and_outside_of_the_network(
    outside: settings.Settings,
) -> None:
    text = (ROOT / "streams" / "kafka.properties").read_text(encoding="utf-8")
    (advertised,) = re.findall("^advertised.listeners=(.*)$", text, re.MULTILINE)
    host = DEFAULTED.sub(r"\1", SERVICES["kafka"]["environment"]["KAFKA_HOST"])
    listeners = advertised.replace("${env:KAFKA_HOST}", host).split(",")
    assert {listener.partition("://")[2] for listener in listeners} == {
        COMPOSE["x-kafka"]["SRP4CTR_KAFKA__BOOTSTRAP"],
        outside.kafka.bootstrap,
    }
    mount = "./streams/kafka.properties:/etc/srp4ctr/kafka.properties:ro"
    assert mount in SERVICES["kafka"]["volumes"]


def test_prometheus_scrapes_each_of_our_endpoints(inside: settings.Settings) -> None:
    text = (ROOT / "monitoring" / "prometheus.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["scrape_configs"]
    targets = {t for j in jobs for e in j.get("static_configs", []) for t in e["targets"]}
    # However many workers there are: the service's name has an address for each.
    (found,) = [each for job in jobs for each in job.get("dns_sd_configs", [])]
    assert (found["names"], found["type"]) == (["stream"], "A")
    assert found["port"] == inside.streams.metrics_port
    assert not {"ports", "container_name"} & set(SERVICES["stream"])
    assert targets == {
        f"monitor:{inside.monitoring.port}",
        f"triton:{port_of(inside.triton.metrics_url)}",
        f"intake:{inside.intake.metrics_port}",
    }


def test_each_role_runs_a_command_that_exists() -> None:
    nouns = {group.name: group.typer_instance for group in app.registered_groups}
    for name in OURS.keys() - {"ops"}:  # it is given one
        noun, verb, *_ = OURS[name]["command"]
        assert verb in _verbs(nouns[noun])
    assert len(OURS) == 8


def test_an_operator_s_command_starts_and_changes_no_service() -> None:
    ops = SERVICES["ops"]
    assert "depends_on" not in ops
    assert ops["profiles"] == ["ops"]  # `docker compose up` does not start it
    assert ops["restart"] == "no"


def test_the_trainer_repeats_and_leaves_the_machine_to_serving(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("trainer", "trainer-gpu"):
        assert SERVICES[name]["command"] == ["model", "refresh", "--every", "1h"]
        training = settings_of(SERVICES[name], monkeypatch).training
    assert training.niceness > 0
    assert training.max_gpu_memory_share < 1.0


def test_what_the_trainer_publishes_is_promoted_where_triton_is() -> None:
    promoter, triton = SERVICES["promoter"], SERVICES["triton"]
    assert promoter["command"] == ["model", "promote", "--every", "1m"]
    assert set(triton["volumes"]) < set(promoter["volumes"])


@pytest.mark.parametrize("profile", ["", "-gpu"])
def test_the_container_s_first_process_supervises_triton(
    profile: str,
) -> None:
    triton = SERVICES[f"triton{profile}"]
    (*shell, script) = triton["command"]
    assert shell == ["bash", "-c"]
    match = re.search(
        r"exec (\S+) -m srp4ctr\.ops\.triton\.supervisor (.* -- tritonserver .*)",
        script,
        re.DOTALL,
    )
    assert match is not None
    assert f"uv venv --python python3 {Path(match[1]).parents[1]}" in DOCKERFILE
    parsed = supervisor.parser().parse_args(match[2].split())
    assert (parsed.grpc, parsed.repository) == ("127.0.0.1:8001", "/models")
    assert parsed.command[0] == "tritonserver"
    assert "models:/models" in triton["volumes"]  # not read-only: it touches a step's file
    assert "pid" not in triton


def test_every_ensemble_that_was_promoted_serves_again_after_a_restart() -> None:
    for triton in ("triton", "triton-gpu"):
        words = " ".join(SERVICES[triton]["command"]).split()
        assert {word.removesuffix(";") for word in words} >= set(ENSEMBLES)


def test_the_monitor_counts_the_calls_of_every_ensemble() -> None:
    assert triton_counters.ENSEMBLES == ENSEMBLES


def _verbs(noun: Typer | None) -> set[str | None]:
    assert noun is not None
    return {command.name for command in noun.registered_commands}


def test_each_role_is_built_from_a_target_of_the_dockerfile() -> None:
    targets = set(re.findall(r"^FROM .+ AS (\w+)$", DOCKERFILE, re.MULTILINE))
    built = {s["build"]["target"] for s in SERVICES.values() if "build" in s}
    assert built == targets - {"python", "build", "wheel"}


def test_a_stream_worker_carries_no_torch() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
    names = [stage.split()[2] for stage in stages[1:]]
    (with_torch,) = (n for n, s in enumerate(stages[1:]) if "--extra training" in s)
    assert names[with_torch] == "trainer"
    # Docker's older builder builds every stage before the requested one.
    assert with_torch > max(names.index(role) for role in ("stream", "monitor"))


def test_volumes_and_mounted_files_exist() -> None:
    mounts = [m for s in SERVICES.values() for m in s.get("volumes", [])]
    sources = {mount.partition(":")[0] for mount in mounts}
    named = {source for source in sources if not source.startswith("./")}
    assert named == set(COMPOSE["volumes"])
    assert [s for s in sources - named if not (ROOT / s).exists()] == []


def test_grafana_opens_with_the_overview_and_finds_all_dashboards() -> None:
    grafana = SERVICES["grafana"]
    mounts = dict(mount.split(":")[1::-1] for mount in grafana["volumes"])
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    seen = ROOT / mounts[str(home.parent)] / home.name
    assert seen.samefile(FOLDER / "overview.json")
    path = ROOT / mounts["/etc/grafana/provisioning"] / "dashboards" / "srp4ctr.yml"
    (provider,) = yaml.safe_load(path.read_text(encoding="utf-8"))["providers"]
    assert provider["options"]["path"] == str(home.parent)


def test_a_service_waits_only_for_services_with_a_health_check() -> None:
    for name, service in SERVICES.items():
        for other, dependency in service.get("depends_on", {}).items():
            assert other in SERVICES, name
            if dependency["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], (name, other)


def test_a_command_s_variables_for_compose_are_no_unknown_settings(
    monkeypatch: pytest.MonkeyPatch, outside: settings.Settings
) -> None:
    texts = [(ROOT / f"compose{kind}.yaml").read_text() for kind in ("", ".producers")]
    for name in re.findall(r"\$\{(\w+):-", "".join(texts)):
        monkeypatch.setenv(name, "1")
    assert settings.load() == outside


def _compose() -> list[str]:
    """Return the words of a compose that is installed: the plugin, or the old program."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]):
            result = subprocess.run([*words, "version"], capture_output=True, check=False)
            if result.returncode == 0:
                return words
    return []


@pytest.mark.skipif(not _compose(), reason="Docker's compose is not installed")
@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_docker_compose_accepts_the_files(tmp_path: Path, profile: str) -> None:
    # The old program knows no name: the folder's is the project's.
    unnamed = tmp_path / "compose.yaml"
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    unnamed.write_text(text.replace("name: srp4ctr\n", ""))
    files = ["-f", str(unnamed), "-f", str(ROOT / "compose.producers.yaml")]
    command = [*_compose(), "--project-directory", str(ROOT), *files]
    command += ["--profile", profile, "config", "--quiet"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
