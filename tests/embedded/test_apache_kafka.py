"""The local Apache Kafka's configuration, and the error where it cannot run."""

from pathlib import Path

import pytest

from srp4ctr.embedded import apache_kafka


def test_it_listens_on_this_machine_alone() -> None:
    lines = apache_kafka.server_properties(Path("log"), 1, 2).splitlines()
    listeners = next(line for line in lines if line.startswith("listeners="))
    assert listeners == "listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2"


def test_an_old_records_time_does_not_delete_it() -> None:
    properties = apache_kafka.server_properties(Path("log"), 1, 2)
    assert "log.retention.ms=-1" in properties.splitlines()


def test_missing_java_is_an_error_that_names_it_and_the_other_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda tool: None)
    with pytest.raises(ValueError, match=r"java.*--broker noida"):
        apache_kafka.fetch_jars()
