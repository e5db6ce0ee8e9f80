"""States → the items with the greatest products, of all or of those that may be shown."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from srp4ctr.training.export.retrieval import write_products
from srp4ctr.triton_repo.serving.nearest import Nearest, greatest

Floats = NDArray[np.float32]
ITEMS, WIDTH = 50_000, 33


@pytest.fixture(scope="module")
def vectors() -> Floats:
    """Return vectors in clusters, some much longer than others, with a wide bias."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((300, WIDTH)).astype(np.float32) * 2.0
    made = rng.standard_normal((ITEMS, WIDTH)).astype(np.float32)
    made += centres[rng.integers(300, size=ITEMS)]
    made *= rng.lognormal(0.0, 0.5, (ITEMS, 1)).astype(np.float32)
    made[:, -1] = 3.0 * rng.standard_t(3, ITEMS)
    return made


@pytest.fixture(scope="module")
def search(vectors: Floats, tmp_path_factory: pytest.TempPathFactory) -> Nearest:
    path = tmp_path_factory.mktemp("products") / "products.onnx"
    write_products(vectors, path)
    return Nearest(path, vectors)


def states(vectors: Floats) -> Floats:
    found = vectors[:20].copy()
    found[:, -1] = 1.0  # of the bias
    return found


def test_it_finds_what_an_exact_search_finds(search: Nearest, vectors: Floats) -> None:
    for state in states(vectors):
        expected = np.argsort(-(vectors @ state), kind="stable")[:200]
        assert len(np.intersect1d(expected, search(state, 200))) >= 199
        np.testing.assert_array_equal(search(state, 200)[:20], expected[:20])


@pytest.mark.parametrize("passing", [30, 1_000, ITEMS // 2])
def test_a_filter_gets_all_that_it_asks_for_and_nothing_else(
    search: Nearest, vectors: Floats, passing: int
) -> None:
    among = np.sort(np.random.default_rng(1).permutation(ITEMS)[:passing])
    for state in states(vectors):
        order = among[np.argsort(-(vectors[among] @ state), kind="stable")]
        seen, gone = order[:5], np.concatenate([order[7:9], [0, 1]])
        expected = [row for row in order if row not in {*seen, *gone}][:200]
        found = search(state, 200, (gone, seen), among)
        assert len(found) == len(expected)
        assert not np.isin(found, [*seen, *gone]).any()
        assert np.isin(found, among).all()
        assert len(np.intersect1d(expected, found)) >= len(expected) - 1


def test_without_items_nothing_is_found(tmp_path: Path) -> None:
    nothing = np.zeros((0, WIDTH), dtype=np.float32)
    write_products(nothing, tmp_path / "products.onnx")
    search = Nearest(tmp_path / "products.onnx", nothing)
    assert len(search(np.ones(WIDTH, dtype=np.float32), 5)) == 0


@pytest.mark.parametrize("kind", [np.int32, np.float32])
@pytest.mark.parametrize("count", [1, 7, 200, 9_000, 20_000])
def test_the_greatest_are_the_greatest(count: int, kind: DTypeLike) -> None:
    rng = np.random.default_rng(2)
    scores: NDArray[Any] = rng.permutation(10_007).astype(kind)
    assert sorted(greatest(scores, count)) == sorted(np.argsort(-scores)[:count])
    equal: NDArray[Any] = np.zeros(10_007, dtype=kind)
    assert len(set(greatest(equal, count).tolist())) == min(count, len(equal))
