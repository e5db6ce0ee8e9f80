"""The doctor's check that the raw log's place keeps all that is committed at once."""

from pathlib import Path

import pytest

from benchmarks.harness.object_store import ObjectStore
from srp4ctr.features.config import FeatureConfig
from srp4ctr.ops.doctor import raw_log as checks
from srp4ctr.ops.doctor.run import examine
from srp4ctr.settings import Settings


def settings(log: Path | str) -> Settings:
    return Settings(features=FeatureConfig(log_uri=str(log)))


def test_a_folder_and_a_bucket_take_one_commit_of_several(raw_log: Path | str) -> None:
    if isinstance(raw_log, Path):
        raw_log.mkdir()
    (found,) = checks.commits(settings(raw_log))
    assert (found.state, found.found) == (
        "ok",
        f"{raw_log} answers, and keeps what several writers commit at once",
    )


def test_it_leaves_nothing_there(
    bucket_log: str, object_store: ObjectStore, tmp_path: Path
) -> None:
    for place in (bucket_log, tmp_path):
        list(checks.commits(settings(place)))
    objects = object_store.folder_of(bucket_log).rglob("*")
    assert [path for path in objects if path.is_file()] == []
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_is_not_there_yet_is_not_checked(tmp_path: Path) -> None:
    (found,) = checks.commits(settings(tmp_path / "none"))
    assert found.state == "not checked"


def test_keys_that_are_refused_are_wrong_and_are_not_shown(
    bucket_log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    found = {each.check: each for each in examine(settings(bucket_log))}["raw log"]
    assert found.state == "wrong"
    assert "these keys are refused (SignatureDoesNotMatch" in found.found
    assert "AWS_SECRET_ACCESS_KEY" in found.found
    assert "not-the-secret" not in str(found)
