"""Bundles in a bucket of a real S3 server: published once, fetched whole, refused else."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from srp4ctr.errors import ArtifactError, MistakeError
from srp4ctr.features.bundles import bundle
from srp4ctr.testing.object_store import ObjectStore
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.export.bundle_store import bundle_folder
from srp4ctr.training.refresh import reports
from srp4ctr.training.refresh.reports import STATUS_FILE, RefreshOutcome
from tests.proxies import proxy
from tests.training.bucket import Place, contents, place_of

READY, REFUSED = RefreshOutcome.READY, RefreshOutcome.REFUSED


@pytest.fixture
def place(
    object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """Return an empty prefix; the environment has the server's keys."""
    return place_of(object_store, tmp_path, monkeypatch)


def test_a_bundle_is_the_same_where_it_is_fetched(place: Place) -> None:
    source = place.bundle("trainer", "v7")
    place.store("trainer").publish(source)
    found = bundle_folder(place.config("triton"), "v7")
    fetched = contents(found)
    assert bundle.read_hashes(found / bundle.MANIFEST_FILE).keys() < fetched.keys()
    assert fetched.items() <= contents(source).items()
    assert bundle.list_bundles(place.disks / "triton") == [found]
    place.store("triton").update()
    assert contents(found) == contents(source)  # with its report


def test_an_unknown_version_is_nowhere(place: Place) -> None:
    assert not bundle_folder(place.config("triton"), "v7").exists()
    assert bundle.next_version(place.disks / "triton") == "v1"


def test_without_an_address_a_bundle_is_where_it_is(tmp_path: Path) -> None:
    config = RefreshConfig(bundles_dir=str(tmp_path))
    assert bundle_folder(config, "v7") == tmp_path / "v7"


def test_lists_need_only_the_small_files(place: Place) -> None:
    place.store("trainer").publish(place.bundle("trainer", "v7"))
    (place.disks / "trainer" / STATUS_FILE).write_text("{}")
    place.store("trainer").send(STATUS_FILE)
    monitor = place.disks / "monitor"
    assert place.store("monitor").update(STATUS_FILE) == ["v7"]
    small = {bundle.CARD_FILE, reports.REPORT_FILE, reports.PAGE_FILE}
    assert set(contents(monitor / "v7")) == small
    assert (monitor / STATUS_FILE).read_text() == "{}"
    assert bundle.list_bundles(monitor) == []
    assert bundle.list_bundles(monitor, bundle.CARD_FILE) == [monitor / "v7"]
    assert bundle.next_version(monitor) == "v8"


def test_a_changed_report_comes_and_an_unchanged_one_is_not_read_again(
    place: Place,
) -> None:
    folder = place.bundle("trainer", "v7")
    place.store("trainer").publish(folder)
    monitor = place.store("monitor")
    monitor.update()
    report = place.disks / "monitor" / "v7" / reports.REPORT_FILE
    first = report.stat().st_ino
    monitor.update()
    assert report.stat().st_ino == first
    found = reports.read(folder)
    assert found is not None
    reports.write(reports.with_promotion(found, ()))
    place.store("trainer").send(f"v7/{reports.REPORT_FILE}")
    monitor.update()
    changed = reports.read(report.parent)
    assert changed is not None
    assert changed.promoted


def test_publishing_twice_is_publishing_once(place: Place) -> None:
    folder, store = place.bundle("trainer", "v7"), place.store("trainer")
    store.publish(folder)
    before = {path.name: path.stat().st_mtime_ns for path in place.objects.rglob("*.*")}
    store.publish(folder)
    assert before == {p.name: p.stat().st_mtime_ns for p in place.objects.rglob("*.*")}


def test_another_trainer_s_bundle_of_the_same_version_is_refused(place: Place) -> None:
    place.store("trainer").publish(place.bundle("trainer", "v7", "ours"))
    before = contents(place.objects / "v7")
    theirs = place.bundle("other", "v7", "theirs")
    with pytest.raises(MistakeError, match=r"/v7 is another bundle.*move it away"):
        place.store("other").publish(theirs)
    with pytest.raises(MistakeError, match="is another bundle"):
        place.store("other").synchronize()  # nor does it train on
    assert contents(place.objects / "v7") == before


