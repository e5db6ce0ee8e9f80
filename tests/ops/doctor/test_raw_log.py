"""The doctor's check that the raw log's place keeps all that is committed at once."""

import json
import re
from pathlib import Path

import pytest

from srp4ctr.features.config import FeatureConfig
from srp4ctr.ops.bucket_setup import _put
from srp4ctr.ops.doctor import raw_log as checks
from srp4ctr.ops.doctor.run import examine
from srp4ctr.settings import Settings
from srp4ctr.testing.object_store import ObjectStore
from tests.ops.doctor.unconditional_store import unconditional_store


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


def test_a_server_that_overwrites_commits_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with unconditional_store() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        (found,) = checks.commits(settings("s3://bucket/events"))
    assert found.state == "wrong"
    assert re.search(r"keeps \d+ of 24 rows that are committed at once", found.found)
    assert "If-None-Match" in found.do


def test_who_has_no_key_lists_nothing(
    bucket_log: str, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = checks.anonymous(settings(bucket_log))
    assert found.state == "ok"
    assert "requires a key for srp4ctr" in found.found
    assert list(checks.anonymous(settings("/a/folder"))) == []

    def set_policy(*rules: dict[str, str]) -> None:
        policy = {"Version": "2012-10-17", "Statement": rules}
        _put("srp4ctr", "policy=", json.dumps(policy).encode())

    anybody = {"Effect": "Allow", "Principal": "*"}
    listing = {"Action": "s3:ListBucket", "Resource": "arn:aws:s3:::srp4ctr"}
    reading = {"Action": "s3:GetObject", "Resource": "arn:aws:s3:::srp4ctr/none"}
    key = object_store.folder / "key"
    key.write_text(object_store.secret_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY_FILE", str(key))
    set_policy(anybody | listing)
    (found,) = checks.anonymous(settings(bucket_log))
    set_policy(anybody | reading)
    assert (found.state, found.found) == ("open", "clients without a key may list srp4ctr")


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
