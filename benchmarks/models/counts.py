"""Plain counts: how often an item, a user and each value of the context were clicked.

In: slates. Out: a sum of log-odds, one of each key, of what training showed. It moves with
no stream and learns nothing: what any model must beat.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.quality.clicks.click_examples import Part

PRIOR = 20.0  # impressions at the mean rate that each key begins with
LogOdds = Mapping[str, "pd.Series[float]"]


def learn(part: Part) -> LogOdds:
    """Return the log-odds of each key's value, less the mean's."""
    table, clicked = _keys(part), part.clicked
    mean = float(clicked.mean())
    found = {}
    for name in table:
        of = pd.Series(clicked).groupby(table[name]).agg(["sum", "size"])
        rate = (of["sum"] + PRIOR * mean) / (of["size"] + PRIOR)
        found[name] = np.log(rate / (1.0 - rate)) - np.log(mean / (1.0 - mean))
    return found


def logits(odds: LogOdds, part: Part) -> NDArray[np.float32]:
    """Return the sums (R, N); 0 where nothing is shown, or a value was never met."""
    scores = np.zeros(part.slates.clicked.shape, dtype=np.float32)
    table = _keys(part)
    parts = [table[name].map(of).fillna(0.0) for name, of in odds.items()]
    scores[part.slates.shown] = np.sum(parts, axis=0)
    return scores


def _keys(part: Part) -> pd.DataFrame:
    shown = part.slates.shown
    requests = np.nonzero(shown)[0]
    users, contexts = part.slates.user_ids[requests], part.contexts[requests]
    return pd.DataFrame({"item": part.items[shown], "user": users, "context": contexts})
