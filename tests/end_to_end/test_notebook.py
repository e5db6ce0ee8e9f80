"""The notebook runs from top to bottom, and its model beats what is popular."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.structure.source_tree import ROOT

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1500)]
NOTEBOOK = ROOT / "docs" / "notebooks" / "first_ranking.ipynb"
REPORT = "\n\nprint(json.dumps({'results': results, 'labels': [labels, due]}))"


def code() -> str:
    """Return the code of all cells, in their order."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    found = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return "\n\n".join(found)


def test_it_is_kept_without_outputs_of_some_machine() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert [cell["id"] for cell in cells if cell.get("outputs")] == []
    compile(code(), str(NOTEBOOK), "exec")


def test_every_cell_runs_and_the_model_beats_popularity(tmp_path: Path) -> None:
    given = {
        "TMPDIR": str(tmp_path),  # of its project
        "PYTHONPATH": str(ROOT),
        "SRP4CTR_EMBEDDED__SERVING_DIR": str(ROOT / ".serving"),
        "SRP4CTR_EMBEDDED__PORTS": "random",
    }
    script = tmp_path / "notebook.py"
    script.write_text(code() + REPORT, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, **given},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=1400)
    finally:
        stop(process.pid, tmp_path, {**os.environ, **given})
    assert process.returncode == 0, said
    assert "v1: promoted" in said
    assert "the next ranking knows of it after" in said
    found = json.loads(said.splitlines()[-1])
    assert found["labels"][0] == found["labels"][1]
    auc = {name: each["AUC within a visit"] for name, each in found["results"].items()}
    assert auc["SRP4CTR"] > auc["popularity"], auc


def stop(leader: int, folder: Path, environment: dict[str, str]) -> None:
    """End the notebook's worker and its stack, which a failed cell leaves running."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
    for project in folder.glob("*/shop"):
        words = [sys.executable, "-m", "srp4ctr.cli", "stack", "down"]
        subprocess.run(
            words, cwd=project, env=environment, capture_output=True, check=False
        )
