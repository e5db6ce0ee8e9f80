"""Bundles in an object store ⇄ each process's copies: training and serving share no disk.

``<bundles_uri>/v7`` has the files of the folder ``<bundles_dir>/v7``, and ``manifest.json``
last, as in a folder: what has one is whole. ``claim``, the hash of that manifest, is there
first and only once, so that no two trainers publish one version. A copy whose folder has no
manifest is a card: the small files that lists and the monitor read.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

from srp4ctr.atomic_files import replace_file, sync_folder, write_unfinished
from srp4ctr.buckets import failure, secret_options
from srp4ctr.errors import ArtifactError, MistakeError, Srp4ctrError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle import CARD_FILE, MANIFEST_FILE
from srp4ctr.features.bundles.drift_reference import REFERENCE_FILE
from srp4ctr.processes import locked
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.refresh import reports
from srp4ctr.training.refresh.reports import PAGE_FILE, REPORT_FILE, RefreshOutcome

CLAIM_FILE = "claim"
_CLAIM = re.compile(rf"(v[1-9][0-9]*)/{CLAIM_FILE}")
REPORTS = (REPORT_FILE, PAGE_FILE)
# By default three minutes pass before a caller knows.
_RETRIES = {"retry_timeout": timedelta(seconds=20)}
_CHUNK = 8 << 20  # of a request: each has its own timeout, whatever the file's size


def store_of(config: RefreshConfig) -> "BundleStore | None":
    """Return the store of ``training.bundles_uri``; None where it is empty."""
    return BundleStore(config) if config.bundles_uri else None


def bundle_folder(config: RefreshConfig, version: str) -> Path:
    """Return the folder of bundle ``version``, fetched first if only the store has it.

    There is no such folder where the bundle is nowhere. Raises as ``BundleStore.fetch``.
    """
    folder = Path(config.bundles_dir) / version
    if not (folder / MANIFEST_FILE).is_file() and (store := store_of(config)):
        store.fetch(version)
    return folder


class BundleStore:
    """The bundles at ``bundles_uri``, with ``bundles_dir`` for copies.

    Every call raises ``OutageError`` where the store is away, and ``MistakeError`` where it
    refuses us.
    """

    def __init__(self, config: RefreshConfig) -> None:
        import obstore  # of the extra bucket
        from obstore.store import from_url

        self.uri, self.folder = config.bundles_uri.rstrip("/"), Path(config.bundles_dir)
        self._api = obstore
        try:
            secret: Any = secret_options()  # which key it is depends on the kind of store
            self._bucket = from_url(self.uri, config=secret, retry_config=_RETRIES)
        except obstore.exceptions.BaseError as error:
            reason = str(error).partition("\n")[0]
            raise MistakeError(f"training.bundles_uri {self.uri}: {reason}") from error

    def publish(self, folder: Path) -> None:
        """Copy a whole bundle and its report into the store; a published one stays.

        Raises ``MistakeError`` where the store has another bundle of this version.
        """
        version, manifest = folder.name, folder / MANIFEST_FILE
        names = [*bundle.read_hashes(manifest), *REPORTS]
        claim = hashlib.sha256(manifest.read_bytes()).hexdigest().encode()
        with self._answers():
            if not self._put_once(f"{version}/{CLAIM_FILE}", claim):
                raise MistakeError(
                    f"{self.uri}/{version} is another bundle: does another trainer publish "
                    "there? Each needs a training.bundles_uri of its own. This one stays "
                    f"in {folder}: move it away before the next refresh"
                )
            if f"{version}/{MANIFEST_FILE}" in self._objects(f"{version}/"):
                return
            self.send(*(f"{version}/{name}" for name in names))
            self._put_once(f"{version}/{MANIFEST_FILE}", manifest.read_bytes())

    def send(self, *names: str) -> None:
        """Replace files of the store by those of the folder, as far as there are any."""
        with self._answers():
            for name in names:
                if (path := self.folder / name).is_file():
                    self._api.put(self._bucket, name, path)

    def update(self, *names: str) -> list[str]:
        """Copy what is new or changed of the cards and reports, and the files ``names``.

        Returns the versions that are whole in the store, the oldest first.
        """
        objects = self._objects()
        claimed = [match[1] for key in objects if (match := _CLAIM.fullmatch(key))]
        whole = [each for each in claimed if f"{each}/{MANIFEST_FILE}" in objects]
        for version in claimed:  # an empty folder: its version is never used again
            (self.folder / version).mkdir(parents=True, exist_ok=True)
        # The card last: what has one has all of these.
        small = (REFERENCE_FILE, *REPORTS, CARD_FILE)
        for key in (*names, *(f"{version}/{name}" for version in whole for name in small)):
            self._copy(objects, key)
        for folder in bundle.list_bundles(self.folder, CARD_FILE):
            if folder.name not in whole and not (folder / bundle.WEIGHTS_FILE).is_file():
                for name in small:  # of what the store no longer has
                    (folder / name).unlink(missing_ok=True)
        return sorted(whole, key=bundle.number)

    def synchronize(self, *names: str) -> None:
        """Prepare a refresh: ``update``, then publish and fetch what is missing.

        Published are bundles that a killed refresh left; fetched is what the next one may
        start from, so that a trainer that lost its disk can continue.
        """
        published = self.update(*names)
        newest = bundle.number(published[-1]) if published else 0
        for folder in bundle.list_bundles(self.folder):
            if bundle.number(folder.name) >= newest:
                self.publish(folder)
        outcomes = {each: reports.read(self.folder / each) for each in published}
        passed = [
            version
            for version, report in outcomes.items()
            if report is None or report.outcome is not RefreshOutcome.REFUSED
        ]
        for version in {*published[-1:], *passed[-1:]}:
            self.fetch(version)

    def fetch(self, version: str) -> None:
        """Copy a bundle into the folder, where each file appears with the right SHA-256.

        ``manifest.json`` is there last; a killed fetch is continued. Nothing happens where
        the store has no such bundle. Raises ``ArtifactError`` for one that is damaged.
        """
        folder = self.folder / version
        with locked(self.folder / "fetch.lock"):
            if (folder / MANIFEST_FILE).is_file():
                return
            for left in folder.glob("*.tmp"):  # by a killed fetch
                left.unlink()
            if (manifest := self._manifest(version)) is None:
                return
            try:
                for name, expected in bundle.read_hashes(manifest).items():
                    path = folder / name
                    if not path.is_file() or bundle.sha256(path) != expected:
                        self._fetch_file(f"{version}/{name}", expected)
                manifest.rename(folder / MANIFEST_FILE)
            finally:
                manifest.unlink(missing_ok=True)
            sync_folder(folder)

    def _manifest(self, version: str) -> Path | None:
        """Return a temporary file with the manifest of ``version``; None without any."""
        key = f"{version}/{MANIFEST_FILE}"
        try:
            with self._answers():
                text = bytes(self._api.get(self._bucket, key).bytes())
        except FileNotFoundError:
            return None
        (self.folder / version).mkdir(parents=True, exist_ok=True)
        return write_unfinished(self.folder / key, lambda file: file.write(text))

    def _fetch_file(self, key: str, expected: str = "") -> None:
        """Copy one object; ``ArtifactError`` unless it has the ``expected`` SHA-256."""
        path, digest = self.folder / key, hashlib.sha256()
        try:
            with self._answers():
                source = self._api.open_reader(self._bucket, key, buffer_size=_CHUNK)
        except FileNotFoundError as error:
            raise ArtifactError(f"{self.uri}/{key} is missing") from error
        limit = bundle.MAX_FILE_BYTES.get(path.name, bundle.MAX_OTHER_BYTES)
        if source.size > limit:
            raise ArtifactError(
                f"{self.uri}/{key}: {source.size:,} bytes; at most {limit:,}"
            )

        def write(file: BinaryIO) -> None:
            while chunk := self._read(source):
                digest.update(chunk)
                file.write(chunk)
            if expected and digest.hexdigest() != expected:
                raise ArtifactError(
                    f"{self.uri}/{key} has changed since the bundle was published: its "
                    f"SHA-256 is {digest.hexdigest()}, not {expected}"
                )

        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, write)

    def _read(self, source: Any) -> bytes:
        with self._answers():
            return bytes(source.read(_CHUNK))

    def _copy(self, objects: dict[str, Any], key: str) -> None:
        """Copy an object unless the folder has it; a report may have changed."""
        path, there = self.folder / key, objects.get(key)
        if there is None:
            return
        changed_s = int(there["last_modified"].timestamp())
        if path.is_file():
            here = path.stat()
            is_same = (here.st_size, int(here.st_mtime)) == (there["size"], changed_s)
            if is_same or path.name in (CARD_FILE, REFERENCE_FILE):
                return
        self._fetch_file(key)
        os.utime(path, (changed_s, changed_s))

    def _objects(self, prefix: str = "") -> dict[str, Any]:
        """Return size and time of each object, by its path."""
        with self._answers():
            found = self._api.list(self._bucket, prefix or None)
            return {each["path"]: each for some in found for each in some}

    def _put_once(self, key: str, content: bytes) -> bool:
        """Write an object unless it is there; return whether it has this ``content``."""
        try:
            self._api.put(self._bucket, key, content, mode="create")
        except self._api.exceptions.AlreadyExistsError:
            return bytes(self._api.get(self._bucket, key).bytes()) == content
        return True

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """Raise errors of the store as ours; ``FileNotFoundError`` of an object stays."""
        try:
            yield
        except Srp4ctrError:
            raise
        except (self._api.exceptions.BaseError, OSError) as error:
            if isinstance(error, OSError) and error.errno:  # a disk's
                raise
            found = failure(f"the bundles in {self.uri}", error)
            if isinstance(error, FileNotFoundError) and not isinstance(found, MistakeError):
                raise
            raise found from error
