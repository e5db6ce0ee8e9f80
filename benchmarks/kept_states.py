"""Question: how often is a history still as it was when its states were last computed?

The step of ``rank_clicks`` keeps the states of recent histories and encodes none twice.
What that spares depends on the traffic alone: real logs are read in their order, each
request asks for its user's history, each click and behaviour changes it. For how long
states are kept decides how often they are met again, and how much memory that takes.

These logs are a hard case: their slates all end in a click, which changes the history.

    SRP4CTR_DATA=../shared/data python -m benchmarks.kept_states --data ebnerd movielens
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.click_sources import read
from benchmarks.serving_stack import catalogue
from streams.events import Impression, UserEvent
from training import cost, export
from training.config import ModelConfig
from training.model.embeddings import TableSizes
from training.model.srp4ctr import SRP4CTR
from triton_repo.scoring import Scorer

KEPT_FOR_S = {"1 min": 60.0, "10 min": 600.0, "1 h": 3600.0, "always": float("inf")}
LENGTH, CANDIDATES = 200, 100
TIMED = 300
RESULTS = Path(__file__).parent / "results" / "kept_states.json"
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What one history of ``LENGTH`` costs, in ms of one core, and its states in MB."""

    encode_ms: float
    found_ms: float
    states_mb: float


def main() -> None:
    """Print a table, then one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=["ebnerd", "movielens"])
    asked = parser.parse_args()
    costs = _costs()
    rows = [row for name in asked.data for row in _rows(name, costs)]
    taken = f"encoded in {costs.encode_ms:.3f} ms, looked up in {costs.found_ms:.3f}"
    print(f"A history of {LENGTH}: {taken}")
    head = f"{'kept for':>9} {'met again':>10} {'MB at most':>11} {'ms spared':>10}"
    print(f"{'data':<10} {'requests':>9} {head} a request")
    for row in rows:
        print(
            f"{row['data']:<10} {row['requests']:>9,} {row['kept_for']:>9}"
            f" {row['met_again']:>10.1%} {row['mb']:>11.0f} {row['spared_ms']:>10.3f}"
        )
    found = {"encode_ms": costs.encode_ms, "found_ms": costs.found_ms, "rows": rows}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


def _rows(name: str, costs: Costs) -> Iterable[Row]:
    asked = requests(read(name).events)
    for label, kept_for_s in KEPT_FOR_S.items():
        met, most = reuse(asked, kept_for_s)
        # A history that is not met again costs the search and nothing else.
        spared_ms = met * costs.encode_ms - costs.found_ms
        yield {
            "data": name,
            "requests": len(asked),
            "kept_for": label,
            "met_again": round(met, 4),
            "mb": round(most * costs.states_mb, 1),
            "spared_ms": round(spared_ms, 3),
        }


def requests(events: Sequence[UserEvent]) -> list[tuple[float, str]]:
    """Return the time in seconds and the history's name of each request in ``events``."""
    changes: dict[str, int] = {}
    seen: set[str] = set()
    found: list[tuple[float, str]] = []
    for event in events:
        if not isinstance(event, Impression):
            changes[event.user_id] = changes.get(event.user_id, 0) + 1
        elif event.request_id not in seen:
            seen.add(event.request_id)
            history = f"{event.user_id}@{changes.get(event.user_id, 0)}"
            found.append((event.occurred_at / 1000.0, history))
    return found


def reuse(asked: Sequence[tuple[float, str]], kept_for_s: float) -> tuple[float, int]:
    """Return which share of the requests meets states, and how many are kept at most."""
    last: dict[str, float] = {}  # in the order of their last request
    met = most = 0
    for at_s, history in asked:
        while last and next(iter(last.values())) < at_s - kept_for_s:
            del last[next(iter(last))]
        met += last.pop(history, None) is not None
        last[history] = at_s
        most = max(most, len(last))
    return met / max(len(asked), 1), most


def _costs() -> Costs:
    """Time a fresh model's encoder, and the search for states that are kept."""
    torch.manual_seed(0)
    tables = TableSizes.of(catalogue(), LENGTH)
    model = SRP4CTR(ModelConfig(), tables).eval()
    sizes = cost.sizes_of(ModelConfig(), tables)
    tensors = {
        name: each.numpy()
        for name, each in cost.sample(sizes, requests=1, candidates=CANDIDATES).items()
    }
    with tempfile.TemporaryDirectory() as folder:
        export.export(model, sizes, Path(folder))
        anew, kept = (Scorer(Path(folder), mb * 10**6, lambda *_: None) for mb in (0, 64))
    states = anew.states(tensors)[0]
    return Costs(
        encode_ms=round(_ms(anew, tensors), 3),
        found_ms=round(_ms(kept, tensors), 3),
        states_mb=sum(each.nbytes for each in states.values()) / 1e6,
    )


def _ms(scorer: Scorer, tensors: dict[str, Any]) -> float:
    taken = []
    for _ in range(TIMED):
        began = time.perf_counter()
        scorer.states(tensors)
        taken.append(1000.0 * (time.perf_counter() - began))
    return median(taken)


if __name__ == "__main__":
    main()
