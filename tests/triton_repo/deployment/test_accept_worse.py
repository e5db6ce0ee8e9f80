"""A bundle that is worse than a one-line rule serves only if an operator accepts it."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.gates import Gate
from srp4ctr.ops import promotion_service
from srp4ctr.ops.audit import AuditEntry, audit_log, read_entries
from srp4ctr.ops.promotion_service import PromotionPlan, run_promotion
from srp4ctr.settings import Settings
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.training.refresh import reports
from srp4ctr.training.refresh.reports import RefreshOutcome, RefreshReport
from tests.cli.json_answers import answer
from tests.triton_repo.bundles import MakeBundle, a_check
from tests.triton_repo.conftest import Server

WORSE = Gate(gate="rule_of_thumb", passed=False, value=-0.02, note="popular_2h is better")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a stack that does not run, its files in a folder of the test."""
    monkeypatch.chdir(tmp_path)
    return Settings(kafka=KafkaConfig(bootstrap="127.0.0.1:1"))


@pytest.fixture
def refused(make_bundle: MakeBundle, settings: Settings) -> Path:
    """A whole bundle, v1, that lost to a rule."""
    folder = make_bundle("v1", mark=1.0)
    bundle.write_card(folder, replace(bundle.read(folder), gates=(WORSE,)))
    bundle.write_manifest(folder)
    return folder


def entries(settings: Settings) -> list[AuditEntry]:
    return read_entries(audit_log(settings).path)[0]


def test_without_the_flag_it_is_refused_before_anything_is_checked(
    refused: Path, settings: Settings
) -> None:
    found = promotion_service.check_and_promote(settings, refused)
    assert found.refusal == (
        "v1 was not promoted: rule_of_thumb: popular_2h is better; serving: nothing yet"
    )
    [entry] = entries(settings)
    assert (entry.command, entry.result) == ("model promote", "refused")


def test_a_script_reads_the_refusal_and_its_status(
    refused: Path, settings: Settings
) -> None:
    addresses = {
        "KAFKA__BOOTSTRAP": "127.0.0.1:1",
        "FEATURES__REDIS": "127.0.0.1:1",
        "TRITON__GRPC": "127.0.0.1:1",
        "TRAINING__BUNDLES_DIR": str(refused.parent),
    }
    result = subprocess.run(
        [sys.executable, "-m", "srp4ctr.cli", "model", "promote", "v1", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, **{f"SRP4CTR_{k}": v for k, v in addresses.items()}},
        check=False,
    )
    found = answer("model promote", result.stdout)
    assert (found["outcome"], result.returncode) == ("refused", 4)
    assert "popular_2h is better" in found["refusal"]
    assert found["refusal"] in " ".join(result.stderr.split())


def test_with_the_flag_it_serves_and_audit_log_and_report_say_so(
    refused: Path, settings: Settings, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = settings.model_copy(
        update={"triton": server.triton, "features": server.features}
    )
    monkeypatch.setattr(promotion_service, "compare_store", lambda _: a_check())
    report = RefreshReport(
        version="v1", folder=refused, outcome=RefreshOutcome.REFUSED, gates=(WORSE,)
    )
    reports.write(report)
    found = promotion_service.check_and_promote(live, refused, accept_worse=True)
    assert (found.refusal, found.serving.serving) == ("", "v1")
    [entry] = entries(live)
    assert (entry.command, entry.result) == ("model promote --accept-worse", "done")
    after = reports.read(refused)
    assert after is not None
    assert after.promoted
    assert after.notes == ("promoted with --accept-worse",)


def test_the_flag_passes_over_no_other_check(refused: Path, settings: Settings) -> None:
    with pytest.raises(OutageError):  # the store is checked next, and nothing answers
        promotion_service.check_and_promote(settings, refused, accept_worse=True)


def test_the_flag_needs_the_name_of_a_bundle(settings: Settings) -> None:
    with pytest.raises(MistakeError, match="needs the bundle's name"):
        run_promotion(settings, PromotionPlan(accept_worse=True), print, print)
