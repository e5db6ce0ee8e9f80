"""Question: what does it spare to encode a history before, or not again?

Two ways. The step of ``rank_clicks`` keeps the states of recent histories and encodes none
twice. Or the stream encodes a history when it has moved, and puts the states beside the
features (``triton.stored_states_s``), so that a request finds them there. What either
spares depends on the traffic alone: real logs are read in their order, each request asks
for its user's history, each click and behaviour changes it. For how long states stay
decides how often they are met, and how much memory that takes.

These logs are a hard case for keeping: their slates all end in a click, which changes the
history.

    SRP4CTR_DATA=../shared/data python -m benchmarks.kept_states --data ebnerd movielens
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.click_sources import read
from benchmarks.serving_stack import catalogue
from srp4ctr import processes
from srp4ctr.embedded import broker, ports
from srp4ctr.features import bundle
from srp4ctr.features.bundle import BundleManifest
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.stored_states import StateStore, digest_of, packed
from srp4ctr.streams.events import Impression, UserEvent
from srp4ctr.training import cost, export
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.triton_repo.scoring import Encoder, Scorer, Tensors, histories_in, key_of

DAY_S = 86_400.0
KEPT_FOR_S = {"1 min": 60.0, "1 h": 3600.0, "1 day": DAY_S, "always": float("inf")}
LENGTH, CANDIDATES = 200, 100
TIMED = 300
BEHIND_S = 0.5  # the stream: it stores a sequence in 0.2 s, then encodes it
RESULTS = Path(__file__).parent / "results" / "kept_states.json"
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What one history of ``LENGTH`` costs, in ms of one core, and its states in MB."""

    encode_ms: float
    found_ms: float
    """To look for states that the step has kept."""
    fetched_ms: float
    """To read states from the store, and unpack them."""
    stored_ms: float
    """To pack states, and write them to the store, whose own work is not in it."""
    states_mb: float
    stored_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """How often states were met."""

    met: int
    most: int
    """Histories whose states were there at once, at most."""
    encodings: int = 0
    """Of the stream: requests that meet none encode as well."""


