"""``make images``: it pushes each image of ours, under the name that compose gives it."""

import re
import subprocess

import pytest

from tests.compose.real_stack import DOCKERFILE, ROOT, SERVICES
from tests.docs.pages import pages
from tests.structure.source_tree import PROJECT

REGISTRY = "registry.example.com/team"
BUILT = {service["image"] for service in SERVICES.values() if "build" in service}


def printed(*words: str) -> list[str]:
    """Return the commands that ``make images`` would run."""
    command = ["make", "--no-print-directory", "images", "PUSH=", *words]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_each_image_is_built_tagged_and_pushed(profile: str) -> None:
    build, *rest = printed(f"REGISTRY={REGISTRY}", f"PROFILE={profile}")
    assert build.endswith(f"docker compose -f compose.yaml --profile {profile} build")
    tagged = [f"docker tag {image} {REGISTRY}/{image}" for image in BUILT]
    pushed = [f"docker push {REGISTRY}/{image}" for image in BUILT]
    assert sorted(rest) == sorted(tagged + pushed)
    assert rest.index(pushed[0]) > rest.index(tagged[0])


def test_labels_and_pages_name_the_release() -> None:
    assert re.findall(r"^ARG VERSION=(\S+)$", DOCKERFILE, re.M) == [PROJECT["version"]]
    named = re.findall(r"\bsrp4ctr-[a-z]+:\d\S+", "".join(pages().values()))
    assert named
    assert set(named) <= BUILT


def test_without_a_registry_nothing_is_built() -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        printed()
    assert "REGISTRY=" in refused.value.stdout
