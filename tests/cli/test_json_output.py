"""``--json``: one object on standard output, by the published schema, errors too."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError
from typer.main import get_command
from typer.testing import CliRunner

from srp4ctr.cli.json_output import OUTPUTS, is_requested, print_error, write_schemas
from srp4ctr.cli.main import app
from srp4ctr.embedded.ports import HOST, reserved_ports
from srp4ctr.ops.doctor import run as doctor
from srp4ctr.ops.doctor.check_result import is_wrong
from tests.cli.json_answers import SCHEMAS, answer, committed_schema, problem, without_more
from tests.structure.source_tree import ROOT

CLICKS = "user,item,time\n1,50,1600000000\n2,60,1600000009\n"
BAD = "1,50,1600000000\n,60,1600000009\n"
ARGUMENTS = {"model rank": ("42", "50"), "model recommend": ("42",)}
NEED_SERVERS = ("features check", "model rank", "model recommend", "model rollback")


def run(
    *typed: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Return the end of ``srp4ctr TYPED`` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "srp4ctr.cli", *typed],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "300", **(env or {})},
        check=False,
    )


@pytest.fixture
def nothing_runs() -> dict[str, str]:
    """Return settings with addresses at which no server is."""
    with reserved_ports(3) as (kafka, redis, grpc):
        return {
            "SRP4CTR_KAFKA__BOOTSTRAP": f"{HOST}:{kafka}",
            "SRP4CTR_FEATURES__REDIS": f"{HOST}:{redis}",
            "SRP4CTR_TRITON__GRPC": f"{HOST}:{grpc}",
        }


def command_of(name: str) -> Any:
    found: Any = get_command(app)
    for word in name.split():
        found = found.commands[word]
    return found


@pytest.mark.parametrize("command", OUTPUTS)
def test_the_command_has_the_option_and_its_help_names_the_schema(command: str) -> None:
    (option,) = [param for param in command_of(command).params if "--json" in param.opts]
    assert "srp4ctr schema" in option.help


def test_the_published_schemas_are_those_of_the_types(tmp_path: Path) -> None:
    fresh = {path.name: path.read_text() for path in write_schemas(tmp_path)}
    published = {path.name: path.read_text() for path in SCHEMAS.iterdir()}
    assert published == fresh, "run: make schema"


@pytest.mark.parametrize("command", OUTPUTS)
def test_the_command_line_prints_the_published_schema(command: str) -> None:
    done = CliRunner().invoke(app, ["schema", *command.split()])
    assert json.loads(done.stdout) == committed_schema(command)


def test_the_commands_with_a_schema_are_listed() -> None:
    assert CliRunner().invoke(app, ["schema"]).stdout.split("\n")[:-1] == sorted(OUTPUTS)


def test_a_command_without_a_schema_is_refused() -> None:
    done = CliRunner().invoke(app, ["schema", "model", "fill"])
    assert str(done.exception).startswith("no schema of 'model fill'")


@pytest.mark.parametrize("command", OUTPUTS)
def test_a_schema_is_valid_and_describes_every_object(command: str) -> None:
    schema = committed_schema(command)
    Draft202012Validator.check_schema(schema)
    for each in schema["$defs"].values():
        assert each["description"]
        assert each["required"] == list(each["properties"])
    described = [
        "description" in field
        for each in schema["$defs"].values()
        for field in each["properties"].values()
    ]
    assert sum(described) > len(described) / 3


def test_a_schema_refuses_other_objects() -> None:
    schema = Draft202012Validator(without_more(committed_schema("doctor")))
    good: dict[str, object] = {"ok": True, "to_fix": 0, "findings": []}
    schema.validate(good)
    others: list[object] = [{"ok": True}, {**good, "more": 1}, {**good, "ok": "yes"}, []]
    for bad in others:
        with pytest.raises(ValidationError):
            schema.validate(bad)


def test_the_doctor_prints_its_findings_and_keeps_its_status(
    tmp_path: Path, nothing_runs: dict[str, str]
) -> None:
    done = run("doctor", "--json", cwd=tmp_path, env=nothing_runs)
    found = answer("doctor", done.stdout)
    assert (done.returncode, found["ok"]) == (1, False)
    states = [each["state"] for each in found["findings"]]
    assert found["to_fix"] == states.count("wrong") + states.count("open") > 0
    assert "checks found something to fix" in done.stderr
    as_text = run("doctor", cwd=tmp_path, env=nothing_runs)
    assert as_text.returncode == 1
    shown = " ".join(as_text.stdout.split())
    for finding in found["findings"]:
        assert f"{finding['state']} {finding['check']}" in shown


def test_a_new_check_of_the_doctor_is_in_its_json(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line in ``CHECKS`` is all that a check needs."""
    one = {"host": {"secrets": "in_the_open"}}
    monkeypatch.setattr(doctor, "CHECKS", one)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    found = answer("doctor", done.stdout)
    assert [finding["check"] for finding in found["findings"]] == ["secrets", "grafana"]
    assert (found["ok"], done.exit_code) == (True, 0)