def main() -> None:
    """Print a table, then one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=["ebnerd", "movielens"])
    asked = parser.parse_args()
    costs = _costs()
    rows = [row for name in asked.data for row in _rows(name, costs)]
    print(f"A history of {LENGTH}, ms and MB: {asdict(costs)}")
    head = f"{'states':<7} {'for':>7} {'met':>6} {'encodings':>10} {'MB at most':>11}"
    print(f"{'data':<10} {'requests':>9} {head} {'ms shorter':>11} {'CPU ms spared':>14}")
    for row in rows:
        print(
            f"{row['data']:<10} {row['requests']:>9,} {row['states']:<7} {row['for']:>7}"
            f" {row['met']:>6.1%} {row['encodings']:>10.2f} {row['mb']:>11,.0f}"
            f" {row['shorter_ms']:>11.3f} {row['cpu_spared_ms']:>14.3f}"
        )
    print("encodings, and what is shorter and spared: for each request")
    found = {**asdict(costs), "rows": rows}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


def _rows(name: str, costs: Costs) -> Iterable[Row]:
    events = read(name).events
    asked = requests(events)
    for label, for_s in KEPT_FOR_S.items():
        yield _row(name, label, ("kept", len(asked)), reuse(asked, for_s), costs)
    for label, for_s in KEPT_FOR_S.items():
        yield _row(name, label, ("stored", len(asked)), stored_reuse(events, for_s), costs)


def _row(name: str, label: str, what: tuple[str, int], reuse: Reuse, costs: Costs) -> Row:
    """Return what ``reuse`` means for a request: its time, and the CPU of all for it."""
    states, count = what
    met, encoded = reuse.met / max(count, 1), reuse.encodings / max(count, 1)
    is_stored = states == "stored"
    search_ms = costs.fetched_ms if is_stored else costs.found_ms
    shorter_ms = met * costs.encode_ms - search_ms
    mb = reuse.most * (costs.stored_mb if is_stored else costs.states_mb)
    return {
        "data": name,
        "requests": count,
        "states": states,
        "for": label,
        "met": round(met, 4),
        "encodings": round(encoded + 1.0 - met, 3),
        "mb": round(mb, 1),
        "shorter_ms": round(shorter_ms, 3),
        "cpu_spared_ms": round(
            shorter_ms - encoded * (costs.encode_ms + costs.stored_ms), 3
        ),
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


def reuse(asked: Sequence[tuple[float, str]], kept_for_s: float) -> Reuse:
    """Return how often a request meets the states of the one before."""
    last: dict[str, float] = {}  # in the order of their last request
    met = most = 0
    for at_s, history in asked:
        _forget(last, at_s - kept_for_s)
        met += last.pop(history, None) is not None
        last[history] = at_s
        most = max(most, len(last))
    return Reuse(met=met, most=most)


def stored_reuse(events: Sequence[UserEvent], kept_for_s: float) -> Reuse:
    """Return how often a request meets the states that the stream has encoded.

    They are there ``BEHIND_S`` after the history's last change; changes that come closer
    are encoded once.
    """
    moved: dict[str, float] = {}  # in the order of their last change
    seen: set[str] = set()
    met = most = encodings = 0
    for event in events:
        user, at_s = event.user_id, event.occurred_at / 1000.0
        _forget(moved, at_s - kept_for_s)
        if not isinstance(event, Impression):
            is_apart = at_s - moved.pop(user, float("-inf")) > BEHIND_S
            encodings += is_apart and bool(seen)  # before there is nobody to answer
            moved[user] = at_s
            most = max(most, len(moved))
        elif event.request_id not in seen:
            seen.add(event.request_id)
            met += user in moved and at_s - moved[user] > BEHIND_S
    return Reuse(met=met, most=most, encodings=encodings)


def _forget(last: dict[str, float], until_s: float) -> None:
    """Remove what is older than ``until_s`` from ``last``, oldest first."""
    while last and next(iter(last.values())) < until_s:
        del last[next(iter(last))]


def _costs() -> Costs:
    """Time a fresh model's encoder, and the two ways not to run it."""
    torch.manual_seed(0)
    tables = TableSizes.of(catalogue(), LENGTH)
    model = SRP4CTR(ModelConfig(), tables).eval()
    sizes = cost.sizes_of(ModelConfig(), tables)
    tensors = {
        name: each.numpy()
        for name, each in cost.sample(sizes, requests=1, candidates=CANDIDATES).items()
    }
    with tempfile.TemporaryDirectory() as name, ports.reserved_ports(1) as (port,):
        folder = Path(name)
        export.export(model, sizes, folder)
        card = BundleManifest(version="v1", created_at_ms=0, sizes=sizes)
        bundle.write_card(folder, card)
        running = broker.start_store(folder / "store", port, tied=True)
        redis, registry = f"{ports.HOST}:{port}", str(folder / "registry.db")
        store = StateStore(FeatureConfig(redis=redis, registry=registry), 5.0)
        costs = _timed(folder, tensors, store)
        processes.stop(running, folder / "store")
    return costs


def _timed(folder: Path, tensors: Tensors, store: StateStore) -> Costs:
    """Time the bundle in ``folder`` with one history."""
    anew, kept, fetching = (
        Scorer(folder, mb * 10**6, lambda *_: None, read)
        for mb, read in ((0, None), (64, None), (0, store.read))
    )
    states = anew.states(tensors)[0]
    [history] = histories_in(tensors)
    digest = digest_of(Encoder(folder).digest, key_of(history))

    def put() -> None:
        store.write({"u": packed(states, digest) or b""}, 3600.0)

    put()
    assert fetching.states(tensors, ["u"])[1] == 0, "they were not found"
    return Costs(
        encode_ms=_ms(lambda: anew.states(tensors)),
        found_ms=_ms(lambda: kept.states(tensors)),
        fetched_ms=_ms(lambda: fetching.states(tensors, ["u"])),
        stored_ms=_ms(put, time.process_time),
        states_mb=round(sum(each.nbytes for each in states.values()) / 1e6, 4),
        stored_mb=round(len(packed(states, digest) or b"") / 1e6, 4),
    )


def _ms(
    work: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> float:
    taken = []
    for _ in range(TIMED):
        began = clock()
        work()
        taken.append(1000.0 * (clock() - began))
    return round(median(taken), 3)


if __name__ == "__main__":
    main()
