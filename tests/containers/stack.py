"""compose.yaml on a container engine, as a project of its own: what tests do with it.

Volumes, networks and secrets are the project's; a stack that runs on this machine is not
touched. Everything goes through the commands that an operator has.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srp4ctr.ops import stack_secrets
from tests.compose.real_stack import ROOT, SERVICES
from tests.containers import objects_image

ADDRESS = "127.0.0.61"
"""Where a test's stack publishes: no other stack of this machine does."""
WELL = ("healthy", "exited 0")
_POLL_S = 1.0
_INSIDE = Path(__file__).with_name("inside.py")
_TLS = ("enabled", "ca_file", "certificate_file", "key_file")


class ContainerError(RuntimeError):
    """A command failed or a service did not get well; the message has its last lines."""


def engine() -> str:
    """Return "" where containers can be run, else why they cannot."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    for words in (("compose", "version"), ("info",)):
        result = subprocess.run(
            ["docker", *words], capture_output=True, text=True, check=False
        )
        if result.returncode:
            return f"docker {' '.join(words)}: {result.stderr.strip()[-200:]}"
    return ""


def run(*command: str, stdin: str = "", timeout_s: float = 900.0, **more: Any) -> str:
    """Return what ``command`` prints; raises ``ContainerError`` where it fails."""
    result: subprocess.CompletedProcess[str] = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=timeout_s,
        **more,
    )
    if result.returncode:
        tail = (result.stdout + result.stderr).strip()[-2500:]
        raise ContainerError(
            f"{' '.join(command)[:200]}: status {result.returncode}\n{tail}"
        )
    return result.stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeStack:
    """A project of compose.yaml, with its own volumes and secrets."""

    project: str
    secrets: Path
    profiles: tuple[str, ...] = ("cpu",)
    variables: Mapping[str, str] = field(default_factory=dict)
    """For compose.yaml, in addition to its address and its secrets."""
    files: tuple[Path, ...] = (ROOT / "compose.yaml",)
    root: Path = ROOT
    """What paths in the files are relative to."""

    @property
    def command(self) -> tuple[str, ...]:
        """What every command of compose for this project begins with."""
        files = [word for file in self.files for word in ("-f", str(file))]
        profiles = [word for profile in self.profiles for word in ("--profile", profile)]
        options = ["-p", self.project, "--project-directory", str(self.root)]
        return ("docker", "compose", *options, *files, *profiles)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of compose."""
        own = {"SRP4CTR_SECRETS": str(self.secrets), "SRP4CTR_BIND": ADDRESS}
        if subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode:
            own["DOCKER_BUILDKIT"] = "0"
        return {**os.environ, **own, **self.variables}

    def compose(self, *words: str, stdin: str = "", timeout_s: float = 900.0) -> str:
        """Return what ``docker compose WORDS`` prints."""
        return run(
            *self.command,
            *words,
            stdin=stdin,
            timeout_s=timeout_s,
            env=self.environment,
        )

    def make_secrets(self) -> None:
        """Make certificates and passwords, as ``make secrets`` does."""
        stack_secrets.make(self.secrets)

    def build(self, *services: str) -> None:
        """Build the images of ``services``; those that they replace are removed.

        A trainer's is 7 GB: four changes of the lock file filled a disk.
        """
        objects_image.have_image(self.secrets.parent / "objects-image", self.environment)
        before = {image_id(image_of(name)) for name in services}
        self.compose("build", *services, timeout_s=3600.0)
        for old in before - {image_id(image_of(name)) for name in services} - {""}:
            subprocess.run(["docker", "image", "rm", old], capture_output=True, check=False)

    def up(self, *services: str, timeout_s: float = 400.0) -> None:
        """Start ``services``, or all, and return when they are well."""
        self.compose("up", "--detach", *services, timeout_s=timeout_s)
        self.wait_well(services, timeout_s)

    def down(self, *, with_volumes: bool = False) -> None:
        """Stop and remove the containers; the volumes stay by default."""
        more = ("--volumes",) if with_volumes else ()
        self.compose("down", "--timeout", "60", *more)

    def states(self) -> dict[str, str]:
        """Return each service's state: ``healthy``, ``exited 0``, ``restarting`` …

        Of several containers of a service, that of one that is not well.
        """
        lines = self.compose("ps", "--all", "--format", "json").splitlines()
        found: dict[str, str] = {}
        for each in map(json.loads, lines):
            state = each["Health"] or each["State"]
            if each["State"] == "exited":
                state = f"exited {each['ExitCode']}"
            if found.get(each["Service"], "healthy") in WELL:
                found[each["Service"]] = state
        return found

    def wait_well(self, services: Iterable[str] = (), timeout_s: float = 300.0) -> None:
        """Return when ``services``, or all that were made, are healthy, ``init`` done."""
        wanted, states = set(services), dict[str, str]()

        def are_well() -> bool:
            nonlocal states
            states = self.states()
            sick = {n for n, s in states.items() if s not in WELL}
            return wanted <= states.keys() and not (sick & (wanted or states.keys()))

        if not until(are_well, timeout_s):
            sick = {n: s for n, s in states.items() if s not in WELL}
            logs = "".join(self.logs(name) for name in sick)
            raise ContainerError(f"not well after {timeout_s:.0f} s: {sick}\n{logs}")

    def logs(self, service: str, lines: int = 30) -> str:
        """Return the last lines of a service's log."""
        return self.compose("logs", "--no-color", "--tail", str(lines), service)

    def container(self, service: str) -> str:
        """Return the id of the (first) container of ``service``."""
        found = self.compose("ps", "--all", "--quiet", service).split()
        if not found:
            raise ContainerError(f"{service} has no container")
        return found[0]

    def inspect(self, service: str) -> Any:
        """Return what the engine says of a service's container."""
        return json.loads(run("docker", "inspect", self.container(service)))[0]

    def exec(self, service: str, *words: str, stdin: str = "") -> str:
        """Return what a command prints in a running container."""
        return self.compose("exec", "-T", service, *words, stdin=stdin)

    def kill(self, service: str) -> None:
        """End a container's first process by SIGKILL, as the kernel would.

        After ``docker kill``, an operator's command, Docker restarts nothing.
        """
        pid = self.inspect(service)["State"]["Pid"]
        image = image_of("stream")
        shell = ("--pid", "host", "--user", "0", "--entrypoint", "sh", image)
        run("docker", "run", "--rm", *shell, "-c", f"kill -9 {pid}")

    def progress(self) -> dict[str, int]:
        """Return how many records the topic has, are folded, and are in the raw log."""
        found: dict[str, int] = json.loads(
            self.exec("stream", "python", "-", stdin=_INSIDE.read_text())
        )
        return found

    def wait_folded(self, published: int, timeout_s: float = 240.0) -> dict[str, int]:
        """Return the progress once all is folded and logged, or at the timeout."""
        found: dict[str, int] = {}

        def is_folded() -> bool:
            nonlocal found
            try:
                found = self.progress()
            except ContainerError:  # the worker is just being started again
                return False
            return found["folded"] >= found["end"] and found["events"] >= published

        until(is_folded, timeout_s)
        return found

    def publish(self, events: Path) -> None:
        """Publish a file as the user ``producer``, over TLS, as one elsewhere would."""
        settings = {
            "BOOTSTRAP": "kafka:19092",
            "SECURITY_PROTOCOL": "SASL_SSL",
            "SSL_CA_FILE": "/run/secrets/ca.pem",
            "SASL_USERNAME": "producer",
            "SASL_PASSWORD_FILE": "/run/secrets/kafka_producer",
        }
        given = {f"SRP4CTR_KAFKA__{name}": value for name, value in settings.items()}
        words = ("events", "publish", "/events.jsonl", "--backfill")
        self.outsider("events", ("ca.pem", "kafka_producer"), given, words, events)

    def rank(
        self, user: str, items: list[str], *, certificate: bool = True, seconds: int = 0
    ) -> Any:
        """Return the version, status and probabilities that a caller gets over TLS.

        With ``seconds`` it keeps calling, and returns how often it got which status, or
        error. Raises ``ContainerError`` where its only call is refused.
        """
        files = ("ca.pem", "caller.pem", "caller.key")
        names = files if certificate else files[:1]
        values = ("true", *(f"/run/secrets/{name}" for name in names))
        given = {
            f"SRP4CTR_TRITON__TLS__{name.upper()}": value
            for name, value in zip(_TLS, values, strict=False)
        }
        given |= {"USER_ID": user, "ITEM_IDS": ",".join(items), "SECONDS": f"{seconds}"}
        script = Path(__file__).with_name("caller.py")
        return json.loads(self.outsider("serving", names, given, ("/caller.py",), script))

    def outsider(
        self,
        network: str,
        secrets: Iterable[str],
        environment: Mapping[str, str],
        words: tuple[str, ...],
        file: Path,
    ) -> str:
        """Run a client that has ``secrets`` and nothing else in one of the networks.

        ``file`` is put where the first of ``words`` that begins with / says.
        """
        inside = next(word for word in words if word.startswith("/"))
        options = ["--rm", "--network", f"{self.project}_{network}", "--user", "0"]
        options += ["--volume", f"{file}:{inside}:ro"]
        for name in secrets:
            options += ["--volume", f"{self.secrets / name}:/run/secrets/{name}:ro"]
        for name, value in environment.items():
            options += ["--env", f"{name}={value}"]
        role = "monitor" if inside.endswith(".py") else "stream"
        entry = ["--entrypoint", "python"] if inside.endswith(".py") else []
        return run("docker", "run", *options, *entry, image_of(role), *words)


def image_of(service: str) -> str:
    """Return the image's name and tag."""
    return str(SERVICES[service]["image"])


def image_id(name: str) -> str:
    """Return the id of an image, "" where there is none."""
    words = ["docker", "image", "inspect", "--format", "{{.Id}}", name]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def until(is_so: Callable[[], bool], timeout_s: float) -> bool:
    """Return True as soon as ``is_so()``, False at the timeout."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
