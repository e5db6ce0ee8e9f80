"""Claim: at twice its capacity a server still answers what it can.

A real Triton, histories of 200, 100 candidates, features included. First callers in a
closed loop, for what it can answer; then requests that arrive by chance (Poisson) at
multiples of that, whether others were answered or not, each with a deadline of 100 ms. What
counts is goodput: answers in time, a second. Where calls are refused that waited for half
of their deadline, as ``RankClient`` does, and where any may wait (``triton.max_wait_ms`` of
an hour).

    make bench NAME=overload
"""

import argparse
import itertools
import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient

from benchmarks import parser_of, say
from benchmarks.harness.callers import Callers, wait_for_all
from benchmarks.harness.figures import table
from benchmarks.serving.serving_load import PREPARED, Load, measure, prepared
from srp4ctr.testing.serving_stack import ServingStack, running_stack
from srp4ctr.triton_repo.model_names import RANK_CLICKS

LENGTH, CANDIDATES, CALLERS = 200, 100, 8
DEADLINE_S, DURATION_S = 0.1, 8.0
TIMES = (0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0)
WAITS_MS = (1000.0 * DEADLINE_S / 2, None)
COLUMNS = {
    "waits ms": "wait_ms",
    "times": "times:.1f",
    **{f"{n}/s": f"{n}_per_s:.1f" for n in ("offered", "goodput", "refused", "late")},
    "p50 ms": "p50_ms:.1f",
    "p99 ms": "p99_ms:.1f",
}
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedRequest:
    """How one request ended."""

    took_s: float
    error: str
    """The gRPC status, "" of an answer."""


def main() -> None:
    """Print a table, then one JSON object."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--times", type=float, nargs="+", default=TIMES, help="of what it can answer")
    add("--duration", type=float, default=DURATION_S, help="seconds per row")
    add("--quick", action="store_true", help="two rows, few seconds")
    options = parser.parse_args()
    if options.quick:
        options.times, options.duration = (1.0, 2.0), 3.0
    with running_stack(LENGTH) as stack:
        rows = _rows(stack, options)
    print(table(rows, COLUMNS))
    print(json.dumps(_figures(rows) | {"rows": rows}))


def _load(address: str, duration_s: float) -> Load:
    """Return the load of one caller."""
    return Load(
        address=address,
        model=RANK_CLICKS,
        candidates=CANDIDATES,
        callers=1,
        duration_s=duration_s,
    )


def _rows(stack: ServingStack, options: argparse.Namespace) -> list[Row]:
    load = replace(_load(stack.address, options.duration), callers=CALLERS)
    can = measure(load, stack.server.pid, stack.store.pid).row(CANDIDATES)["requests_per_s"]
    say(f"{CALLERS} callers in a closed loop made {can:.0f} requests per second")
    rows = []
    for times, wait_ms in itertools.product(options.times, WAITS_MS):
        row = {"wait_ms": wait_ms, "can_per_s": can, "times": times}
        sender = Callers(1)
        sender.start(_send, stack.address, times * can, options.duration, wait_ms)
        (outcomes,) = sender.stop()
        rows.append(row | _row(outcomes, options.duration))
        say(str(rows[-1]))
        time.sleep(1.0)  # what still waits is no part of the next
    return rows


def _send(
    seed: int, address: str, per_s: float, duration_s: float, wait_ms: float | None
) -> list[TimedRequest]:
    """Send requests that come by chance; return how they ended.

    Each may wait ``wait_ms`` for a step; None: for ever.
    """
    load = _load(address, duration_s)
    chance, requests = random.Random(seed), prepared(load, seed)
    most = int(2 * per_s * duration_s)
    at_s = np.cumsum([chance.expovariate(per_s) for _ in range(most)])
    at_s = at_s[at_s < duration_s]
    wait_us = wait_ms and round(1000.0 * wait_ms)
    outcomes: list[TimedRequest] = []
    all_ended = threading.Event()

    def send(client: InferenceServerClient, number: int) -> None:
        sent = time.perf_counter()

        def ended(result: object, error: Any) -> None:
            took_s, status = time.perf_counter() - sent, error and str(error.status())
            outcomes.append(TimedRequest(took_s=took_s, error=status or ""))
            if len(outcomes) == len(at_s):
                all_ended.set()

        limits = {"client_timeout": DEADLINE_S, "timeout": wait_us}
        client.async_infer(RANK_CLICKS, requests[number % PREPARED], ended, **limits)

    with InferenceServerClient(address) as client:
        client.infer(RANK_CLICKS, requests[0])  # connects
        wait_for_all()
        began = time.perf_counter()
        for number, arrives_at_s in enumerate(at_s):
            time.sleep(max(0.0, began + arrives_at_s - time.perf_counter()))
            send(client, number)
        all_ended.wait(60.0)
    return outcomes


def _row(outcomes: Sequence[TimedRequest], duration_s: float) -> Row:
    good = [outcome.took_s for outcome in outcomes if not outcome.error]
    in_time = np.array([took_s for took_s in good if took_s <= DEADLINE_S] or [np.nan])
    p50, p99 = np.nanquantile(in_time * 1000.0, (0.5, 0.99)) if good else (np.nan, np.nan)
    count = int(np.isfinite(in_time).sum())
    refused = sum("UNAVAILABLE" in outcome.error for outcome in outcomes)
    return {
        "offered_per_s": round(len(outcomes) / duration_s, 1),
        "goodput_per_s": round(count / duration_s, 1),
        "refused_per_s": round(refused / duration_s, 1),
        "late_per_s": round((len(outcomes) - count - refused) / duration_s, 1),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
    }


def _figures(rows: Sequence[Row]) -> Row:
    """Return the goodput at twice what the server can, as a share of the best."""
    found: Row = {}
    for name, wait_ms in zip(("bounded", "unbounded"), WAITS_MS, strict=True):
        of_kind = [row for row in rows if row["wait_ms"] == wait_ms]
        best = max(row["goodput_per_s"] for row in of_kind)
        twice = [row["goodput_per_s"] for row in of_kind if row["times"] == 2.0]
        found[f"{name}_best_per_s"] = best
        found[f"{name}_share_at_twice"] = round(twice[0] / best, 3) if twice else None
    return found


if __name__ == "__main__":
    main()
