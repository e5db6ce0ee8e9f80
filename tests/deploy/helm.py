"""Helm, and the objects that it renders from the chart.

Where there is no ``helm`` but Go, one is built once into a cache; without either the tests
that need it are skipped.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from srp4ctr.errors import Srp4ctrError
from srp4ctr.testing import go_programs
from tests.structure.source_tree import ROOT

CHART = ROOT / "deploy" / "helm" / "srp4ctr"
VALUES = {path.stem.removesuffix("-values"): path for path in CHART.glob("ci/*.yaml")}
HELM = "v3.22.0"
KUBERNETES = "1.37.0"
RELEASE, NAMESPACE = "ctr", "shop"
FULL = f"{RELEASE}-srp4ctr"
WITH_SERVERS = ("--set", "bundled.enabled=true")
SERVERS = ("kafka", "redis", "postgres", "objects")
ROLES = ("init", "stream", "intake", "trainer", "promoter", "triton", "monitor", "ops")


def helm() -> str:
    """Return the path of a Helm; skip the test where there is none."""
    program, reason = _found_or_built()
    if reason:
        pytest.skip(reason)
    return program


@cache
def _found_or_built() -> tuple[str, str]:
    """Return the path of a Helm, or why there is none."""
    found = shutil.which("helm")
    if found and _version(found).startswith(("v3.", "v4.")):
        return found, ""
    try:
        return go_programs.built("helm", "helm.sh/helm/v3/cmd/helm", HELM), ""
    except Srp4ctrError as error:
        return "", str(error)


def _version(program: str) -> str:
    command = [program, "version", "--template", "{{.Version}}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Return what Helm printed, without its warnings of symbolic links."""
    result = subprocess.run(
        [helm(), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    lines = result.stderr.splitlines(keepends=True)
    errors = "".join(line for line in lines if "found symbolic link" not in line)
    return subprocess.CompletedProcess(
        result.args, result.returncode, result.stdout, errors
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The objects of one release."""

    objects: tuple[dict[str, Any], ...]

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the objects of a kind by name."""
        return {o["metadata"]["name"]: o for o in self.objects if o["kind"] == kind}

    def one(self, kind: str, name: str) -> dict[str, Any]:
        """Return an object of the release ``ctr`` by kind and role."""
        return self.all(kind)[f"{FULL}-{name}"]

    def pods(self) -> dict[str, dict[str, Any]]:
        """Return every pod's metadata and specification, by its object's kind and name."""
        found = {}
        for each in self.objects:
            spec = each.get("spec", {})
            if each["kind"] == "CronJob":
                spec = spec["jobTemplate"]["spec"]
            pod = each if each["kind"] == "Pod" else spec.get("template")
            if pod:
                found[f"{each['kind']}/{each['metadata']['name']}"] = pod
        return found

    def pod(self, role: str) -> dict[str, Any]:
        """Return the pod of a role, as ``stream``."""
        named = re.compile(rf"\w+/{FULL}-{role}(-\d+)?")
        (found,) = [pod for name, pod in self.pods().items() if named.fullmatch(name)]
        return found


def template(
    *arguments: str | Path, release: str = RELEASE, namespace: str = NAMESPACE
) -> subprocess.CompletedProcess[str]:
    """Return what ``helm template`` printed."""
    return run(
        "template",
        release,
        CHART,
        "--namespace",
        namespace,
        "--kube-version",
        KUBERNETES,
        *arguments,
    )


def parsed(done: subprocess.CompletedProcess[str]) -> Rendered:
    """Return the objects that Helm rendered."""
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    objects = [each for each in yaml.load_all(done.stdout, loader) if each]
    return Rendered(objects=tuple(objects))


@cache
def rendered(values: str, changes: Sequence[str] = ()) -> Rendered:
    """Return the objects of a file of ``ci/``, with ``--set`` of ``changes``."""
    sets = [word for change in changes for word in ("--set", change)]
    return parsed(template("--values", VALUES[values], *sets))
