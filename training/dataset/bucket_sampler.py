"""The order of an epoch: rows of similar lengths share a batch, batches are shuffled.

In: how long each row's sequences are. Out: the rows of each batch. It depends on the seed
only, so that a resumed run and every process see the same.
"""

import numpy as np
from numpy.typing import NDArray

POOL_BATCHES = 32  # sorted together: batches stay random mixtures, and little is padding


def batches(
    rows: NDArray[np.int64],
    lengths: NDArray[np.int64] | None,
    batch_rows: int,
    seed: int,
) -> list[NDArray[np.int64]]:
    """Return ``rows`` in batches of ``batch_rows``, one of them perhaps smaller.

    ``lengths`` (rows, kinds) are of each of ``rows``, the costliest kind last; None mixes
    all lengths.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(rows))
    if lengths is not None and len(rows):
        order = np.concatenate(
            [
                pool[np.lexsort(lengths[pool].T)]
                for pool in in_order(order, POOL_BATCHES * batch_rows)
            ]
        )
    cut = in_order(rows[order], batch_rows)
    if lengths is None:
        return cut
    return [cut[place] for place in random.permutation(len(cut))]


def in_order(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Return ``rows`` as they are, ``size`` at a time."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
