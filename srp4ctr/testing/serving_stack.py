"""A history's length → a store with full rows, and a Triton that serves a fresh SRP4CTR.

The weights are as they were drawn: what a model costs does not depend on its training.
Everything ends with the ``with`` block.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from srp4ctr import processes
from srp4ctr.embedded import broker, ports, triton_install, triton_server
from srp4ctr.embedded.config import EmbeddedConfig
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.features.bundles.gates import skipped
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.tensors import vocabulary
from srp4ctr.features.tensors.fingerprint import fingerprint
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.events.schema import item_key
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.sequences import EXPOSURE_LENGTH
from srp4ctr.streams.state.state_store import FeatureSink, ItemProfile
from srp4ctr.testing.ingest_events import past_activity, past_user
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.export import bundle_writer, onnx_export
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import promotion

USERS, ITEMS, GENRES = 200, 2_000, 20
VERSION = "v1"
AN_HOUR_MS = 3_600_000.0
NO_LOG = skipped("skew", "there is no raw log to compare the feature store with")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingStack:
    """What runs, and what it serves."""

    triton: TritonConfig
    plan: triton_server.ServerPlan
    server: processes.Running
    store: processes.Running
    features: FeatureConfig
    bundle: Path
    folder: Path
    """Of all that runs; it ends with the stack."""

    @property
    def address(self) -> str:
        """Triton's gRPC port."""
        return self.triton.grpc

    @property
    def sizes(self) -> Mapping[str, int]:
        """By the letter of a dimension."""
        return bundle.read(self.bundle).sizes


@contextmanager
def running_stack(length: int, **settings: Any) -> Iterator[ServingStack]:
    """Yield a stack whose users have histories of ``length`` behaviours.

    ``settings`` are fields of ``TritonConfig``. By default the server keeps no states,
    because otherwise it would encode the histories of so few users only once. It refuses
    no call that waits, because benchmarks measure the waiting.
    """
    with tempfile.TemporaryDirectory() as name, ports.reserved_ports(3) as numbers:
        folder = Path(name)
        triton = TritonConfig(
            grpc=f"{ports.HOST}:{numbers[1]}",
            repository=str(folder / "triton"),
            **{"kept_states_mb": 0.0, "max_wait_ms": AN_HOUR_MS} | settings,
        )
        try:
            yield _started(folder, length, triton, numbers)
        finally:
            for each in processes.find(folder):
                processes.stop(each, folder)
            triton_server.clear_shared_memory(folder)


def _started(
    folder: Path, length: int, triton: TritonConfig, numbers: Sequence[int]
) -> ServingStack:
    """Start the store and Triton at ports ``numbers``, and promote a fresh model."""
    from srp4ctr.features.online.feast_store import apply  # Feast: 3 s
    from srp4ctr.features.online.store import FeatureStoreSink

    features = FeatureConfig(
        redis=f"{ports.HOST}:{numbers[0]}",
        registry=str(folder / "registry.db"),
        log_dir=str(folder / "events"),
    )
    store = broker.start_store(folder, numbers[0], tied=True)
    apply(features)
    _fill(FeatureStoreSink(features), length)
    plan = triton_server.ServerPlan(
        repository=folder / "triton",
        redis=features.redis,
        registry=features.registry,
        grpc_port=numbers[1],
        metrics_port=numbers[2],
    )
    server = start_triton(plan, folder)
    source = fresh_bundle(folder / "bundles", length)
    done = promotion.promote(source, triton, features, NO_LOG)
    assert not done.refusal, done.refusal
    return ServingStack(
        triton=triton,
        plan=plan,
        server=server,
        store=store,
        features=features,
        bundle=source,
        folder=folder,
    )


def start_triton(plan: triton_server.ServerPlan, folder: Path) -> processes.Running:
    """Start a server; return when it answers."""
    serving = triton_install.build(Path(EmbeddedConfig().serving_dir))
    return triton_server.start(serving, plan, folder, tied=True)


def user_ids() -> list[str]:
    """Return all users."""
    return [f"user-{number}" for number in range(USERS)]


def item_ids() -> list[str]:
    """Return all items, most popular first."""
    return [f"item-{number}" for number in range(ITEMS)]


def _profile(number: int, at_ms: int) -> ItemProfile:
    genres = (f"genre-{number % GENRES}", f"genre-{number * 7 % GENRES}")
    return ItemProfile(
        item_key=item_key(f"item-{number}"),
        item_id=f"item-{number}",
        attributes={"genres": genres, "year": str(1960 + number % 60)},
        updated_at_ms=at_ms,
    )


def catalogue() -> Vocabulary:
    """Return the vocabulary of all items and their attributes."""
    counts = {item_key(each): ITEMS - place for place, each in enumerate(item_ids())}
    profiles = [_profile(number, 1).attributes for number in range(ITEMS)]
    return vocabulary.build(counts, profiles)


def _fill(sink: FeatureSink, length: int) -> None:
    """Write every user's and item's rows as a worker would."""
    now_ms = time.time_ns() // 1_000_000
    keys = [item_key(item_id) for item_id in item_ids()]
    rows = Rows()
    for number, user in enumerate(user_ids()):
        rows.users[user] = past_user(number, length, now_ms, ITEMS)
    rows.shares = {(key, 0): past_activity(now_ms) for key in keys}
    sink.write(rows)
    sink.write_profiles([_profile(number, now_ms) for number in range(ITEMS)])


def fresh_bundle(
    bundles_dir: Path,
    length: int,
    version: str = VERSION,
    seed: int = 0,
    words: Vocabulary | None = None,
) -> Path:
    """Return the bundle of an untrained model with weights of ``seed``."""
    words = words or catalogue()
    tables = TableSizes.of(words, length)
    torch.manual_seed(seed)
    model = SRP4CTR(ModelConfig(), tables).eval()
    sizes = bundle_writer.sizes_of(ModelConfig(), tables) | {"W": EXPOSURE_LENGTH}
    folder = bundles_dir / version
    folder.mkdir(parents=True)
    onnx_export.export(model, sizes, folder)
    golden = onnx_export.sample(sizes, requests=2, candidates=3)
    onnx_export.write_golden(model, {n: t.numpy() for n, t in golden.items()}, folder)
    vocabulary.save(words, folder / bundle.VOCABULARY_FILE)
    created = time.time_ns() // 1_000_000
    bundle.write_card(
        folder,
        BundleManifest(
            version=version,
            created_at_ms=created,
            sizes=sizes,
            schema_fingerprint=fingerprint(sizes),
        ),
    )
    bundle.write_manifest(folder)
    return folder
