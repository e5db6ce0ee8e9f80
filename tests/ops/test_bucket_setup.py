"""The rights of each user of the real stack's objects: versitygw with its own command."""

import ast
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import S3Store, from_url

from srp4ctr import buckets
from srp4ctr.errors import MistakeError, OutageError, Srp4ctrError
from srp4ctr.ops import bootstrap, bucket_setup, stack_secrets
from srp4ctr.ops.doctor import raw_log
from srp4ctr.settings import Settings
from srp4ctr.streams.raw_log import delta_tables
from srp4ctr.testing.object_store import find_server
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.export.bundle_store import BundleStore
from tests.compose import real_stack
from tests.streams.logs import TOPIC, offsets, write
from tests.structure.source_tree import product_files

LOG, BUNDLES = "s3://events", "s3://bundles"
GRANTS = {LOG: bucket_setup.LOG_GRANTS, BUNDLES: bucket_setup.BUNDLE_GRANTS}
KEYS = {
    "log": f"{LOG}/{TOPIC}/x.parquet",
    "bundle": f"{BUNDLES}/v7/encoder.onnx",
    "report": f"{BUNDLES}/v7/report.json",
    "refresh": f"{BUNDLES}/refresh.json",
    "serving": f"{BUNDLES}/serving.json",
    "other": f"{BUNDLES}/other",
}
EVERYTHING = set(KEYS)
OF_BUNDLES = EVERYTHING - {"log"}
# User → what it may read, write and delete.
RIGHTS: dict[str, tuple[set[str], set[str], set[str]]] = {
    "stream": ({"log"}, {"log"}, {"log"}),
    "trainer": (EVERYTHING, {"bundle", "report", "refresh"}, set()),
    "promoter": (EVERYTHING, {"report", "serving"}, set()),
    "monitor": (OF_BUNDLES, set(), set()),
    "ops": (EVERYTHING, EVERYTHING, EVERYTHING),
}
As = Callable[[str], None]


@pytest.fixture(scope="module")
def address(stack_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield a server whose buckets the first test's ``known_as`` makes."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    try:
        find_server()
    except Srp4ctrError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("objects")
    with real_stack.objects(folder, stack_files) as found:
        yield found


@pytest.fixture
def known_as(address: str, stack_files: Path, monkeypatch: pytest.MonkeyPatch) -> As:
    """Return what makes this process a user's; the buckets are there by then."""

    def become(user: str) -> None:
        variables = real_stack.bucket_variables(address, user, stack_files)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    become(bucket_setup.ADMIN)
    for _ in range(2):  # as at each start of the stack
        assert bucket_setup.make(GRANTS) == ["events", "bundles"]
    return become


def store_of(address: str) -> tuple[Any, str]:
    """Return the bucket of an object, and the object's key, as our software opens it."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return from_url(f"s3://{bucket}", config=buckets.secret_options()), key


def may(call: Callable[..., object], address: str, *content: bytes) -> bool:
    """Return whether the server lets us do this to an object."""
    try:
        call(*store_of(address), *content)
    except obstore.exceptions.BaseError as error:
        refused = buckets.failure(address, error)
        assert isinstance(refused, MistakeError), refused
        return False
    return True


def test_a_user_has_its_rights_and_no_others(known_as: As) -> None:
    assert set(RIGHTS) == set(bucket_setup.USERS)
    for user, rights in RIGHTS.items():
        known_as("ops")
        for key in KEYS.values():
            obstore.put(*store_of(key), b"{}")
        known_as(user)
        reads = {name for name, key in KEYS.items() if may(obstore.get, key)}
        writes = {name for name, key in KEYS.items() if may(obstore.put, key, b"{}")}
        deletes = {name for name, key in KEYS.items() if may(obstore.delete, key)}
        assert (reads, writes, deletes) == rights, user


def test_who_has_no_key_reads_and_lists_nothing(
    known_as: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_as("ops")
    obstore.put(*store_of(KEYS["log"]), b"{}")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY_FILE")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    for bucket in ("events", "bundles"):
        unsigned = S3Store(bucket, skip_signature=True)
        with pytest.raises(obstore.exceptions.BaseError, match="AccessDenied"):
            obstore.list(unsigned).collect()
        with pytest.raises(obstore.exceptions.BaseError, match="AccessDenied"):
            obstore.put(unsigned, "x", b"")


def test_no_user_may_change_rights(known_as: As) -> None:
    for user in bucket_setup.USERS:
        known_as(user)
        with pytest.raises(MistakeError, match="the bucket events: these keys are"):
            bucket_setup.make(GRANTS)


def test_a_worker_logs_what_the_trainer_reads(known_as: As) -> None:
    known_as("stream")
    write(f"{LOG}/try", 0, 5)
    for reader in ("trainer", "promoter", "ops"):
        known_as(reader)
        assert offsets(f"{LOG}/try") == list(range(5))
    known_as("trainer")
    with pytest.raises(MistakeError, match="these keys are refused"):
        write(f"{LOG}/try", 5, 9)
    known_as("monitor")
    with pytest.raises(MistakeError, match="these keys are refused"):
        delta_tables.opened(f"{LOG}/try", TOPIC)


def test_an_operator_s_doctor_finds_that_no_commit_is_lost(known_as: As) -> None:
    known_as("ops")
    (found,) = raw_log.commits(Settings.model_validate({"features": {"log_uri": LOG}}))
    assert found.state == "ok"


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY_FILE", "SSL_CERT_FILE"])
def test_a_file_that_is_missing_or_another_s_is_a_mistake_that_names_the_variable(
    known_as: As, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_as(bucket_setup.ADMIN)
    other = stack_secrets.make(tmp_path / "other")
    assert "ca.pem" in other
    given = {"SSL_CERT_FILE": tmp_path / "other" / "ca.pem"}.get(name, tmp_path / "none")
    monkeypatch.setenv(name, str(given))
    monkeypatch.setitem(delta_tables.STORE, "retry_timeout", "1s")
    config = RefreshConfig(bundles_uri=BUNDLES, bundles_dir=str(tmp_path))
    for call in (
        lambda: bucket_setup.make(GRANTS),
        lambda: delta_tables.opened(LOG, TOPIC),
        lambda: BundleStore(config).update(),
    ):
        with pytest.raises(MistakeError, match=name) as error:
            call()
        assert "\n" not in str(error.value)


def test_a_server_that_is_away_is_an_outage(
    known_as: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_as(bucket_setup.ADMIN)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://127.0.0.1:9")
    with pytest.raises(OutageError, match=r"the bucket events at https://127\.0\.0\.1:9"):
        bucket_setup.make(GRANTS)


def test_without_buckets_in_the_settings_there_are_none_to_make(known_as: As) -> None:
    with pytest.raises(MistakeError, match="are not both s3://"):
        bootstrap._make_buckets(Settings())


def test_one_bucket_for_both_has_the_rules_of_both(known_as: As) -> None:
    known_as(bucket_setup.ADMIN)
    both = {"s3://both/events": GRANTS[LOG], "s3://both/bundles/": GRANTS[BUNDLES]}
    assert bucket_setup.make(both) == ["both"]
    known_as("stream")
    assert may(obstore.put, "s3://both/events/x", b"")
    assert not may(obstore.put, "s3://both/bundles/v1/x", b"")
    known_as("trainer")
    assert may(obstore.put, "s3://both/bundles/v1/x", b"")
    assert not may(obstore.put, "s3://both/events/x", b"")


def test_no_request_is_signed_by_hand() -> None:
    by_hand = [file.path for file in product_files() if "AWS4-HMAC" in ast.dump(file.tree)]
    assert by_hand == []
