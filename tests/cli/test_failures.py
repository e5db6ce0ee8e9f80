"""What the command line says of errors: a sentence and a status, or a bug's trace."""

import errno
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srp4ctr.cli import main as cli
from srp4ctr.cli import settings as settings_command
from srp4ctr.cli.failures import StepError, foreseen
from srp4ctr.embedded.ports import HOST, reserved_ports
from srp4ctr.errors import ArtifactError, MistakeError, OutageError

ITEM = '{"type":"item","event_id":"e1","item_id":"i1","occurred_at":1700000000000}\n'


def run(*words: str) -> int:
    """Return the exit status of ``srp4ctr WORDS``."""
    sys.argv = ["srp4ctr", *words]
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with lines that are not folded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setenv("SRP4CTR_EMBEDDED__DATA_DIR", ".data")  # put back afterwards
    monkeypatch.setenv("SRP4CTR_EMBEDDED__BROKER", "noida")
    monkeypatch.setenv("COLUMNS", "400")
    return tmp_path


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the addresses in the settings, at which no server is."""
    with reserved_ports(4) as (kafka, redis, triton, prometheus):
        addresses = {
            "KAFKA__BOOTSTRAP": f"{HOST}:{kafka}",
            "FEATURES__REDIS": f"{HOST}:{redis}",
            "TRITON__GRPC": f"{HOST}:{triton}",
            "MONITORING__PROMETHEUS_URL": f"http://{HOST}:{prometheus}",
        }
    for name, address in addresses.items():
        monkeypatch.setenv(f"SRP4CTR_{name}", address)
    return addresses


@pytest.mark.parametrize(
    ("command", "server"),
    [
        ("events publish items.jsonl", "KAFKA__BOOTSTRAP"),
        ("events replay-rejected", "KAFKA__BOOTSTRAP"),
        ("stream rebuild", "KAFKA__BOOTSTRAP"),
        ("features forget 42", "KAFKA__BOOTSTRAP"),
        ("features check", "KAFKA__BOOTSTRAP"),
        ("features show 42", "FEATURES__REDIS"),
        ("model rank 42 50", "TRITON__GRPC"),
        ("monitor report", "MONITORING__PROMETHEUS_URL"),
    ],
)
def test_a_server_that_is_away_is_an_outage_that_names_it_and_what_to_do(
    command: str,
    server: str,
    folder: Path,
    nothing_runs: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "items.jsonl").write_text(ITEM)
    CliRunner().invoke(cli.app, ["features", "apply"])
    assert run(*command.split()) == OutageError.exit_status
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert nothing_runs[server] in line
    assert "srp4ctr doctor" in line or "srp4ctr stack" in line


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("audit list --since x", "--since 'x' is not a date"),
        ("settings show nothing", "there is no setting nothing"),
        ("--data-dir nowhere model list", "nothing runs in nowhere"),
        ("model fill /proc/nothing", "there is no /proc/nothing"),
        ("capacity --users 0 --items 1 --events-per-s 1 --requests-per-s 1", "--users"),
        ("stack up --broker rabbit", "embedded.broker: Input should be 'noida' or"),
    ],
)
def test_a_mistake_is_one_sentence(
    command: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command.split()) == MistakeError.exit_status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {sentence}")


@pytest.mark.parametrize(
    "command",
    [
        "events publish items.jsonl",
        "events replay-rejected",
        "events serve",
        "stream run",
        "stream rebuild",
        "stack init",
        "monitor run",
        "monitor report",
        "features forget 42",
        "features check",
        "features show 42",
        "model rank 42 50",
        "model recommend 42",
        "model refresh",
        "model promote",
        "model rollback",
        "monitor open --no-browser",
        "events restore old",
    ],
)
def test_a_project_without_a_stack_uses_no_server_of_another_one(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "items.jsonl").write_text(ITEM)
    assert run(*command.split()) == MistakeError.exit_status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no stack runs in .data, and no setting has the address")
    assert "srp4ctr stack up" in line


def test_what_a_check_found_is_no_bug(
    nothing_runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("doctor") == 1
    shown = capsys.readouterr().err
    assert "checks found something to fix" in shown
    assert "Traceback" not in shown


def test_a_bug_keeps_its_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(section: str) -> None:
        raise KeyError(section)

    monkeypatch.setattr(settings_command, "in_force", breaks)
    assert run("settings", "show", "triton") == 1
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert "KeyError: 'triton'" in shown
    assert "this is a bug of srp4ctr" in shown


def test_with_debug_a_mistake_has_its_trace_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--debug", "audit", "list", "--since", "x") == MistakeError.exit_status
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "a.jsonl"), MistakeError),
        (PermissionError(errno.EACCES, "Permission denied", "a.jsonl"), MistakeError),
        (OSError(errno.ENOSPC, "No space left on device"), OutageError),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), OutageError),
        (TimeoutError(), OutageError),
        (ArtifactError("damaged"), ArtifactError),
        (ModuleNotFoundError("no torch", name="torch"), MistakeError),
        (ModuleNotFoundError("no srp4ctr.x", name="srp4ctr.x"), None),
        (ValueError("a wrong shape"), None),
    ],
)
def test_each_error_is_of_one_kind(error: Exception, kind: type[Exception] | None) -> None:
    found = foreseen(error, ["model", "refresh"])
    assert (type(found) if found else None) is kind
    assert kind is None or str(found)
    expected = getattr(kind, "exit_status", 1)
    assert StepError("Train", error, "logs", "").exit_status == expected
