"""EASE (Steck, WWW 2019): a linear model of items by items, in closed form.

It has no order and no side information, and few models find more of what users do next.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

REGULARIZATION = 500.0  # of 50, 200, 500, 2,000 the best, or within .001 of it


def item_weights(
    done: csr_matrix, regularization: float = REGULARIZATION
) -> NDArray[np.float32]:
    """Return B (items, items), so that ``done @ B`` scores the items of each user.

    ``done`` (users, items) is 1 where a user did something with an item. B minimises
    |X − XB|² + λ|B|² with a diagonal of zeros: B = I − P diag(1 / diag P), where P is the
    inverse of XᵀX + λI (equation 8 of the paper).
    """
    gram = (done.T @ done).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += regularization
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    weights[np.diag_indices_from(weights)] = 0
    made: NDArray[np.float32] = weights.astype(np.float32)
    return made
