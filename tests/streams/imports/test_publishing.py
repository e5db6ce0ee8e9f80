"""``srp4ctr events import`` as it is typed: what reaches Kafka, and what does not."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from srp4ctr.cli.main import app
from srp4ctr.ops.project.new_project import begin
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
from srp4ctr.testing.fault_injection.topic_reading import read_topic
from tests.streams.imports.written import HEADER, ROWS, written

COLUMNS = ["user=user_id", "item=item_id", "time=timestamp", "time_unit=s"]
KINDS = ["action=view", "behavior=true"]
SET = [word for each in (*COLUMNS, *KINDS) for word in ("--set", each)]


def typed(*words: str) -> Result:
    return CliRunner().invoke(app, ["events", "import", *words])


@pytest.mark.kafka
def test_nothing_is_published_of_a_file_with_a_bad_row(
    kafka: KafkaConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRP4CTR_KAFKA__BOOTSTRAP", kafka.bootstrap)
    written(tmp_path, HEADER + ROWS + "u,i,1600000000000,4\n")
    done = typed("ratings.csv", *SET)
    assert "--skip-bad imports the others" in str(done.exception)
    assert read_topic(kafka, BEHAVIOR_EVENTS_TOPIC) == []
    done = typed("ratings.csv", *SET, "--skip-bad")
    assert done.exit_code == 0, done.exception
    assert done.output.index('"event_id"') < done.output.index("published 20 messages to ")
    records = read_topic(kafka, BEHAVIOR_EVENTS_TOPIC)
    assert len(records) == 20
    assert {record.key for record in records} == {f"u{n}".encode() for n in range(20)}
    assert min(record.timestamp for record in records) == 1_600_000_000_000


def test_a_dry_run_needs_no_broker_and_shows_three_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, HEADER + ROWS)
    done = typed("ratings.csv", *SET, "--dry-run")
    assert "20 events to import (--dry-run)" in done.output
    assert done.output.count('"event_id"') == 3


def test_a_dry_run_shows_ids_with_colons_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, HEADER + "u1,sku:100:blue,1600000000,4\n")
    done = typed("ratings.csv", *SET, "--dry-run")
    assert '"item_id":"sku:100:blue"' in done.output


def test_events_that_serving_would_not_read_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, HEADER + ROWS)  # of 2020
    assert "serving reads no behaviour that is older than 90" in " ".join(
        typed("ratings.csv", *SET, "--dry-run").output.split()
    )
    monkeypatch.setenv("SRP4CTR_FEATURES__SEQUENCE_TTL_DAYS", "36500")
    assert "serving reads" not in typed("ratings.csv", *SET, "--dry-run").output


def test_the_guess_is_written_once_and_used_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, HEADER + ROWS)
    assert "--guess FILE` writes a mapping" in str(typed("ratings.csv").exception)
    assert "wrote import.toml" in typed("ratings.csv", "--guess").output
    assert "exists already" in str(typed("ratings.csv", "--guess").exception)
    assert "20 events" in typed("ratings.csv", "--out", "events.jsonl").output


def test_the_guess_replaces_the_mapping_of_a_new_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path, tmp_path / "serving", sample=False)
    monkeypatch.chdir(tmp_path)
    written(tmp_path, HEADER + ROWS)
    assert "wrote import.toml" in typed("ratings.csv", "--guess").output
    assert "20 events" in typed("ratings.csv", "--dry-run").output
    assert "exists already" in str(typed("ratings.csv", "--guess").exception)


def test_what_is_left_out_fits_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    written(tmp_path, HEADER + ROWS + ROWS + "u,i,1600000000000,4\n,i,1600000000,4\n")
    done = typed("ratings.csv", *SET, "--skip-bad", "--dry-run")
    tables = [line for line in done.output.splitlines() if line[:1] in "┏┃│└"]
    assert "duplicate" in done.output
    assert max(map(len, tables)) <= 80
    assert max(map(len, typed("--formats").output.splitlines())) <= 80