def test_of_trainers_that_publish_a_version_at_once_one_succeeds(place: Place) -> None:
    trainers = [f"trainer-{n}" for n in range(6)]
    for version in ("v1", "v2", "v3"):
        folders = {trainer: place.bundle(trainer, version, trainer) for trainer in trainers}
        together = Barrier(len(trainers))

        def publish(
            trainer: str,
            folders: Mapping[str, Path] = folders,
            together: Barrier = together,
        ) -> bool:
            store = place.store(trainer)
            together.wait()
            try:
                store.publish(folders[trainer])
            except MistakeError:
                return False
            return True

        with ThreadPoolExecutor(len(trainers)) as pool:
            done = dict(zip(trainers, pool.map(publish, trainers), strict=True))
        [winner] = [trainer for trainer, has_won in done.items() if has_won]
        found = bundle_folder(place.config("triton"), version)
        assert contents(found).items() <= contents(folders[winner]).items()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: path.write_bytes(b""), "head.onnx has changed since"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "head.onnx has changed"),
        (lambda path: path.unlink(), "head.onnx is missing"),
    ],
)
def test_a_damaged_bundle_is_refused_until_it_is_repaired(
    place: Place, damage: Callable[[Path], object], sentence: str
) -> None:
    source = place.bundle("trainer", "v7")
    place.store("trainer").publish(source)
    damage(place.objects / "v7" / bundle.HEAD_FILE)
    with pytest.raises(ArtifactError, match=f"{place.uri}/v7/{sentence}"):
        bundle_folder(place.config("triton"), "v7")
    left = place.disks / "triton" / "v7"
    assert not {bundle.MANIFEST_FILE, bundle.HEAD_FILE} & contents(left).keys()
    assert not list(left.glob("*.tmp"))
    place.store("trainer").send(f"v7/{bundle.HEAD_FILE}")
    assert bundle_folder(place.config("triton"), "v7") == left
    assert bundle.list_bundles(left.parent) == [left]


def test_a_manifest_that_lists_a_path_is_refused(place: Place) -> None:
    source = place.bundle("trainer", "v7")
    place.store("trainer").publish(source)
    manifest = place.objects / "v7" / bundle.MANIFEST_FILE
    manifest.write_text(manifest.read_text().replace("{", '{"../../x": "0",', 1))
    with pytest.raises(ArtifactError, match="lists a path"):
        bundle_folder(place.config("triton"), "v7")
    assert not (place.disks / "x").exists()


def test_a_killed_fetch_leaves_no_half_of_a_file_and_is_continued(
    place: Place, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = place.bundle("trainer", "v7")
    (source / bundle.WEIGHTS_FILE).write_bytes(os.urandom(40_000_000))
    bundle.write_manifest(source)
    place.store("trainer").publish(source)

    def slowly(data: bytes) -> bytes:
        time.sleep(0.01)
        return data

    code = (
        "import sys\nfrom pathlib import Path\n"
        "from srp4ctr.training.config import RefreshConfig\n"
        "from srp4ctr.training.export.bundle_store import bundle_folder\n"
        "where = RefreshConfig(bundles_dir=sys.argv[1], bundles_uri=sys.argv[2])\n"
        "bundle_folder(where, 'v7')"
    )
    folder = place.disks / "triton" / "v7"
    with proxy(object_store.port, answer=slowly) as url:
        environment = {**os.environ, "AWS_ENDPOINT_URL": url}
        command = (sys.executable, "-c", code, str(folder.parent), place.uri)
        with subprocess.Popen(command, env=environment) as process:
            while not any(path.stat().st_size for path in folder.glob("weights*.tmp")):
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    assert bundle.list_bundles(folder.parent) == []
    paths = [path for path in folder.iterdir() if path.suffix != ".tmp"]
    assert paths
    assert all(path.read_bytes() == (source / path.name).read_bytes() for path in paths)
    assert bundle_folder(place.config("triton"), "v7") == folder
    assert contents(folder).items() <= contents(source).items()


def test_a_bundle_that_was_published_in_part_is_seen_by_none_and_completed(
    place: Place,
) -> None:
    folder = place.bundle("trainer", "v7")
    place.store("trainer").publish(folder)
    for name in (bundle.MANIFEST_FILE, bundle.HEAD_FILE):  # killed before
        (place.objects / "v7" / name).unlink()
    assert place.store("triton").update() == []
    assert not list(bundle_folder(place.config("triton"), "v7").iterdir())
    place.store("new").synchronize()
    assert bundle.next_version(place.disks / "new") == "v8"  # v7 is not this one's
    place.store("trainer").synchronize()
    found = bundle_folder(place.config("triton"), "v7")
    assert bundle.list_bundles(place.disks / "triton") == [found]


def test_a_trainer_without_its_disk_continues(place: Place) -> None:
    for version, outcome in (("v1", READY), ("v2", READY), ("v3", REFUSED)):
        folder = place.bundle("trainer", version, outcome=outcome)
        place.store("trainer").publish(folder)
    place.store("new").synchronize()
    found = [bundle.name for bundle in bundle.list_bundles(place.disks / "new")]
    assert found == ["v2", "v3"]  # what it may start from, and the newest
    assert bundle.next_version(place.disks / "new") == "v4"


def test_what_is_removed_from_the_store_is_gone_and_stays_so(place: Place) -> None:
    trainer = place.store("trainer")
    for version in ("v1", "v2"):
        trainer.publish(place.bundle("trainer", version))
    monitor = place.store("monitor")
    assert monitor.update() == ["v1", "v2"]
    for path in (place.objects / "v1").iterdir():
        path.unlink()
    trainer.synchronize()  # it still has v1, which is older than the newest
    assert monitor.update() == ["v2"]
    cards = bundle.list_bundles(place.disks / "monitor", bundle.CARD_FILE)
    assert [card.name for card in cards] == ["v2"]
    assert not bundle_folder(place.config("triton"), "v1").exists()
    assert (place.disks / "trainer" / "v1").is_dir()
