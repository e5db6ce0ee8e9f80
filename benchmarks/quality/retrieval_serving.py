"""Synthetic items → the recall of the search, and how long a recommendation takes.

A model of as many items with the weights that were drawn: what retrieval costs does not
depend on training. Item vectors lie in clusters of very different sizes, as those of a
catalogue do, and a state lies near one of them.
A recommendation is a call of ``RankClient.recommend`` to a real Triton with a store of full
rows: it retrieves and ranks 200 candidates.
"""

import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from benchmarks import say
from benchmarks.serving.promotion_faults import NO_LOG
from benchmarks.serving.serving_stack import (
    ServingStack,
    catalogue,
    fresh_bundle,
    item_ids,
    running_stack,
    user_ids,
)
from srp4ctr.client.rank_client import RankClient
from srp4ctr.features.bundles import bundle
from srp4ctr.features.tensors.schema import ENCODER_INPUTS, NEXT_ITEM_TENSORS
from srp4ctr.streams.events.schema import item_key
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.export import retrieval
from srp4ctr.training.export.bundle_writer import sizes_of
from srp4ctr.training.export.onnx_export import export_onnx, sample
from srp4ctr.training.export.retrieval import Retriever
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.triton_repo.deployment import promotion
from srp4ctr.triton_repo.serving.item_vectors import Nearest, greatest

LENGTH, WIDTH = 50, 64
CLUSTERS, CANDIDATES, STATES = 3_000, 200, 200
SIZES = {"100k": 100_000, "1m": 1_000_000}
CALLS, WARM_UP = 1_000, 50
Floats = NDArray[np.float32]


def measured() -> dict[str, float]:
    """Return the index's recall, and the 99th percentile of latency at each of SIZES."""
    found = {"index_recall": index_recall(SIZES["1m"])}
    with running_stack(LENGTH, (), instances=1) as stack:
        for name, items in SIZES.items():
            _serve(stack, items, f"v{2 + len(found)}")
            found[f"p99_ms_{name}"] = round(_p99_ms(stack), 2)
            say(f"{name}: {found}")
    return found


def index_recall(items: int) -> float:
    """Return the share of the exact first ``CANDIDATES`` that serving's search finds."""
    vectors, hits, taken = synthetic(items), 0, np.zeros((STATES, 2))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / bundle.PRODUCTS_FILE
        retrieval.write_products(vectors, path)
        search = Nearest(path, vectors)
    for number, state in enumerate(states(STATES)):
        began = time.thread_time()
        exact = greatest(vectors @ state, CANDIDATES)
        between = time.thread_time()
        found = search(state, CANDIDATES)
        taken[number] = between - began, time.thread_time() - between
        hits += len(np.intersect1d(exact, found))
    exact_ms, ms = 1000.0 * np.median(taken, axis=0)
    say(f"{items:,} items, CPU time: float32 {exact_ms:.1f} ms, four bits first {ms:.1f}")
    return round(hits / (STATES * CANDIDATES), 4)


def synthetic(items: int, seed: int = 0) -> Floats:
    """Return vectors (items, WIDTH + 1) in clusters; the last number is a bias."""
    centres, rng = _centres(), np.random.default_rng(seed)
    shares = 1.0 / np.arange(1, CLUSTERS + 1)
    of = rng.choice(CLUSTERS, items, p=shares / shares.sum())
    made = rng.standard_normal((items, WIDTH + 1)).astype(np.float32) * 0.6
    made[:, :-1] += centres[of]
    return made


def states(count: int, seed: int = 1) -> Floats:
    """Return expected states (count, WIDTH + 1): each between two clusters."""
    centres, rng = _centres(), np.random.default_rng(seed)
    one, other = (centres[rng.integers(CLUSTERS, size=count)] for _ in range(2))
    made = np.ones((count, WIDTH + 1), dtype=np.float32)
    noise = rng.standard_normal((count, WIDTH)).astype(np.float32)
    made[:, :-1] = 0.7 * one + 0.3 * other + 0.3 * noise
    return made


def _centres() -> Floats:
    return np.random.default_rng(7).standard_normal((CLUSTERS, WIDTH)).astype(np.float32)


def _serve(stack: ServingStack, items: int, version: str) -> None:
    """Promote a bundle that knows ``items``: those of the store, and others."""
    names = [*item_ids(), *(f"other-{number}" for number in range(items))][:items]
    keys = np.array([item_key(name) for name in names], dtype=np.int64)
    order = np.argsort(keys)
    words = replace(catalogue(), item_keys=keys[order])
    folder = fresh_bundle(stack.folder / "large", LENGTH, version, words=words)
    tables = TableSizes.of(words, LENGTH)
    sizes = sizes_of(ModelConfig(), tables)
    export_onnx(
        Retriever(SRP4CTR(ModelConfig(), tables).eval().requires_grad_(False)),
        sample(sizes, requests=2, candidates=1),
        ENCODER_INPUTS,
        NEXT_ITEM_TENSORS,
        folder / bundle.RETRIEVER_FILE,
    )
    ids = [names[i].encode() for i in order.tolist()]
    vectors = synthetic(items)
    retrieval.write_products(vectors, folder / bundle.PRODUCTS_FILE)
    save_file(
        {
            "vectors": vectors,
            "id_letters": np.frombuffer(b"".join(ids), dtype=np.uint8),
            "id_ends": np.cumsum([len(each) for each in ids]),
            "counts": np.arange(items)[::-1].copy(),
        },
        folder / bundle.ITEMS_FILE,
    )
    _promote(stack, folder)


def _promote(stack: ServingStack, folder: Path) -> None:
    bundle.write_manifest(folder)
    triton = replace(stack.triton, max_latency_ratio=1000.0)
    done = promotion.promote(folder, triton, stack.features, NO_LOG)
    assert not done.refusal, done.refusal
    shutil.rmtree(folder)


def _p99_ms(stack: ServingStack) -> float:
    """Return the 99th percentile of the time of a recommendation, one caller."""
    users, taken = user_ids(), []
    with RankClient(stack.address) as client:
        for number in range(WARM_UP + CALLS):
            began = time.perf_counter()
            answer = client.recommend(users[number % len(users)], 20, deadline_s=30.0)
            taken.append(1000.0 * (time.perf_counter() - began))
            assert answer.status == "ok"
            assert "model" in answer.sources
    return float(np.percentile(taken[WARM_UP:], 99))
