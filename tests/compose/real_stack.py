"""compose.yaml, and its servers without containers: their own files and commands.

They listen on 127.0.0.1. Paths and ports that only a container has are replaced; nothing
else is.
"""

import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from srp4ctr import processes, settings
from srp4ctr.embedded import apache_kafka
from srp4ctr.embedded.ports import HOST, is_open, reserved_ports
from srp4ctr.features.config import FeatureConfig
from srp4ctr.testing.object_store import find_server

ROOT = Path(__file__).resolve().parents[2]
SECRETS = "/run/secrets"
COMPOSE: dict[str, Any] = yaml.safe_load(
    (ROOT / "compose.yaml").read_text(encoding="utf-8")
)
SERVICES: dict[str, Any] = COMPOSE["services"]
PRODUCERS: dict[str, Any] = yaml.safe_load(
    (ROOT / "compose.producers.yaml").read_text(encoding="utf-8")
)
OURS = {
    name: each
    for name, each in SERVICES.items()
    if "SRP4CTR_FEATURES__LOG_URI" in each.get("environment", {})
}
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
DEFAULTED = re.compile(r"\$\{\w+:-([^}]*)\}")  # as compose reads it: ${NAME:-default}


def settings_of(
    service: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> settings.Settings:
    """Return the settings as a container of ``service`` has them."""
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, DEFAULTED.sub(r"\1", str(value)))
    return settings.load()


def published_ports(services: dict[str, Any]) -> dict[str, str]:
    """Return what is published: port → the service that has it."""
    ports = {}
    for name, service in services.items():
        for port in service.get("ports", []):
            address, _, inside = port.rpartition(":")
            assert address.startswith("${SRP4CTR_BIND:-127.0.0.1}:"), port
            assert address.rpartition(":")[2] == inside, port
            ports[inside] = name
    return ports


def words_of(name: str, changes: Mapping[str, str]) -> list[str]:
    """Return what compose starts as a service, with ``changes`` made in it."""
    started = SERVICES[name]
    words = [*started.get("entrypoint", []), *started["command"]]
    return [_changed(word.replace("$$", "$"), changes) for word in words]


def _changed(text: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


@contextmanager
def kafka(folder: Path, secrets: Path) -> Iterator[tuple[str, str]]:
    """Yield the addresses, inside and outside, of a broker with the stack's own file."""
    jars, data = f"{apache_kafka.fetch_jars()}/*", folder / "kafka-data"
    file = folder / "kafka.properties"
    text = (ROOT / "streams" / "kafka.properties").read_text(encoding="utf-8")
    with reserved_ports(3) as (inside, outside, controller):
        changes = {
            SECRETS: str(secrets),
            "/var/lib/kafka/data": str(data),
            "//kafka:19092": f"//{HOST}:{inside}",
            "//:19092": f"//{HOST}:{inside}",
            "//:9092": f"//{HOST}:{outside}",
            "KAFKA_HOST}:9092": f"KAFKA_HOST}}:{outside}",
            "127.0.0.1:9093": f"{HOST}:{controller}",
        }
        file.write_text(_changed(text, changes))
        memory = ("-Xms128m", "-Xmx384m", "-XX:TieredStopAtLevel=1")
        java = ("java", *memory, "-cp", jars)
        script = words_of(
            "kafka",
            {
                "/opt/kafka/bin/kafka-storage.sh": shlex.join(
                    [*java, "kafka.tools.StorageTool"]
                ),
                "/opt/kafka/bin/kafka-server-start.sh": shlex.join([*java, "kafka.Kafka"]),
                "/etc/srp4ctr/kafka.properties": str(file),
            },
        )
        program = processes.Program(
            name="kafka", command=tuple(script), env={"KAFKA_HOST": HOST}
        )
        with _running(program, folder, inside):
            yield f"{HOST}:{inside}", f"{HOST}:{outside}"


@contextmanager
def redis(folder: Path, secrets: Path) -> Iterator[str]:
    """Yield the address of a store with the stack's own command and users."""
    data = folder / "redis-data"
    data.mkdir()
    with reserved_ports(1) as (port,):
        words = words_of("redis", {SECRETS: str(secrets), "/data": str(data)})
        words[words.index("--tls-port") + 1] = str(port)
        program = processes.Program(name="redis", command=(*words, "--bind", HOST))
        with _running(program, folder, port):
            yield f"{HOST}:{port}"


@contextmanager
def objects(folder: Path, secrets: Path) -> Iterator[str]:
    """Yield the address of an S3 server with the stack's own command and users."""
    data = folder / "objects"
    data.mkdir(parents=True)
    with reserved_ports(1) as (port,):
        changes = {
            SECRETS: str(secrets),
            "/tmp/users": str(folder / "users"),
            "exec versitygw": f"exec {find_server()}",
            "--port :7070": f"--port {HOST}:{port}",
            "posix /objects": f"posix {data}",
        }
        program = processes.Program(
            name="objects", command=tuple(words_of("objects", changes))
        )
        with _running(program, folder, port):
            yield f"https://{HOST}:{port}"


@contextmanager
def _running(program: processes.Program, folder: Path, port: int) -> Iterator[None]:
    """Run ``program`` for the block, which begins when it listens on ``port``."""
    running = processes.start(program, folder, tied=True)
    try:
        processes.wait_ready(running, lambda: is_open(port))
        yield
    finally:
        processes.stop(running, folder)


def bucket_variables(address: str, user: str, secrets: Path) -> dict[str, str]:
    """Return the variables with which ``user`` reaches the objects at ``address``."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_REGION": "us-east-1",
        "SSL_CERT_FILE": str(secrets / "ca.pem"),
        "AWS_ACCESS_KEY_ID": user,
        "AWS_SECRET_ACCESS_KEY_FILE": str(secrets / f"objects_{user}"),
    }


def store_of(address: str, user: str, secrets: Path, folder: Path) -> FeatureConfig:
    """Return how ``user`` reaches the store at ``address``; the rest is in ``folder``."""
    return FeatureConfig(
        redis=address,
        redis_tls=True,
        redis_ca_file=str(secrets / "ca.pem"),
        redis_username=user,
        redis_password_file=str(secrets / f"redis_{user}"),
        registry=str(folder / "registry.db"),
        log_dir=str(folder / "events"),
    )


def triton_command(
    secrets: Path, repository: Path, ports: tuple[int, int], server: Path
) -> list[str]:
    """Return the stack's own command of tritonserver, of the wheel's in ``server``."""
    grpc, metrics = ports
    where = [f"--backend-directory={server / 'backends'}", "--allow-gpu-metrics=false"]
    where += [f"--grpc-address={HOST}", f"--metrics-address={HOST}"]
    changes = {
        SECRETS: str(secrets),
        "/models": str(repository),
        "port=8001": f"port={grpc}",
        "port=8002": f"port={metrics}",
        "/opt/supervisor/bin/python": sys.executable,
        "127.0.0.1:8001": f"{HOST}:{grpc}",
        "-- tritonserver": shlex.join(["--", f"{server / 'bin' / 'tritonserver'}", *where]),
    }
    return words_of("triton", changes)
