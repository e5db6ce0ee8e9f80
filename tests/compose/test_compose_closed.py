"""The real stack's networks, credentials and permissions admit only its own clients."""

import re
from pathlib import Path

import pytest

from srp4ctr.ops import bucket_setup, kafka_acl, stack_secrets
from srp4ctr.ops.certificate_watch import places_of
from srp4ctr.ops.triton import supervisor
from srp4ctr.triton_repo.config import CONTROL_HEADER, CONTROLS
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

SECRET = re.compile(r"(?i)password|secret|_key$|token")  # what a variable of one is called


def test_only_three_ports_are_published_by_default_on_this_machine() -> None:
    for profile in ("cpu", "gpu"):
        started = {
            name: each
            for name, each in SERVICES.items()
            if profile in each.get("profiles", [profile])
        }
        ports = published_ports(started)
        triton = "triton" if profile == "cpu" else "triton-gpu"
        assert ports == {"8001": triton, "3000": "grafana", "8088": "intake"}
    assert published_ports(PRODUCERS["services"]) == {"9092": "kafka"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_container_can_change_nothing_but_its_volumes(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    user, _, group = service["user"].partition(":")
    assert int(user) > 0
    assert group.isdigit()
    limits = service["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory", "pids"}
    assert "pids_limit" not in service  # Compose refuses both
    assert all("size=" in each for each in service.get("tmpfs", []))
    is_short = name in ("init", "ops")
    assert service["restart"] == ("no" if is_short else "unless-stopped")
    assert is_short or "test" in service["healthcheck"]


def test_workers_trainer_and_triton_share_no_volume() -> None:
    users: dict[str, set[str]] = {name: set() for name in COMPOSE["volumes"]}
    for name, service in SERVICES.items():
        for each in service.get("volumes", []):
            if not each.startswith("./"):
                users[each.partition(":")[0]].add(name.removesuffix("-gpu"))
    shared = {name: those for name, those in users.items() if len(those) > 1}
    around_triton = {"promoter", "ops"}
    assert shared == {
        "data": around_triton | {"monitor"},
        "models": around_triton | {"monitor", "triton"},
        "served": around_triton | {"triton"},
        "spill": around_triton,
    }
    for name in set.union(*shared.values()):  # one user, who can read what others write
        assert SERVICES[name]["user"] == "10001:10001", name
    assert DOCKERFILE.count("useradd --uid 10001") == 2
    assert "USER root" not in DOCKERFILE


def test_the_objects_belong_to_a_user_of_their_own() -> None:
    user = SERVICES["objects"]["user"]
    assert [n for n, each in SERVICES.items() if each["user"] == user] == ["objects"]
    assert f"mkdir /objects && chown {user} /objects" in DOCKERFILE
    assert SERVICES["objects"]["volumes"] == ["objects:/objects"]


def test_no_secret_is_in_an_environment_a_command_or_this_file() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable):
                assert str(value).startswith("/run/secrets/"), (name, variable)
            assert not re.search("//[^/@]+:[^/@]+@", str(value)), (name, variable)


def test_each_secret_is_made_mounted_and_read_where_it_is_mounted(tmp_path: Path) -> None:
    stack_secrets.make(tmp_path)
    made = {path.name for path in tmp_path.iterdir()}
    assert set(COMPOSE["secrets"]) == made - {*stack_secrets.KEPT}
    for name, file in COMPOSE["secrets"].items():
        assert DEFAULTED.sub(r"\1", file["file"]) == f"./{stack_secrets.FOLDER}/{name}"
    broker = (ROOT / "streams" / "kafka.properties").read_text(encoding="utf-8")
    for name, service in SERVICES.items():
        text = str({**service, "secrets": None}) + (broker if name == "kafka" else "")
        named = set(re.findall(r"/run/secrets[/:]([\w.]+)", text))
        mounted = set(service.get("secrets", []))
        if name == "init":  # it lets Kafka's users in
            named |= {f"kafka_{user}" for user in kafka_acl.RIGHTS}
        assert named == mounted, name


def test_each_service_is_known_to_kafka_and_the_store_by_its_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    for name, service in OURS.items():
        with monkeypatch.context() as own:
            ours = settings_of(service, own)
        user = {"init": "admin"}.get(name, name.removesuffix("-gpu"))
        environment = service["environment"]
        if "objects" in service["networks"]:
            assert environment["AWS_ACCESS_KEY_ID"] == user
            file = environment["AWS_SECRET_ACCESS_KEY_FILE"]
            assert file == f"/run/secrets/objects_{user}"
            assert user in stack_secrets.OBJECT_USERS
        if user == "trainer":  # of the rest it knows only the registry
            assert not {"SRP4CTR_KAFKA__BOOTSTRAP"} & set(environment)
            assert not ours.features.redis_username
            assert not ours.triton.control_key_file
            continue
        assert ours.kafka.security_protocol == "SASL_SSL"
        assert ours.kafka.sasl_username == user
        assert user in stack_secrets.KAFKA_USERS
        if ours.features.redis_tls:
            assert ours.features.redis_username in stack_secrets.REDIS_USERS
        if name != "init":
            assert user in kafka_acl.RIGHTS


def test_every_user_of_the_objects_has_rights_there_and_no_other_is_made() -> None:
    assert set(bucket_setup.USERS) | {"admin"} == set(stack_secrets.OBJECT_USERS)
    having = {
        secret.removeprefix("objects_"): name.removesuffix("-gpu")
        for name, service in SERVICES.items()
        for secret in service.get("secrets", [])
        if secret.startswith("objects_") and name != "objects"
    }
    assert having == {"admin": "init"} | {name: name for name in bucket_setup.USERS}


def test_services_share_a_network_only_where_they_need_it() -> None:
    networks = {name: set(each.get("networks", [])) for name, each in SERVICES.items()}
    met = {
        name: {other for other in networks if networks[other] & networks[name]}
        for name in networks
    }
    assert not {"kafka", "redis", "postgres"} & met["grafana"]
    assert not {"kafka", "redis", "postgres"} & met["prometheus"]
    assert not {"kafka", "objects"} & met["triton"]
    assert not {"kafka", "redis", "triton"} & met["trainer"]
    assert met["objects"] == {"objects", "init", *bucket_setup.USERS, "trainer-gpu"}
    assert {"redis", "postgres"}.isdisjoint(met["monitor"])
    inner = {name for name, each in COMPOSE["networks"].items() if each.get("internal")}
    assert set(COMPOSE["networks"]) - inner == {"edge", "producers"}
    assert met["intake"] - {"intake"} == {"kafka"} | {
        name for name in networks if "metrics" in networks[name]
    } - {"intake"}
    assert [name for name in networks if "producers" in networks[name]] == ["intake"]
    outer = {name for name, each in networks.items() if "edge" in each}
    assert outer == {"triton", "triton-gpu", "grafana", "alertmanager"}


def test_changing_triton_s_models_needs_the_key() -> None:
    file = "/run/secrets/triton_control"
    guarded = f"--grpc-restricted-protocol={CONTROLS}:{CONTROL_HEADER}=$$(cat {file})"
    for profile in ("", "-gpu"):
        assert guarded in " ".join(SERVICES[f"triton{profile}"]["command"])
    for name in ("promoter", "triton", "triton-gpu", "ops"):
        environment = SERVICES[name]["environment"]
        assert environment[supervisor.CONTROL_KEY_FILE] == file
    secrets = {name: each.get("secrets", []) for name, each in SERVICES.items()}
    having = {name for name, each in secrets.items() if "triton_control" in each}
    assert {name.removesuffix("-gpu") for name in having} == {"triton", "promoter", "ops"}


def test_each_client_of_triton_has_its_own_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clients = {name: name for name in ("promoter", "ops", "monitor")} | {"triton": "watch"}
    for service, name in clients.items():
        environment = {k: str(v) for k, v in SERVICES[service]["environment"].items()}
        tls = supervisor.tls_in(environment)
        assert tls.enabled
        assert tls.certificate_file == f"/run/secrets/{name}.pem"
        assert name in stack_secrets.CLIENTS


def test_grafana_has_no_password_in_the_environment_and_no_anonymous_access() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_admin"
    assert "GF_SECURITY_ADMIN_PASSWORD" not in environment
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "${GRAFANA_ANONYMOUS:-false}"
    assert environment["GF_SERVER_PROTOCOL"] == "https"


def test_every_certificate_of_the_stack_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    watched: set[str] = set()
    for name in ("monitor", "stream"):
        with monkeypatch.context() as own:
            places = places_of(settings_of(SERVICES[name], own))
        networks = set(SERVICES[name]["networks"])
        for place in places:
            host = place.location.partition(":")[0]
            if place.service == "file":
                watched.add(Path(place.location).stem)
            else:  # it can connect
                assert networks & set(SERVICES[host]["networks"]), place
                watched.add(host)
    assert watched == {"ca", *stack_secrets.SERVERS, *stack_secrets.CLIENTS}
