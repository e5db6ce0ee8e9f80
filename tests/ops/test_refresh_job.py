"""Refreshes: one that fails does not end the next, and SIGTERM ends them in order."""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srp4ctr.atomic_files import read_json
from srp4ctr.features.bundles.gates import Gate
from srp4ctr.ops import refresh_job
from srp4ctr.ops.refresh_job import (
    Display,
    RefreshPlan,
    refresh_and_record,
    serve_if_ready,
)
from srp4ctr.settings import Settings
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.loop.progress import silent
from srp4ctr.training.refresh import reports
from srp4ctr.training.refresh.reports import (
    STATUS_FILE,
    RefreshOutcome,
    RefreshReport,
    RefreshStatus,
)
from srp4ctr.triton_repo.deployment.live_repository import Serving
from srp4ctr.triton_repo.deployment.one_server import Promotion, PromotionError

PASSED, SKIPPED = Gate(gate="auc", passed=True), Gate(gate="champion_auc", passed=None)
FAILED = Gate(gate="latency", passed=False)


def a_report() -> RefreshReport:
    return RefreshReport(
        version="v3",
        folder=Path("v3"),
        outcome=RefreshOutcome.KEPT,
        gates=(PASSED, SKIPPED),
    )


@pytest.mark.parametrize(
    ("gate", "outcome"),
    [(PASSED, RefreshOutcome.PROMOTED), (FAILED, RefreshOutcome.REFUSED)],
)
def test_a_ready_bundle_is_promoted_and_its_report_says_so(
    gate: Gate, outcome: RefreshOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Promotion(
        serving=Serving(), gates=(gate,), refusal="" if gate.passed else "slow"
    )
    monkeypatch.setattr(refresh_job, "check_and_promote", lambda *_: found)
    ready = replace(a_report(), folder=tmp_path, outcome=RefreshOutcome.READY)
    report = serve_if_ready(Settings(), ready, silent)
    assert (report.outcome, report.gates[-1]) == (outcome, gate)
    assert report.seconds.keys() == {"promote"}
    assert reports.read(tmp_path) == report


def test_a_ready_bundle_that_does_not_serve_is_an_error_and_stays_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Promotion(serving=Serving(), gates=(PASSED,), refusal="v3 does not load")
    monkeypatch.setattr(refresh_job, "check_and_promote", lambda *_: found)
    ready = replace(a_report(), folder=tmp_path, outcome=RefreshOutcome.READY)
    with pytest.raises(PromotionError, match="v3 does not load"):
        serve_if_ready(Settings(), ready, silent)
    assert reports.read(tmp_path) is None


@pytest.mark.parametrize("outcome", [RefreshOutcome.KEPT, RefreshOutcome.REFUSED])
def test_a_bundle_that_is_not_ready_is_not_promoted(
    outcome: RefreshOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(refresh_job, "check_and_promote")
    report = replace(a_report(), outcome=outcome)
    assert serve_if_ready(Settings(), report, silent) is report


def fail() -> RefreshReport:
    raise ConnectionError("no Triton answers")


def test_a_turn_leaves_word_of_how_it_ended(tmp_path: Path) -> None:
    began_ms = round(time.time() * 1000)
    refresh_and_record(a_report, tmp_path, 60.0)
    report = read_json(tmp_path / STATUS_FILE, RefreshStatus)
    assert report is not None
    assert (report.version, report.outcome, report.error) == ("v3", "kept", "")
    assert report.gates == {"auc": True}
    assert report.interval_s == 60.0
    assert began_ms <= report.last_success_ms <= report.ended_at_ms
    with pytest.raises(ConnectionError):
        refresh_and_record(fail, tmp_path, 60.0)
    failed = read_json(tmp_path / STATUS_FILE, RefreshStatus)
    assert failed is not None
    assert failed.error == "ConnectionError: no Triton answers"
    assert failed.last_success_ms == report.last_success_ms
    assert failed.gates == {}


def test_the_refresh_process_alone_gives_way() -> None:
    code = (
        "import os\n"
        "from srp4ctr.training.config import RefreshConfig\n"
        "from srp4ctr.training.loop.distributed import yield_to_serving\n"
        "before = os.nice(0)\n"
        "yield_to_serving(RefreshConfig(niceness=7, max_gpu_memory_share=0.5))\n"
        "print(os.nice(0) - before)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    # At most 19, where this test runs niced already.
    assert int(result.stdout) == min(7, 19 - os.nice(0))


@pytest.mark.parametrize("is_wrapped", [False, True])
@pytest.mark.parametrize(("every", "status"), [("", 143), ("1h", 0)])
def test_one_refresh_that_is_ended_did_not_succeed(
    every: str,
    status: int,
    is_wrapped: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ended(*_: Any) -> RefreshReport:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        except SystemExit as end:
            if is_wrapped:  # as DuckDB does
                raise RuntimeError("counting rows failed: SystemExit") from end
            raise
        raise AssertionError

    said: list[str] = []
    monkeypatch.setattr(refresh_job, "_refresh", ended)
    monkeypatch.setattr(
        "srp4ctr.training.loop.distributed.yield_to_serving", lambda _: None
    )
    settings = Settings(training=RefreshConfig(bundles_dir=str(tmp_path)))
    display: Any = Display(progress=nullcontext, show=said.append, say=said.append)  # type: ignore[arg-type]
    with pytest.raises(SystemExit) as end:
        refresh_job.run(settings, RefreshPlan(every=every), display)
    assert end.value.code == status
    assert "the same command goes on where this one was" in said[-1]
    report = read_json(tmp_path / STATUS_FILE, RefreshStatus)
    assert report is not None
    assert report.error == "stopped"
