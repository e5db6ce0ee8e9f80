"""The real stack's volumes ↔ a folder of archives: ``make backup``, ``make restore``.

A whole backup stops the stack while it copies, because Kafka and Postgres can only be
copied while stopped. ``--live`` stops nothing and copies only the volumes ``objects`` (raw
log, bundles) and ``data`` (audit log), from which the others can be rebuilt:
docs/backup.md. The manifest is written last: a folder without one is an unfinished backup.
It needs only Python's standard library and Docker.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from srp4ctr.errors import ArtifactError, MistakeError, OutageError, Srp4ctrError

MANIFEST = "backup.json"
LIVE_VOLUMES = ("objects", "data")
NOT_COPIED = ("scratch", "spill", "workers", "cards", "monitor")
_IMAGE = "stream"  # its image has tar; it runs as root, to read every owner's files
_LABEL = "com.docker.compose"
_TAR = "cd /volume && exec tar --xattrs -cz ."  # the S3 server's hashes of its objects
# The tables' own logs are listed before the files that they name, which stay for hours, and
# without the hint at a newer checkpoint. What grows meanwhile (status 1) is for the next.
# Folders keep their owners; unfinished uploads stay behind.
_LOG_TAR = """cd /volume
{ find . -type d ! -path '*/.sgwtmp*'
find . -path '*/_delta_log/*' -type f ! -name _last_checkpoint
find . ! -type d ! -path '*/_delta_log/*' ! -name '*.tmp' ! -path '*/.sgwtmp/*'
} | tar --xattrs --no-recursion -cz -T -
[ $? -le 1 ]"""
Say = Callable[[str], None]


class Docker:
    """Docker's commands, with the names of the project's compose files."""

    def __init__(self, compose: Sequence[str]) -> None:
        self._compose = tuple(compose)
        config = json.loads(self.compose("config", "--format", "json"))
        self.project: str = config["name"]
        self.image: str = config["services"][_IMAGE]["image"]
        names = [v for v in config["volumes"] if v not in NOT_COPIED]
        self.volumes = {v: str(config["volumes"][v]["name"]) for v in sorted(names)}
        self.authority = _sha256(Path(config["secrets"]["ca.pem"]["file"]))

    def compose(self, *words: str) -> str:
        """Return the output of ``docker compose WORDS``; ``OutageError`` if it fails."""
        return _run(*self._compose, *words)

    def running(self) -> list[str]:
        """Return the running services."""
        return self.compose("ps", "--services", "--status", "running").split()

    def exists(self, volume: str) -> bool:
        """Return whether there is a volume of this name."""
        found = _run("docker", "volume", "ls", "--quiet", "--filter", f"name=^{volume}$")
        return volume in found.split()

    def create(self, name: str, volume: str) -> None:
        """Make an empty volume with compose's labels."""
        labels = (f"{_LABEL}.project={self.project}", f"{_LABEL}.volume={name}")
        words = [word for label in labels for word in ("--label", label)]
        _run("docker", "volume", "create", *words, volume)

    def in_volume(self, volume: str, mode: str, script: str) -> list[str]:
        """Return the command that runs a shell script with ``volume`` at /volume."""
        options = ["--rm", "--interactive", "--user", "0", "--network", "none"]
        options += ["--volume", f"{volume}:/volume:{mode}", "--entrypoint", "sh"]
        return ["docker", "run", *options, self.image, "-c", script]