def test_a_stack_that_does_not_run_is_an_empty_object(tmp_path: Path) -> None:
    done = run("stack", "status", "--json", cwd=tmp_path)
    empty = {"ok": True, "running": [], "ended": [], "settings": {}}
    assert (answer("stack status", done.stdout), done.returncode) == (empty, 0)


def test_an_import_prints_what_it_wrote(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text(CLICKS)
    words = ("events", "import", "clicks.csv", "--format", "clicks", "--json")
    typed = (*words, "--set", "time_unit=s")
    done = run(*typed, "--out", "events.jsonl", cwd=tmp_path)
    found = answer("events import", done.stdout)
    assert (found["outcome"], found["to"]) == ("written", "events.jsonl")
    assert found["rows"] == 2
    assert found["events"] == len((tmp_path / "events.jsonl").read_text().splitlines())
    assert sum(found["by_kind"].values()) == found["events"]
    assert (found["first_ms"], found["last_ms"]) == (1_600_000_000_000, 1_600_000_009_000)
    assert any("days old" in note for note in found["notes"])
    dry = answer("events import", run(*typed, "--dry-run", cwd=tmp_path).stdout)
    assert dry == {**found, "outcome": "dry_run", "to": ""}


def test_an_import_with_bad_rows_prints_them_and_keeps_its_status(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text("user,item,time\n" + BAD)
    typed = ("events", "import", "clicks.csv", "--format", "clicks", "--json", "--dry-run")
    done = run(*typed, "--set", "time_unit=s", cwd=tmp_path)
    found = answer("events import", done.stdout)
    assert (found["outcome"], found["bad_rows"], done.returncode) == ("refused", 1, 2)
    assert found["dropped"][0]["places"] == ["clicks.csv line 3"]
    assert "--skip-bad" in done.stderr
    good = run(*typed, "--set", "time_unit=s", "--skip-bad", cwd=tmp_path)
    assert answer("events import", good.stdout)["outcome"] == "dry_run"
    assert good.returncode == 0


def test_an_action_without_a_code_is_a_note_of_the_import(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,ts,action\n1,2,1600000000,wink\n")
    mapping = 'user="user"\nitem="item"\ntime="ts"\ntime_unit="s"\naction="$action"\n'
    (tmp_path / "import.toml").write_text(mapping + 'behavior="true"\n')
    done = run("events", "import", "log.csv", "--json", "--dry-run", cwd=tmp_path)
    notes = answer("events import", done.stdout)["notes"]
    assert any("[streams.action_codes]\nwink = " in note for note in notes)


@pytest.mark.parametrize("command", NEED_SERVERS)
def test_an_outage_is_an_object_and_a_sentence(
    command: str, tmp_path: Path, nothing_runs: dict[str, str]
) -> None:
    run("features", "apply", cwd=tmp_path, env=nothing_runs)
    typed = (*command.split(), *ARGUMENTS.get(command, ()))
    as_text = run(*typed, cwd=tmp_path, env=nothing_runs)
    done = run(*typed, "--json", cwd=tmp_path, env=nothing_runs)
    error = problem(command, done.stdout)
    assert error["exit_status"] == done.returncode == as_text.returncode != 0
    assert error["where"] == command
    assert error["what"] in " ".join(done.stderr.split())
    if error["kind"] == "outage":
        assert "srp4ctr doctor" in error["do"]


@pytest.mark.parametrize("command", sorted(OUTPUTS.keys() - {"stack status"}))
def test_a_mistake_in_the_command_is_an_object(command: str, tmp_path: Path) -> None:
    done = run(*command.split(), "--json", "--no-such-option", cwd=tmp_path)
    error = problem(command, done.stdout)
    assert (error["kind"], error["exit_status"], done.returncode) == ("mistake", 2, 2)
    assert "--no-such-option" in error["what"]
    assert f"srp4ctr {command} --help" in error["do"]


def test_formats_have_no_json(tmp_path: Path) -> None:
    done = run("events", "import", "--formats", "--json", cwd=tmp_path)
    assert "leave out --formats" in problem("events import", done.stdout)["what"]


def test_a_bug_is_an_object_and_its_trace_is_on_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_error(KeyError("shape"), ["model", "rank", "--json"])
    error = problem("model rank", capsys.readouterr().out)
    assert (error["kind"], error["exit_status"]) == ("bug", 1)
    assert error["what"] == "KeyError('shape')"


def test_ctrl_c_is_an_object() -> None:
    """The signal comes while the command reads its settings."""
    program = (
        "import os, signal, sys\n"
        "from srp4ctr.cli import doctor, main\n"
        "doctor.load = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.argv = ['srp4ctr', 'doctor', '--json']; main.main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    error = problem("doctor", result.stdout)
    assert (error["kind"], result.returncode) == ("interrupted", 128 + signal.SIGINT)
    assert result.stderr == "interrupted\n"


def test_without_the_option_nothing_of_it_is_printed(tmp_path: Path) -> None:
    done = run("model", "rank", "42", "50", cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 2)
    assert not is_requested(["model", "rank", "42", "--", "--json"])


def test_a_finding_that_needs_work_makes_the_answer_not_ok() -> None:
    from srp4ctr.cli.json_output import doctor_output

    assert not doctor_output([is_wrong("a", "b", "c")]).ok
    assert doctor_output([]).ok
