"""A backup or restore refuses what it cannot do before it changes anything.

The copying itself is tried on a container engine: ``make containers``.
"""

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from srp4ctr.errors import ArtifactError, MistakeError, OutageError
from srp4ctr.ops import stack_backup
from srp4ctr.ops.stack_backup import MANIFEST, Docker, backup, restore


class Recorded(Docker):
    """A stack of two volumes, which records requested changes."""

    def __init__(self, *, running: tuple[str, ...] = (), exists: bool = False) -> None:
        self.project, self.image, self.authority = "srp4ctr", "srp4ctr-stream:1", "ours"
        self.volumes = {name: f"srp4ctr_{name}" for name in ("data", "objects")}
        self._running, self._exists = list(running), exists
        self.changes: list[str] = []

    def compose(self, *words: str) -> str:
        self.changes.append(" ".join(words))
        return ""

    def running(self) -> list[str]:
        return self._running

    def exists(self, volume: str) -> bool:
        return self._exists

    def create(self, name: str, volume: str) -> None:
        self.changes.append(f"create {volume}")

    def in_volume(self, volume: str, mode: str, script: str) -> list[str]:
        return ["false"]


def silent(_: str) -> None:
    """Say nothing."""


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Return a backup of one volume."""
    content = b"an archive"
    (tmp_path / "data.tar.gz").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    archive = {"file": "data.tar.gz", "bytes": len(content), "sha256": digest}
    manifest = {"authority": "ours", "archives": {"data": archive}}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    return tmp_path


def test_a_folder_that_holds_something_is_not_written_into(made: Path) -> None:
    docker = Recorded(exists=True)
    with pytest.raises(MistakeError, match="is not empty: name a new folder"):
        backup(docker, made, silent)
    assert docker.changes == []


def test_a_stack_that_never_ran_has_nothing_to_copy(tmp_path: Path) -> None:
    with pytest.raises(MistakeError, match="no volume data, objects: was the"):
        backup(Recorded(), tmp_path / "new", silent)


def test_services_run_again_after_a_copy_that_fails(tmp_path: Path) -> None:
    docker = Recorded(running=("kafka", "stream"), exists=True)
    with pytest.raises(OutageError, match=r"^data: "):
        backup(docker, tmp_path / "new", silent)
    assert docker.changes == ["stop --timeout 60", "start kafka stream"]
    assert not (tmp_path / "new" / MANIFEST).exists()


def test_a_live_copy_stops_nothing(tmp_path: Path) -> None:
    docker = Recorded(running=("kafka", "stream"), exists=True)
    with pytest.raises(OutageError):
        backup(docker, tmp_path / "new", silent, live=True)
    assert docker.changes == []


def test_a_live_copy_has_the_tables_logs_first_the_folders_and_nothing_unfinished(
    tmp_path: Path,
) -> None:
    volume, archive = tmp_path / "volume", tmp_path / "archive.tar.gz"
    table = volume / "events" / "items"
    files = ("_delta_log/0.json", "_delta_log/_last_checkpoint", "a.parquet", "b.tmp")
    for path in (*(table / file for file in files), volume / "events" / ".sgwtmp" / "x"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    script = stack_backup._LOG_TAR.replace("/volume", str(volume))
    with archive.open("wb") as target:
        subprocess.run(["sh", "-c", script], stdout=target, check=True)
    with tarfile.open(archive) as found:
        copied = found.getnames()
    table_files = ["./events/items/_delta_log/0.json", "./events/items/a.parquet"]
    folders = [".", "./events", "./events/items", "./events/items/_delta_log"]
    assert sorted(copied[:4]) == folders
    assert copied[4:] == table_files


def test_a_folder_without_a_manifest_is_no_finished_backup(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no finished backup"):
        restore(Recorded(), tmp_path, silent)


@pytest.mark.parametrize(
    ("docker", "message"),
    [
        (Recorded(running=("kafka",)), "services of the stack run: make down"),
        (Recorded(exists=True), "these volumes exist already: docker volume rm"),
    ],
)
def test_a_restore_takes_nothing_away(made: Path, docker: Recorded, message: str) -> None:
    with pytest.raises(MistakeError, match=message):
        restore(docker, made, silent)
    assert docker.changes == []


def test_a_damaged_archive_is_found_before_the_first_volume_is_made(made: Path) -> None:
    docker = Recorded()
    (made / "data.tar.gz").write_bytes(b"an archiue")
    with pytest.raises(ArtifactError, match="is damaged: nothing was changed"):
        restore(docker, made, silent)
    assert docker.changes == []


def test_other_secrets_than_the_backup_s_are_refused(made: Path) -> None:
    docker = Recorded()
    docker.authority = "another"
    with pytest.raises(MistakeError, match="restore the secrets of that time first"):
        restore(docker, made, silent)
    assert docker.changes == []
