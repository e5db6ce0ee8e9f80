"""Training, promotion and the monitor on machines that share only a bucket.

That a promoted bundle then serves is tried in ``tests/end_to_end``.
"""

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srp4ctr.atomic_files import read_json
from srp4ctr.cli.main import app
from srp4ctr.errors import ArtifactError, MistakeError, OutageError
from srp4ctr.features.bundles import bundle
from srp4ctr.monitoring.collector.bundle_cache import BundleCache
from srp4ctr.ops.bundles import (
    bundle_folder,
    describe_bundles,
    publish_all,
    serving_folder,
)
from srp4ctr.ops.monitor_jobs import follow_bundles
from srp4ctr.ops.promotion_service import PromotionPlan, newest_ready, run_promotion
from srp4ctr.ops.repeat import repeat
from srp4ctr.settings import Settings, load
from srp4ctr.testing.object_store import ObjectStore
from srp4ctr.training.refresh import reports
from srp4ctr.training.refresh.reports import STATUS_FILE, RefreshOutcome, RefreshStatus
from tests.training.bucket import Place, place_of
from tests.training.logs import write_world

READY, REFUSED = RefreshOutcome.READY, RefreshOutcome.REFUSED
KEPT, PROMOTED = RefreshOutcome.KEPT, RefreshOutcome.PROMOTED


