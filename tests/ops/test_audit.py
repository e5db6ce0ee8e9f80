"""The audit log has an entry before and after each operation, whatever happens."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from srp4ctr.features.bundles import bundle
from srp4ctr.ops.audit import (
    BEGUN,
    DONE,
    FAILED,
    REFUSED,
    AuditLog,
    audit_log,
    read_entries,
)
from srp4ctr.ops.bundles import what_serves
from srp4ctr.ops.promotion_service import check_and_promote
from srp4ctr.settings import Settings, load
from tests.triton_repo.tiny_graphs import SIZES


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    return AuditLog(path=tmp_path / "audit.jsonl", actor="ann@here")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of an operator whose stack does not run, with one damaged bundle."""
    monkeypatch.chdir(tmp_path)
    for name in ("TRITON__GRPC", "KAFKA__BOOTSTRAP", "FEATURES__REDIS"):
        monkeypatch.setenv(f"SRP4CTR_{name}", "127.0.0.1:1")
    monkeypatch.setenv("SRP4CTR_AUDIT__ACTOR", "ann")
    monkeypatch.setenv("COLUMNS", "250")
    folder = tmp_path / ".data" / "bundles" / "v1"
    folder.mkdir(parents=True)
    card = bundle.BundleManifest(version="v1", created_at_ms=1, sizes=SIZES)
    bundle.write_card(folder, card)
    return load()


def shown(*words: str) -> str:
    return CliRunner().invoke(app, ["audit", "list", *words]).output


def test_an_operation_is_one_line_before_and_one_after(log: AuditLog) -> None:
    serving = ["v1"]
    with log.audited("model promote", "v2", state=lambda: serving[0]):
        (begun,) = map(json.loads, log.path.read_text().splitlines())
        serving[0] = "v2"
    assert (begun["result"], begun["before"], begun["after"]) == (BEGUN, "v1", "")
    assert len(log.path.read_text().splitlines()) == 2
    ((entry,), unreadable) = read_entries(log.path)
    assert (entry.before, entry.after, entry.result, unreadable) == ("v1", "v2", DONE, 0)
    found = (entry.actor, entry.command, entry.subject)
    assert found == ("ann@here", "model promote", "v2")
    assert entry.operation == begun["deed"]


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (ValueError("worse"), REFUSED),
        (OSError("full"), FAILED),
        (KeyboardInterrupt(), FAILED),
    ],
)
def test_what_was_refused_or_failed_is_there_with_its_reason(
    log: AuditLog, error: BaseException, result: str
) -> None:
    with pytest.raises(type(error)), log.audited("model promote", "v2", lambda: "v1"):
        raise error
    ((entry,), _) = read_entries(log.path)
    assert (entry.result, entry.after) == (result, "v1")
    assert entry.detail.startswith(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("is_written", [True, False])
def test_a_state_that_fails_or_a_full_disk_hides_no_error(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch, is_written: bool
) -> None:
    def state() -> str:
        raise OSError("serving.json is gone")

    def full(*_: object) -> None:
        raise OSError("no space left")

    def operation() -> None:
        with log.audited("model promote", "v2", state):
            if not is_written:
                monkeypatch.setattr(AuditLog, "_append", full)
            raise KeyError("the real one")

    with pytest.raises(KeyError, match="the real one"):
        operation()
    ((entry,), _) = read_entries(log.path)
    assert entry.result == (FAILED if is_written else BEGUN)
    assert "serving.json is gone" in entry.before
    if is_written:
        assert "serving.json is gone" in entry.after
        assert entry.detail == "KeyError: 'the real one'"


def test_nothing_is_done_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = AuditLog(path=tmp_path / "file" / "audit.jsonl", actor="ann")
    done = []
    with pytest.raises(OSError, match="file"), log.audited("model rollback"):
        done.append(1)
    assert done == []


def test_a_torn_line_costs_no_other(log: AuditLog) -> None:
    with log.audited("model rollback"):
        pass
    with log.path.open("ab") as file:
        file.write(b'{"deed": "half of a li')  # killed while it wrote
    with log.audited("features apply"):
        pass
    entries, unreadable = read_entries(log.path)
    assert [entry.command for entry in entries] == ["model rollback", "features apply"]
    assert unreadable == 1


def test_a_killed_promotion_is_an_unfinished_operation(log: AuditLog) -> None:
    program = (
        "import os, signal, sys, pathlib; from srp4ctr.ops.audit import AuditLog\n"
        "log = AuditLog(path=pathlib.Path(sys.argv[1]), actor='ann')\n"
        "with log.audited('model promote', 'v2'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run([sys.executable, "-c", program, str(log.path)], check=False)
    assert result.returncode == -signal.SIGKILL
    ((entry,), _) = read_entries(log.path)
    assert (entry.subject, entry.result) == ("v2", BEGUN)


def test_writers_at_once_lose_no_line(log: AuditLog) -> None:
    def write(number: int) -> None:
        with log.audited("model promote", f"v{number}"):
            pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(1, 65)))
    entries, unreadable = read_entries(log.path)
    assert {entry.subject for entry in entries} == {f"v{number}" for number in range(1, 65)}
    assert unreadable == 0


def test_others_cannot_read_it(log: AuditLog) -> None:
    with log.audited("model rollback"):
        pass
    assert os.stat(log.path).st_mode & 0o007 == 0


def test_a_refused_promotion_and_a_refresh_are_listed(settings: Settings) -> None:
    folder = Path(settings.training.bundles_dir) / "v1"
    refused = CliRunner().invoke(app, ["model", "promote", "v1"])
    assert isinstance(refused.exception, ValueError)
    with pytest.raises(ValueError, match="missing"):
        check_and_promote(settings, folder, "model refresh")
    for words in (["model", "rollback"], ["model", "promote", "v1", "--canary"]):
        CliRunner().invoke(app, words)
    assert audit_log(settings).path == Path(".data/audit.jsonl")
    entries, _ = read_entries(audit_log(settings).path)
    assert [(entry.command, entry.subject, entry.result) for entry in entries] == [
        ("model promote", "v1", REFUSED),
        ("model refresh", "v1", REFUSED),
        ("model rollback", "", REFUSED),
        ("model promote --canary", "v1", REFUSED),
    ]
    assert {entry.before for entry in entries} == {what_serves(settings)} == {"nothing"}
    assert "manifest.json is missing" in shown()
    assert "nothing in" in shown("--since", "2999-01-01")
    assert json.loads(shown("--json"))[0]["actor"] == "ann"


def test_a_date_that_is_none_says_what_to_write(settings: Settings) -> None:
    failed = CliRunner().invoke(app, ["audit", "list", "--since", "last week"])
    assert "write 2026-11-01" in str(failed.exception)
