"""Embeddings → a few codes each, by residual quantisation ("semantic ids").

In: the vectors of a training window's items, or users. Out: codebooks, and of a vector the
code of each level: the centroid nearest to what the levels before left of it (Chen et al.,
"Approximate Nearest Neighbor Search by Residual Vector Quantization", 2010; as ids of
items: Rajput et al., "Recommender Systems with Generative Retrieval", 2023). Items that
are alike share codes, so that a new item has rows of the model's tables that are trained.

A vector's length is no content: all are scaled to 1, and one of zeros has no codes.
Shapes: V vectors of N numbers, G levels of K codes.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Int64s = NDArray[np.int64]

MAX_FITTED = 50_000  # vectors: bounds the time of a fit
_ROUNDS = 25  # of Lloyd's algorithm: 100 leave a hundredth less, 10 four hundredths more


def unit(vectors: Floats) -> Floats:
    """Return ``vectors`` (…, N) scaled to length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Floats = (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return scaled


def fit(vectors: Floats, levels: int, codes: int) -> Floats:
    """Return codebooks (G, K, N) of ``vectors`` (V, N); the same for the same vectors."""
    draw = np.random.default_rng(0)
    left = unit(vectors)
    if len(left) > MAX_FITTED:
        left = left[draw.choice(len(left), MAX_FITTED, replace=False)]
    books = []
    for _ in range(levels):
        book = _centroids(left, codes, draw)
        books.append(book)
        left = left - book[_nearest(left, book)]
    return np.stack(books)


def codes_of(vectors: Floats, books: Floats) -> Int64s:
    """Return the codes (V, G) of ``vectors`` (V, N)."""
    left, found = unit(vectors), np.empty((len(vectors), len(books)), dtype=np.int64)
    for level, book in enumerate(books):
        found[:, level] = _nearest(left, book)
        left = left - book[found[:, level]]
    return found


def error(vectors: Floats, books: Floats) -> float:
    """Return the mean squared distance between ``vectors``, scaled, and their codes."""
    codes = codes_of(vectors, books)
    described = books[np.arange(len(books)), codes].sum(axis=1)
    return float(((unit(vectors) - described) ** 2).sum(axis=1).mean())


def _centroids(vectors: Floats, count: int, draw: np.random.Generator) -> Floats:
    """Return ``count`` centroids by Lloyd's algorithm, begun by k-means++."""
    centroids = _spread(vectors, count, draw)
    for _ in range(_ROUNDS):
        owners = _nearest(vectors, centroids)
        owned = (owners == np.arange(count)[:, None]).astype(np.float32)  # (K, V)
        sizes = owned.sum(axis=1, keepdims=True)
        # A centroid of nothing stays where it is.
        means = owned @ vectors / np.maximum(sizes, 1.0)
        moved = np.where(sizes > 0, means, centroids)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids


def _spread(vectors: Floats, count: int, draw: np.random.Generator) -> Floats:
    """Return ``count`` of ``vectors``, drawn by their squared distance to those before."""
    chosen = [int(draw.integers(len(vectors)))]
    distances = np.full(len(vectors), np.inf)
    for _ in range(count - 1):
        apart = ((vectors - vectors[chosen[-1]]) ** 2).sum(axis=1)
        distances = np.minimum(distances, apart)
        total = distances.sum()
        shares = distances / total if total > 0 else None
        chosen.append(int(draw.choice(len(vectors), p=shares)))
    return vectors[chosen].copy()


def _nearest(vectors: Floats, centroids: Floats) -> Int64s:
    """Return the nearest of ``centroids`` (K, N) to each of ``vectors`` (V, N)."""
    lengths = (centroids**2).sum(axis=1)
    nearest: Int64s = (lengths - 2.0 * (vectors @ centroids.T)).argmin(axis=1)
    return nearest