@pytest.fixture
def place(
    object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    return place_of(object_store, tmp_path, monkeypatch)


def settings_of(
    place: Place, machine: str, monkeypatch: pytest.MonkeyPatch, **more: str
) -> Settings:
    """Make this process one of ``machine``, whose disk no other has."""
    given: Mapping[str, str] = {
        "TRAINING__BUNDLES_URI": place.uri,
        "TRAINING__BUNDLES_DIR": str(place.disks / machine),
        "TRITON__REPOSITORY": str(place.disks / f"{machine}-models"),
        "TRITON__GRPC": "127.0.0.1:1",
        "KAFKA__BOOTSTRAP": "127.0.0.1:1",
        "FEATURES__REDIS": "127.0.0.1:1",
        **more,
    }
    for name, value in given.items():
        monkeypatch.setenv(f"SRP4CTR_{name}", value)
    return load()


def test_a_refresh_publishes_its_bundle_for_promotion_elsewhere(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = write_world(tmp_path)
    recipe = {
        "FEATURES__LOG_DIR": world.log_dir,
        "FEATURES__REGISTRY": world.registry,
        "STREAMS__SEQUENCE_LENGTH": "6",
        "TRAINING__MODEL__WIDTH": "8",
        "TRAINING__MODEL__HEAD_WIDTH": "8",
        "TRAINING__PRETRAINING": "none",
        "TRAINING__FINETUNE_EPOCHS": "25",
        "TRAINING__FINETUNE_LEARNING_RATE": "0.01",
        "TRAINING__BATCH_REQUESTS": "8",
        "TRAINING__HELD_OUT_SHARE": "0.3",
        "TRAINING__MAX_CALIBRATION_ERROR": "9",
    }
    settings_of(place, "trainer", monkeypatch, **recipe)
    for _ in range(2):  # the second has nothing new, and v1 still waits
        done = CliRunner().invoke(app, ("model", "refresh"))
        assert done.exit_code == 0, done.output
        assert last_refresh(place) == ["v1", "ready", ""]

    settings = settings_of(place, "triton", monkeypatch)
    [found] = describe_bundles(settings)
    assert (found["version"], found["outcome"], found["role"]) == ("v1", "ready", "")
    with pytest.raises(OutageError, match=r"broker|Kafka"):  # of the check
        run_promotion(settings, PromotionPlan(), print, print)
    assert bundle.verify(place.disks / "triton" / "v1").version == "v1"

    settings_of(place, "new-trainer", monkeypatch)
    CliRunner().invoke(app, ("model", "refresh", "--no-promote"))
    assert last_refresh(place) == ["v1", "nothing new", ""]  # it has fetched the newest


def last_refresh(place: Place) -> list[str]:
    """Return version, outcome and error, as the bucket has them."""
    status = read_json(place.objects / STATUS_FILE, RefreshStatus)
    assert status is not None
    return [status.version, status.outcome, status.error]


def test_bundles_of_a_folder_move_into_the_bucket(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, outcome in (("v1", PROMOTED), ("v2", REFUSED)):
        place.bundle("old", version, outcome=outcome)
    settings_of(place, "old", monkeypatch)
    for _ in range(2):  # after a killed call, too
        done = CliRunner().invoke(app, ("model", "publish"))
        assert done.output.splitlines()[-1] == "published: v1, v2"
    assert place.store("trainer").update() == ["v1", "v2"]
    assert bundle_folder(settings_of(place, "triton", monkeypatch), "v1").is_dir()
    monkeypatch.setenv("SRP4CTR_TRAINING__BUNDLES_URI", "")
    with pytest.raises(MistakeError, match="bundles_uri is not set"):
        publish_all(load())


def test_refused_and_kept_bundles_are_published_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, outcome in (("v1", REFUSED), ("v2", KEPT)):
        place.store("trainer").publish(place.bundle("trainer", version, outcome=outcome))
    settings = settings_of(place, "triton", monkeypatch)
    assert [bundle["outcome"] for bundle in describe_bundles(settings)] == [
        "refused",
        "kept",
    ]
    assert newest_ready(settings) is None


@pytest.mark.parametrize(
    ("outcomes", "chosen"),
    [
        ((READY,), "v1"),
        ((READY, READY), "v2"),
        ((PROMOTED, READY, REFUSED, KEPT), "v2"),
        ((READY, PROMOTED), ""),  # an older one, or one that was rolled back
    ],
)
def test_the_newest_that_waits_is_promoted_and_a_damaged_one_is_not(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    outcomes: tuple[RefreshOutcome, ...],
    chosen: str,
) -> None:
    for number, outcome in enumerate(outcomes, 1):
        folder = place.bundle("trainer", f"v{number}", outcome=outcome)
        place.store("trainer").publish(folder)
        (place.objects / folder.name / bundle.HEAD_FILE).write_bytes(b"")
    settings = settings_of(place, "triton", monkeypatch)
    if chosen:
        with pytest.raises(ArtifactError, match=f"{chosen}/head.onnx has changed"):
            run_promotion(settings, PromotionPlan(), print, print)
    else:
        assert newest_ready(settings) is None
    assert not Path(settings.triton.repository).exists()
    assert [r.outcome for r in all_reports(place, "triton")] == list(outcomes)


def all_reports(place: Place, machine: str) -> list[reports.RefreshReport]:
    folders = bundle.list_bundles(place.disks / machine, bundle.CARD_FILE)
    return [report for folder in folders if (report := reports.read(folder))]


def test_a_trainer_knows_what_serves_elsewhere(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("v1", "v2"):
        folder = place.bundle("trainer", version, outcome=PROMOTED)
        place.store("trainer").publish(folder)
    settings = settings_of(place, "triton", monkeypatch)
    Path(settings.triton.repository).mkdir()
    serving = Path(settings.triton.repository) / "serving.json"
    serving.write_text('{"serving": "v1", "previous": "v2"}')  # after a rollback
    assert newest_ready(settings) is None

    settings = settings_of(place, "new-trainer", monkeypatch)
    roles = {bundle["version"]: bundle["role"] for bundle in describe_bundles(settings)}
    assert roles == {"v1": "serving", "v2": "previous"}
    folder = place.disks / "new-trainer" / "v1"
    assert serving_folder(settings) == folder
    assert bundle.list_bundles(folder.parent) == [folder]


def test_the_monitor_has_cards_and_the_refresh_s_status(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.store("trainer").publish(place.bundle("trainer", "v1"))
    (place.disks / "trainer" / STATUS_FILE).write_text("{}")
    place.store("trainer").send(STATUS_FILE)
    stop, folder = threading.Event(), place.disks / "monitor"
    follower = threading.Thread(target=follow_bundles, args=(place.store("monitor"), stop))
    follower.start()
    while follower.is_alive() and not (folder / "v1" / bundle.CARD_FILE).is_file():
        stop.wait(0.01)
    stop.set()
    follower.join()
    assert [each.version for each in BundleCache(folder).newest(None)] == ["v1"]
    assert (folder / STATUS_FILE).is_file()


def test_without_the_store_commands_end_with_an_outage_and_repeated_ones_continue(
    place: Place, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.store("trainer").publish(place.bundle("trainer", "v1", outcome=PROMOTED))
    settings = settings_of(place, "triton", monkeypatch)
    there = object_store.environment()["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for words in (["list"], ["promote", "v1"], ["refresh"]):
        done = CliRunner().invoke(app, ("model", *words))
        assert isinstance(done.exception, OutageError), words
        assert done.exception.exit_status == 3
        assert f"the bundles in {place.uri}: " in str(done.exception)
    said: list[str] = []
    turns: list[object] = []

    def sleep(_: float) -> None:
        if turns:
            raise KeyboardInterrupt
        monkeypatch.setenv("AWS_ENDPOINT_URL", there)

    with pytest.raises(KeyboardInterrupt):
        repeat(
            lambda: turns.append(newest_ready(settings)), 60.0, said.append, sleep, False
        )
    [failed] = said
    assert failed.startswith(f"failed: the bundles in {place.uri}: ")
    assert turns == [None]


def test_with_wrong_keys_a_command_names_the_variables_and_shows_none(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings_of(place, "triton", monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    done = CliRunner().invoke(app, ("--debug", "model", "list"))
    assert isinstance(done.exception, MistakeError)
    assert done.exception.exit_status == 2
    assert "AWS_SECRET_ACCESS_KEY" in str(done.exception)
    assert "not-the-secret" not in done.output + str(done.exception) + caplog.text


def test_every_with_a_version_is_a_mistake(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_of(place, "triton", monkeypatch)
    done = CliRunner().invoke(app, ("model", "promote", "v1", "--every", "1m"))
    assert "leave the version out" in str(done.exception)


def test_credentials_in_the_address_are_shown_by_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SRP4CTR_TRAINING__BUNDLES_URI", "s3://key:hidden@bucket/x")
    with pytest.raises(MistakeError, match="without credentials") as raised:
        load()
    assert "hidden" not in str(raised.value)
