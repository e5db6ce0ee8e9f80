"""Tritons of which only loading is real: steps that cost nothing, in repositories on disk.

``promotion`` and ``one_server`` run unchanged against them, and every action on a server or
a repository passes ``Actions``, where a test may crash, fail or freeze the process.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from srp4ctr.errors import ArtifactError, OutageError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.features.bundles.gates import Gate
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.config import ReplicaConfig, TritonConfig
from srp4ctr.triton_repo.deployment import (
    live_repository,
    one_server,
    repository_writer,
)

_STEP = re.compile(r'model_name: "([^"]*)"')
_FIRST_STEPS = (model_names.CLICK_RANKER, model_names.NATIVE_RANKER)


class FakeTriton:
    """A server in explicit mode: what it has loaded outlives a change of the files."""

    def __init__(self, repository: Path, act: Callable[[str], None]) -> None:
        self.repository, self._act = repository, act
        self.loaded: dict[str, str] = {}
        self.is_up = True
        self.broken_calls = 0
        """Steps that were unloaded while an ensemble ran them."""

    def is_server_live(self, client_timeout: float = 0.0) -> bool:
        return True

    def load_model(self, name: str, client_timeout: float = 0.0) -> None:
        self._act(f"load {name}")
        path = self.repository / name / live_repository.CONFIG
        if not path.is_file():
            raise InferenceServerException(f"{name} is not in the repository")
        text = path.read_text()
        if missing := set(_STEP.findall(text)) - self.loaded.keys():
            raise InferenceServerException(f"{name} needs {missing}")
        self.loaded[name] = text

    def unload_model(self, name: str) -> None:
        self._act(f"unload {name}")
        self.loaded.pop(name, None)
        self.broken_calls += any(
            name in _STEP.findall(text) for text in self.loaded.values()
        )

    def get_model_repository_index(self, as_json: bool = True) -> dict[str, Any]:
        self._act("list models")
        return {"models": [{"name": name, "state": "READY"} for name in self.loaded]}

    def versions(self) -> dict[str, str]:
        """Return the version that each loaded ensemble answers with."""
        return {
            name: ",".join(
                sorted({each.rpartition("_")[2] for each in _STEP.findall(text)})
            )
            for name, text in self.loaded.items()
            if name in model_names.ENSEMBLES
        }

    def serves(self) -> str | None:
        return self.versions().get(model_names.RANK_CLICKS)


class FakeServers:
    """Several servers by address, their settings, and bundles to promote."""

    def __init__(self, folder: Path, count: int, act: Callable[[str], None]) -> None:
        names = [f"triton-{number + 1}:8001" for number in range(count)]
        self.by_address = {
            name: FakeTriton((folder / name.partition(":")[0]).resolve(), act)
            for name in names
        }
        first, *others = self.by_address.items()
        self.triton = TritonConfig(
            grpc=first[0],
            repository=str(first[1].repository),
            replicas=tuple(
                ReplicaConfig(grpc=name, repository=str(server.repository))
                for name, server in others
            ),
        )
        self._folder = folder / "bundles"

    def bundle(self, version: str) -> Path:
        folder = self._folder / version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / bundle.MANIFEST_FILE).write_text(version)
        return folder

    def bundle_folder(self, version: str) -> Path:
        return self._folder / version

    def serving(self) -> set[str | None]:
        return {server.serves() for server in self.by_address.values()}

    @contextmanager
    def connected(self, config: TritonConfig) -> Iterator[FakeTriton]:
        server = self.by_address[config.grpc]
        if not server.is_up:
            raise OutageError(f"no Triton answers on {config.grpc}")
        try:
            yield server
        except InferenceServerException as error:
            raise OutageError(f"Triton on {config.grpc} failed: {error}") from error


def _render(source: Path, card: BundleManifest, config: TritonConfig, _: Any) -> None:
    """Write two steps and the ensembles of both; as ``repository_writer.render``."""
    repository = Path(config.repository)
    for folder in repository_writer.step_folders(repository, card.version):
        shutil.rmtree(folder)
    names = [model_names.step_name(step, card.version) for step in _FIRST_STEPS]
    for name in names:
        (repository / name).mkdir(parents=True)
        (repository / name / live_repository.CONFIG).write_text(name)
    first = repository / names[0]
    shutil.copyfile(source / bundle.MANIFEST_FILE, first / bundle.MANIFEST_FILE)
    (first / repository_writer.ENSEMBLE_FOLDER).mkdir()
    text = "".join(f'model_name: "{name}"\n' for name in names)
    for ensemble in (*model_names.ENSEMBLES[:3], model_names.ENCODE_USER):
        path = first / repository_writer.ENSEMBLE_FOLDER / f"{ensemble}.pbtxt"
        path.write_text(text)


def _check_version(client: FakeTriton, name: str, version: str) -> None:
    if client.versions().get(name) != version:
        raise ArtifactError(f"{name} was answered by {client.versions().get(name)}")


def _card(source: Path) -> BundleManifest:
    return BundleManifest(version=source.name, created_at_ms=1, sizes={})


def _golden(*_: Any) -> AbstractContextManager[Any]:
    return nullcontext(SimpleNamespace(check=lambda name: None))


def install(monkeypatch: pytest.MonkeyPatch, servers: FakeServers) -> None:
    """Let promotions run against ``servers``, without onnxruntime or a feature store."""
    passed = Gate(gate="golden", passed=True)
    monkeypatch.setattr(one_server, "connected", servers.connected)
    monkeypatch.setattr(one_server, "golden_gate", lambda *_: passed)
    monkeypatch.setattr(one_server, "check_version", _check_version)
    monkeypatch.setattr(one_server, "stored_users", _golden)
    monkeypatch.setattr(one_server, "_gates_by_ids", lambda *_: [])
    monkeypatch.setattr(repository_writer, "render", _render)
    monkeypatch.setattr(bundle, "verify", _card)
    monkeypatch.setattr(bundle, "read", _card)
