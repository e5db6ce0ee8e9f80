"""Images are pinned by the digests of a registry: here a small one, over HTTP."""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from srp4ctr.embedded.ports import HOST
from srp4ctr.ops.image_pins import FILES, parse_image, pin
from tests.structure.source_tree import ROOT

DIGEST = "sha256:" + hashlib.sha256(b"an index").hexdigest()
TOKEN = "a-token"


class Registry(BaseHTTPRequestHandler):
    """Answers as a registry: a token first, then the digest of the index."""

    def do_HEAD(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send_response(401)
            realm = f"http://{self.headers['Host']}/token"
            scope = 'scope="repository:team/tool:pull"'
            value = f'Bearer realm="{realm}",service="here",{scope}'
            self.send_header("WWW-Authenticate", value)
        elif self.path == "/v2/team/tool/manifests/1.0":
            self.send_response(200)
            is_index = "image.index" in self.headers["Accept"]
            self.send_header("Docker-Content-Digest", DIGEST if is_index else "none")
        else:
            self.send_response(404)
        self.end_headers()

    def do_GET(self) -> None:
        is_good = self.path == "/token?service=here&scope=repository%3Ateam%2Ftool%3Apull"
        self.send_response(200 if is_good else 403)
        self.end_headers()
        self.wfile.write(json.dumps({"token": TOKEN}).encode())

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def registry() -> Iterator[str]:
    with ThreadingHTTPServer((HOST, 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{HOST}:{server.server_port}"
        server.shutdown()


def test_images_are_pinned_by_the_digest_of_their_index(
    registry: str, tmp_path: Path
) -> None:
    image = f"{registry}/team/tool:1.0"
    (tmp_path / "Dockerfile").write_text(f"FROM {image} AS base\nFROM base AS other\n")
    compose = f"    image: {image} # ours\n    image: srp4ctr-stream:0.2.0\n"
    (tmp_path / "compose.yaml").write_text(compose)
    files = ("Dockerfile", "compose.yaml")
    done = pin(tmp_path, files, "http")
    assert (done.digests, done.failures) == ({image: DIGEST}, {})
    pinned = f"{image}@{DIGEST}"
    text = (tmp_path / "Dockerfile").read_text()
    assert text == f"FROM {pinned} AS base\nFROM base AS other\n"
    assert (tmp_path / "compose.yaml").read_text() == compose.replace(image, pinned)
    assert pin(tmp_path, files, "http").digests == {}  # they are pinned


def test_an_image_that_is_missing_keeps_its_tag(registry: str, tmp_path: Path) -> None:
    text = f"FROM {registry}/team/tool:2.0\n"
    (tmp_path / "Dockerfile").write_text(text)
    done = pin(tmp_path, ["Dockerfile"], "http")
    (reason,) = done.failures.values()
    assert reason.startswith(f"{registry}/team/tool:2.0: HTTP Error 404")
    assert (tmp_path / "Dockerfile").read_text() == text


def test_a_registry_that_is_away_is_named_with_what_to_do(tmp_path: Path) -> None:
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("FROM 127.0.0.1:9/team/tool:1.0\n")
    result = subprocess.run(
        [sys.executable, "-m", "srp4ctr.ops.image_pins"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("not pinned: 127.0.0.1:9/team/tool:1.0: ")
    assert "Run make pin-images where these registries can be reached" in result.stderr


def test_dockers_defaults_complete_a_name() -> None:
    for name, found in {
        "redis:7.4": ("registry-1.docker.io", "library/redis", "7.4"),
        "apache/kafka:4.4.0": ("registry-1.docker.io", "apache/kafka", "4.4.0"),
        "nvcr.io/nvidia/tritonserver:25.08-py3": (
            "nvcr.io",
            "nvidia/tritonserver",
            "25.08-py3",
        ),
    }.items():
        image = parse_image(name)
        assert (image.registry, image.repository, image.tag) == found
