"""Bundles of processes that share nothing but a prefix of a bucket."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.testing.object_store import BUCKET, ObjectStore
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.export.bundle_store import BundleStore
from srp4ctr.training.refresh import reports
from srp4ctr.training.refresh.reports import RefreshOutcome, RefreshReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A prefix of the bucket, and processes that have only it in common."""

    objects: Path
    """The server's folder of the prefix."""
    uri: str
    disks: Path

    def config(self, process: str) -> RefreshConfig:
        return RefreshConfig(bundles_dir=str(self.disks / process), bundles_uri=self.uri)

    def store(self, process: str) -> BundleStore:
        return BundleStore(self.config(process))

    def bundle(
        self,
        process: str,
        version: str,
        mark: str = "",
        outcome: RefreshOutcome = RefreshOutcome.READY,
    ) -> Path:
        """Write a bundle, and a report, onto the disk of a process."""
        folder = self.disks / process / version
        folder.mkdir(parents=True)
        for name in bundle.CONTENT_FILES:
            (folder / name).write_text(f"{name} {mark}")
        card = BundleManifest(version=version, created_at_ms=1, sizes={"L": 50})
        bundle.write_card(folder, card)
        bundle.write_manifest(folder)
        reports.write(
            RefreshReport(version=version, folder=folder, outcome=outcome, gates=())
        )
        return folder


def place_of(server: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    uri = f"s3://{BUCKET}/{uuid.uuid4().hex}/bundles"
    return Place(objects=server.folder_of(uri), uri=uri, disks=folder)


def contents(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