def backup(docker: Docker, folder: Path, say: Say, *, live: bool = False) -> None:
    """Copy the volumes into ``folder``, which must be new or empty.

    Services that ran are started again, also after a failure.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # it holds users' histories
    if any(folder.iterdir()):
        raise MistakeError(f"{folder} is not empty: name a new folder")
    chosen = {n: docker.volumes[n] for n in LIVE_VOLUMES} if live else docker.volumes
    missing = [name for name, volume in chosen.items() if not docker.exists(volume)]
    if missing:
        raise MistakeError(f"no volume {', '.join(missing)}: was the stack ever up?")
    stopped = [] if live else docker.running()
    try:
        if stopped:
            say(f"stopping {len(stopped)} services")
            docker.compose("stop", "--timeout", "60")
        archives = {n: _archive(docker, n, v, folder, say) for n, v in chosen.items()}
    finally:
        if stopped:
            say("starting them again")
            docker.compose("start", *stopped)
    manifest = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "image": docker.image,
        "live": live,
        "authority": docker.authority,
        "archives": archives,
    }
    text = json.dumps(manifest, indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    size = sum(archive["bytes"] for archive in archives.values())
    say(f"{folder}: {len(archives)} volumes, {size / 1e6:,.0f} MB. secrets/ is not in it")


def restore(docker: Docker, folder: Path, say: Say) -> None:
    """Make the volumes that ``folder`` holds; refused where one of them exists.

    All archives are verified before the first volume is made.
    """
    manifest = _read_manifest(folder)
    if docker.running():
        raise MistakeError("services of the stack run: make down")
    if manifest["authority"] != docker.authority:
        raise MistakeError(
            "the certificates and passwords in secrets/ are not those of the backup: "
            "restore the secrets of that time first"
        )
    archives = manifest["archives"]
    existing = [n for n in archives if docker.exists(docker.volumes[n])]
    if existing:
        names = " ".join(docker.volumes[n] for n in existing)
        raise MistakeError(f"these volumes exist already: docker volume rm {names}")
    for archive in archives.values():
        if _sha256(folder / archive["file"]) != archive["sha256"]:
            raise ArtifactError(
                f"{folder / archive['file']} is damaged: nothing was changed"
            )
    for name, archive in archives.items():
        say(f"{name}: {archive['bytes'] / 1e6:,.0f} MB")
        docker.create(name, docker.volumes[name])
        script = "tar --xattrs -xz --same-owner --numeric-owner -C /volume"
        command = docker.in_volume(docker.volumes[name], "rw", script)
        with (folder / archive["file"]).open("rb") as source:
            _pipe(name, command, stdin=source)
    say("restored; make up starts the stack")


def _archive(
    docker: Docker, name: str, volume: str, folder: Path, say: Say
) -> dict[str, Any]:
    """Write one volume's archive, and return its entry of the manifest."""
    file = folder / f"{name}.tar.gz"
    mode, script = ("rw", _LOG_TAR) if name in LIVE_VOLUMES else ("ro", _TAR)
    command = docker.in_volume(volume, mode, script)
    with file.open("wb") as target:
        os.fchmod(target.fileno(), 0o600)
        _pipe(name, command, stdin=subprocess.DEVNULL, stdout=target)
    say(f"{name}: {file.stat().st_size / 1e6:,.1f} MB")
    size, digest = file.stat().st_size, _sha256(file)
    return {"file": file.name, "bytes": size, "sha256": digest}


def _pipe(name: str, command: Sequence[str], **ends: Any) -> None:
    """Run ``command`` between the ``ends``; ``OutageError`` for the volume if it fails."""
    result = subprocess.run(command, stderr=subprocess.PIPE, check=False, **ends)
    if result.returncode:
        raise OutageError(f"{name}: {result.stderr.decode().strip()[-500:]}")


def _read_manifest(folder: Path) -> Any:
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder} holds no finished backup: {error}") from error


def _sha256(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise OutageError(f"{' '.join(command[:4])} …: {result.stderr.strip()[-800:]}")
    return result.stdout


def main() -> None:
    """Back up or restore: ``… backup|restore FOLDER [--live] -- docker compose …``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("backup", "restore"))
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--live", action="store_true", help="copy only objects and data, and stop nothing"
    )
    parser.add_argument("compose", nargs="+", help="-- docker compose -f …")
    arguments = parser.parse_args()

    say = partial(print, file=sys.stderr)
    try:
        docker = Docker(arguments.compose)
        if arguments.verb == "backup":
            backup(docker, arguments.folder, say, live=arguments.live)
        else:
            restore(docker, arguments.folder, say)
    except (Srp4ctrError, OSError) as error:
        say(f"error: {error}")
        sys.exit(getattr(error, "exit_status", OutageError.exit_status))


if __name__ == "__main__":
    main()
