"""compose.yaml is run: from empty volumes to healthy, and nothing is lost on the way back.

Kafka, the store, the registry and our own roles that need no torch; ``make containers``
runs the whole stack.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from srp4ctr.ops import kafka_acl
from srp4ctr.streams.config import KafkaConfig
from tests.compose.real_stack import COMPOSE, DOCKERFILE, ROOT
from tests.containers.breaking import ways_out
from tests.containers.stack import ComposeStack, engine, image_of, run, until
from tests.containers.traffic import write_visits

NO_ENGINE = engine()
pytestmark = [
    pytest.mark.containers,
    pytest.mark.timeout(1800),  # images are built on their first use
    pytest.mark.skipif(bool(NO_ENGINE), reason=NO_ENGINE),
]
PARTS = ("kafka", "redis", "postgres", "objects", "init", "stream", "monitor", "intake")
ROLES = ("stream", "monitor")
BUILT = (*ROLES, "objects")
LOG = COMPOSE["x-settings"]["SRP4CTR_FEATURES__LOG_URI"]
VISITS = 300
# What the published image of Python weighs, on which ours are built; a stand-in may weigh
# more, so that an image's own layers are what is measured.
PYTHON_MB, LARGEST_MB = 125, 850


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    """Yield a stack that came up from empty volumes; it and its volumes go afterwards."""
    secrets = tmp_path_factory.mktemp("stack") / "secrets"
    made = ComposeStack(project="srp4ctr-smoke", secrets=secrets)
    made.make_secrets()
    made.down(with_volumes=True)
    made.build(*BUILT)
    try:
        made.up(*PARTS)
        yield made
    finally:
        made.down(with_volumes=True)


@pytest.fixture(scope="module")
def published(stack: ComposeStack, tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """Return how many events have been published, by file: the first is."""
    file = tmp_path_factory.mktemp("events") / "first.jsonl"
    counts = [write_visits(file, 0, VISITS)]
    stack.publish(file)
    return counts


def assert_nothing_is_lost(stack: ComposeStack, published: list[int]) -> None:
    """Check that each event is in the raw log, once, and the store as the log says."""
    folded = stack.wait_folded(sum(published))
    assert folded["events"] == sum(published)
    assert folded["folded"] == folded["end"]
    table = stack.exec("stream", "srp4ctr", "features", "check", "--sample", "500")
    (rows,) = re.findall(r"rows compared\W+([\d,]+)", table)
    assert int(rows.replace(",", "")) > 500


@pytest.mark.parametrize(
    ("profile", "files"),
    itertools.product(
        ("cpu", "gpu", "ops"),
        (("compose.yaml",), ("compose.yaml", "compose.producers.yaml")),
    ),
)
def test_compose_accepts_the_files(
    profile: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    stack = ComposeStack(
        project="srp4ctr-smoke",
        secrets=tmp_path,
        profiles=(profile,),
        files=tuple(ROOT / file for file in files),
    )
    stack.compose("config", "--quiet")


@pytest.mark.parametrize("role", ROLES)
def test_an_image_is_small_and_says_what_it_is(stack: ComposeStack, role: str) -> None:
    (base,) = re.findall(r"^FROM (\S+) AS python$", DOCKERFILE, re.MULTILINE)
    sizes = [
        int(run("docker", "image", "inspect", "--format", "{{.Size}}", name))
        for name in (image_of(role), base)
    ]
    assert (sizes[0] - sizes[1]) / 1e6 + PYTHON_MB <= LARGEST_MB
    label = '{{index .Config.Labels "org.opencontainers.image.version"}}'
    version = run("docker", "image", "inspect", "--format", label, image_of(role)).strip()
    assert image_of(role).endswith(f":{version}")
    parts = run(
        "docker",
        "run",
        "--rm",
        "--entrypoint",
        "cat",
        image_of(role),
        "/opt/srp4ctr/sbom.cdx.json",
    )
    assert '"bomFormat": "CycloneDX"' in parts


def test_init_says_what_it_made_and_ends(stack: ComposeStack) -> None:
    said = stack.logs("init")
    assert "behavior-events" in said
    assert all(user in said for user in kafka_acl.RIGHTS)
    assert "buckets: events, bundles" in said
    assert stack.states()["init"] == "exited 0"


@pytest.mark.parametrize("service", [each for each in PARTS if each != "init"])
def test_what_takes_over_a_container_cannot_get_out_of_it(
    stack: ComposeStack, service: str
) -> None:
    assert ways_out(stack, service) == []


def test_what_a_producer_publishes_over_tls_is_folded(
    stack: ComposeStack, published: list[int]
) -> None:
    assert_nothing_is_lost(stack, published)


def test_what_is_posted_over_https_is_folded(
    stack: ComposeStack, published: list[int], tmp_path: Path
) -> None:
    file = tmp_path / "posted.jsonl"
    visits = 20
    published.append(write_visits(file, 10 * VISITS, visits))
    given = {"EVENTS": file.read_text()}
    secrets = ("ca.pem", "intake_token")
    script = Path(__file__).with_name("poster.py")
    said = stack.outsider("producers", secrets, given, ("/poster.py",), script)
    assert f'"accepted":{published[-1]},"rejected":0' in said
    assert_nothing_is_lost(stack, published)


def test_without_object_storage_workers_say_so_and_lose_nothing(
    stack: ComposeStack, published: list[int], tmp_path: Path
) -> None:
    stack.compose("stop", "objects")
    published.append(write_visits(tmp_path / "more.jsonl", 20 * VISITS, VISITS))
    stack.publish(tmp_path / "more.jsonl")
    waits = f"log_files: again in [0-9.]+ s: .*the raw log {LOG}"
    assert until(lambda: bool(re.search(waits, stack.logs("stream", 1000))), 90.0)
    until(lambda: False, 20.0)
    assert stack.states()["stream"] == "healthy"
    stack.compose("start", "objects")
    stack.wait_well(PARTS)
    assert_nothing_is_lost(stack, published)


def test_killed_object_storage_is_started_again_and_has_all(
    stack: ComposeStack, published: list[int]
) -> None:
    stack.kill("objects")
    stack.wait_well(PARTS)
    assert_nothing_is_lost(stack, published)


def test_a_restarted_store_has_all_rows(stack: ComposeStack, published: list[int]) -> None:
    run("docker", "restart", stack.container("redis"))
    stack.wait_well(PARTS)
    assert_nothing_is_lost(stack, published)
    assert "has lost rows" not in stack.logs("stream", 1000)


def test_a_killed_worker_loses_nothing(
    stack: ComposeStack, published: list[int], tmp_path: Path
) -> None:
    before = stack.inspect("stream")["RestartCount"]
    stack.kill("stream")
    published.append(write_visits(tmp_path / "more.jsonl", VISITS, VISITS))
    stack.publish(tmp_path / "more.jsonl")
    stack.wait_well(PARTS)
    assert stack.inspect("stream")["RestartCount"] == before + 1
    assert_nothing_is_lost(stack, published)


def test_a_store_without_data_is_rebuilt(stack: ComposeStack, published: list[int]) -> None:
    volume = f"{stack.project}_redis:/data"
    stack.compose("stop", "redis")
    run(
        "docker",
        "run",
        "--rm",
        "--volume",
        volume,
        "--user",
        "0",
        "--entrypoint",
        "sh",
        image_of("redis"),
        "-c",
        "rm -rf /data/*",
    )
    stack.compose("start", "redis")
    stack.wait_well(PARTS)
    run("docker", "restart", stack.container("stream"))  # it looks at its start, at once
    partitions = KafkaConfig().partitions
    assert until(
        lambda: stack.logs("stream", 1000).count(" users topic=") >= partitions, 180.0
    ), stack.logs("stream")
    assert "has lost rows" in stack.logs("stream", 1000)
    assert_nothing_is_lost(stack, published)


def test_down_and_up_again_loses_nothing(
    stack: ComposeStack, published: list[int], tmp_path: Path
) -> None:
    stack.down()
    stack.up(*PARTS)
    published.append(write_visits(tmp_path / "more.jsonl", 2 * VISITS, VISITS))
    stack.publish(tmp_path / "more.jsonl")
    assert_nothing_is_lost(stack, published)
