import pytest
from typer.testing import CliRunner

from srp4ctr.cli.main import app


def refusal(*command: str) -> str:
    return str(CliRunner().invoke(app, command).exception)


def test_a_data_folder_without_a_stack_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SRP4CTR_EMBEDDED__DATA_DIR", ".data")  # put back afterwards
    message = refusal("--data-dir", "/nowhere", "features", "show", "42")
    assert message == "nothing runs in /nowhere: srp4ctr --data-dir /nowhere stack up"


def test_a_rebuild_since_no_date_or_the_future_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("KAFKA__BOOTSTRAP", "FEATURES__REDIS"):
        monkeypatch.setenv(f"SRP4CTR_{name}", "127.0.0.1:1")  # not reached
    assert "write 2026-11-01" in refusal("stream", "rebuild", "--since", "yesterday")
    assert "in the future" in refusal("stream", "rebuild", "--since", "2999-01-01")
