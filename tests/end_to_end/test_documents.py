"""The pages' code does what they say: it is run as it stands against the demo's stack.

The demo has the well-known ports, which the pages name. Where another program has one of
them, the pages' address is replaced, nothing else, and a warning says so. ``tests/docs``
checks the blocks that are not run here.
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import pytest

from srp4ctr.client.rank_client import RankClient
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.codec import decode
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC, Click
from srp4ctr.testing.fault_injection.topic_reading import end_offsets, read_from
from tests.docs.pages import blocks, commands
from tests.end_to_end.conftest import RunningDemo
from tests.structure.source_tree import ROOT

REPLACED = "addresses of the pages are replaced"
pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings(f"default:{REPLACED}"),
]
# Pages whose Python is run by a test of their own.
ELSEWHERE = {
    "docs/operators.md": "tests/features/offline/test_other_engines.py",
    "docs/security.md": "tests/triton_repo/client/test_tls.py",
}
PAGES = sorted({block.page for block in blocks("python")} - ELSEWHERE.keys())
KAFKA, TRITON = "127.0.0.1:9092", "127.0.0.1:8001"


@pytest.fixture(scope="module")
def addresses(demo: RunningDemo) -> dict[str, str]:
    """Return the demo's address for each of the pages'; a warning names other ones."""
    found = tomllib.loads((demo.folder / "stack.toml").read_text())
    actual = {KAFKA: found["kafka"]["bootstrap"], TRITON: found["triton"]["grpc"]}
    if moved := {page: here for page, here in actual.items() if page != here}:
        warnings.warn(f"{REPLACED}, their ports are taken: {moved}", stacklevel=1)
    return actual


def moved(text: str, addresses: dict[str, str]) -> str:
    """Return ``text`` with the demo's addresses: as it stands where they are the same."""
    for before, after in addresses.items():
        text = text.replace(before, after)
    return text


def python_of(page: str, addresses: dict[str, str]) -> tuple[dict[str, Any], str]:
    """Run a page's Python from top to bottom; return what it made and printed."""
    said = io.StringIO()
    with RankClient(addresses[TRITON]) as client, contextlib.redirect_stdout(said):
        here: dict[str, Any] = {}
        for block in blocks("python"):
            if block.page == page:
                here["client"] = client  # an earlier block has closed its own
                exec(moved(block.text, addresses), here)
    return here, said.getvalue()


def test_the_readme_s_python_publishes_and_ranks(addresses: dict[str, str]) -> None:
    made, said = python_of("README.md", addresses)
    assert re.search(r"^v\d+ \w+ \(", said), said
    assert len(made["ranking"].scores) == 3


def test_the_first_hour_s_python_publishes_and_ranks(addresses: dict[str, str]) -> None:
    made, _ = python_of("docs/start.md", addresses)
    assert made["sent"].get().topic == "behavior-events"
    assert made["answer"].as_numpy("click_probability").shape == (1, 3)


def test_the_callers_python_ranks(addresses: dict[str, str]) -> None:
    made, said = python_of("docs/callers.md", addresses)
    assert re.search(r"^v\d+ \w+ \(", said, re.MULTILINE), said
    assert len(made["shown"]) == 3  # impressions, to be published
    assert len(made["ranking"].scores) == 2


def test_the_hotel_recipe_s_python_ranks(addresses: dict[str, str]) -> None:
    made, _ = python_of("docs/recipes/hotel_search.md", addresses)
    assert len(made["ranking"].scores) == 4


def test_the_producers_python_publishes_an_event_each(addresses: dict[str, str]) -> None:
    kafka = KafkaConfig(bootstrap=addresses[KAFKA])
    ends = end_offsets(kafka, BEHAVIOR_EVENTS_TOPIC)
    python_of("docs/producers.md", addresses)
    records = read_from(kafka, BEHAVIOR_EVENTS_TOPIC, ends)
    sent = [record for record in records if b"5d2a77c0" in record.value]
    assert [record.key for record in sent] == [b"42", b"42"]
    for record in sent:
        event = decode(record.value, record.timestamp)
        assert isinstance(event, Click)
        assert event.item_id == "50"


def test_another_model_learns_from_the_vectors(
    addresses: dict[str, str],
    demo: RunningDemo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (typed,) = [each for _, each in commands() if "model vectors" in each]
    typed = typed.replace(
        "srp4ctr", f"{sys.executable} -m srp4ctr.cli --data-dir {demo.folder}"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    monkeypatch.chdir(tmp_path)
    words = typed.replace("v2", "v1").split()
    subprocess.run(words, check=True, env=environment, capture_output=True)
    made, _ = python_of("docs/own_model.md", addresses)
    assert made["booster"].num_trees() > 0


def test_pseudonyms_leave_the_producer_and_the_caller(
    addresses: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pseudonym.key").write_text("0" * 64)
    made, _ = python_of("docs/privacy.md", addresses)
    with made["publisher"], made["client"] as client:
        ranking = client.rank("user-1", ["item-1"], deadline_s=5.0)
    assert made["pseudonyms"].of("user-1").startswith("p-")
    assert ranking.status == "cold_user"  # the demo knows no such pseudonym


def test_every_page_with_python_is_run() -> None:
    here = [*("callers", "own_model", "privacy", "producers", "recipes/hotel_search")]
    here.append("start")
    assert ["README.md", *(f"docs/{name}.md" for name in here)] == PAGES
    for page, test in ELSEWHERE.items():
        assert page.rpartition("/")[2] in (ROOT / test).read_text()


def test_node_ranks(addresses: dict[str, str], tmp_path: Path) -> None:
    if not shutil.which("npm"):
        pytest.skip("npm is not installed (Debian: npm)")
    shutil.copytree(ROOT / "docs" / "callers", tmp_path / "docs" / "callers")
    typed = [each for _, each in commands() if each.startswith(("npm ", "node "))]
    assert len(typed) == 2
    for each in typed:
        words = moved(each, addresses).split()
        result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    assert re.match(r"v\d+ \w+ \{ '50': 0\.\d+", result.stdout), result.stdout
