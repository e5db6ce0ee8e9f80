"""Claim: a request costs little more than its history, whatever its number of candidates.

One Triton, one set of weights, requests with features from the store, in several forms

- ``rank_clicks``: as it is served on a CPU, by the native step, each request's history
  encoded once,
- ``rank_in_python``: the same by the Python step, as all forms but the first are,
- ``rank_states_kept``: the same when the user's history is still as it was at the request
  before, as for all of these 200 users,
- ``rank_in_three_steps``: the same in three steps, as for a GPU: what the hops cost,
- ``rank_tiled``: the history encoded again for each candidate, as tiling the user does
  (not where that takes gigabytes),
- ``rank_din``: DIN served in one step,
- ``rank_lightgbm``: 200 trees on the counters, by onnxruntime, in one step,
- ``rank_clicks`` for users with a history of 10,
- on a stack of its own, whose users have attributes: ``rank_clicks`` for few users with one
  context, for 100,000 users, and for contexts that all differ,
- onnxruntime in this process, one thread, on the arrays of 64 such requests: the bound,

turn by turn in one run. CPU time is that of the server, its steps and the store. Ratios
count: the times are of this machine. What was measured before with other lengths,
candidates or callers stays in the results.

    make bench NAME=serving
    python -m benchmarks serving --lengths 200 --candidates 100 --callers 1
"""

import argparse
import functools
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

import numpy as np

from benchmarks import RESULTS, parser_of, say
from benchmarks.harness.figures import table
from benchmarks.harness.saved_result import circumstances, cpu_name, merged_rows
from benchmarks.serving.serving_forms import (
    DIN,
    FORMS,
    PYTHON,
    THREE_STEPS,
    TILED,
    TREES,
)
from benchmarks.serving.serving_load import PREPARED, Load, Measured, cpu_s, measure, timed
from benchmarks.serving.serving_stack import (
    SHORT,
    USERS,
    ServingStack,
    item_ids,
    running_stack,
    user_ids,
)
from srp4ctr.atomic_files import replace_text
from srp4ctr.features.online.request_features import open_bundle
from srp4ctr.features.tensors.schema import STATE_TENSORS
from srp4ctr.training.export import onnx_export
from srp4ctr.triton_repo.model_names import RANK_CLICKS

LENGTHS, CANDIDATES, CALLERS = (50, 200, 1000), (10, 100, 500), (1, 4)
DURATION_S, ROUNDS = 4.0, 3
# Candidates × L of all calls at once beyond which no history is tiled: 500 × 1,000 would
# take 4 GB a layer.
MOST_TILED = 100_000
ONNX, BRIEF = "onnxruntime in process", f"rank_clicks, history of {SHORT}"
FEW_USERS, MANY_USERS, MANY_CONTEXTS = DESCRIBED = (
    "rank_clicks, users with attributes",
    "rank_clicks, many users with attributes",
    "rank_clicks, contexts that differ",
)
MANY, MANY_PREPARED = 100_000, 1_000  # users; requests, so that hardly one comes twice
IDLE_S = 4.0
FILE = RESULTS / "serving.json"
MAIN = (200, 100, 1)  # the length, candidates and callers that the JSON's first fields have
FOUR, MORE, FEW, LONG = (200, 100, 4), (200, 500, 1), (200, 10, 1), (1000, 100, 1)
COLUMNS = {
    "L": "length",
    "N": "candidates",
    "callers": "callers",
    "form": "form",
    **{f"{name} ms": f"{name}_ms:.2f" for name in ("p50", "p95", "p99")},
    "requests/s": "requests_per_s:.0f",
    "CPU s per 1,000": "cpu_s_per_1000_candidates:.4f",
    "RSS MB": "rss_mb:.0f",
}
CASE = ("length", "candidates", "callers")
Row = Mapping[str, Any]


def main() -> None:
    """Print a table, then one JSON object."""
    options = _arguments()
    rows: list[Row] = []
    for length in options.lengths:
        with running_stack(length) as stack:
            rows += [{"length": length, **row} for row in _rows(stack, options)]
            idle = _idle_cores(stack, options.idle)
    if not options.forms or set(options.forms) & set(DESCRIBED):
        rows += _described_rows(options)
    print(table(rows, COLUMNS))
    is_kept = not options.quick and not options.forms
    if is_kept:
        rows = sorted(merged_rows(rows, FILE, CASE), key=itemgetter(*CASE))
    idle_and_cpu = {"idle_cores": idle, "cpu": cpu_name()}
    found = {**_main_figures(rows), **idle_and_cpu, **circumstances(), "rows": rows}
    if is_kept:
        replace_text(FILE, json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


def _rows(stack: ServingStack, options: argparse.Namespace) -> Iterator[Row]:
    """Yield a row for each form, number of candidates and of callers."""
    duration_s = options.duration / options.rounds
    for candidates, callers in itertools.product(options.candidates, options.callers):
        load = Load(
            address=stack.address,
            model=RANK_CLICKS,
            candidates=candidates,
            callers=callers,
            duration_s=duration_s,
        )
        loads = {name: replace(load, model=name) for name in (RANK_CLICKS, *FORMS)}
        loads[BRIEF] = replace(load, history=SHORT)
        pids = stack.server.pid, stack.store.pid
        forms: dict[str, Callable[[], Measured]] = {
            name: functools.partial(measure, each, *pids) for name, each in loads.items()
        }
        if callers == 1:
            forms[ONNX] = functools.partial(timed, _scored(stack, candidates), duration_s)
        if options.forms:
            forms = {name: form for name, form in forms.items() if name in options.forms}
        if candidates * stack.sizes["L"] * callers > MOST_TILED:
            forms.pop(TILED, None)
        for name, made in _taken(forms, options.rounds).items():
            row = {"form": name, "candidates": candidates, "callers": callers}
            row |= made.row(candidates) | {"bytes_between_steps": _moved(stack, name)}
            say(f"L {stack.sizes['L']}, {candidates} candidates, {callers} callers: {row}")
            yield row


def _described_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Yield rows of users with attributes: few or many of them, one or many contexts."""
    length, candidates, callers = MAIN
    length = length if length in options.lengths else options.lengths[0]
    rounds = itertools.count()
    with running_stack(length, (), described=options.users) as stack:
        few = Load(
            address=stack.address,
            model=RANK_CLICKS,
            candidates=candidates,
            callers=callers,
            duration_s=options.duration / options.rounds,
            described=min(USERS, options.users),
            prepared=MANY_PREPARED,
        )
        many = replace(few, described=options.users), replace(few, differ=True)
        loads = dict(zip(DESCRIBED, (few, *many), strict=True))

        def measured(load: Load) -> Measured:
            once = replace(load, seed=next(rounds))
            return measure(once, stack.server.pid, stack.store.pid)

        forms = {name: functools.partial(measured, load) for name, load in loads.items()}
        for name, made in _taken(forms, options.rounds).items():
            case = {"length": length, "candidates": candidates, "callers": callers}
            row = {**case, "form": name, **made.row(candidates), "bytes_between_steps": 0}
            say(f"{options.users} users with attributes: {row}")
            yield row


def _taken(forms: Mapping[str, Callable[[], Measured]], rounds: int) -> dict[str, Measured]:
    """Measure all forms in turns; return what each of them took."""
    taken: dict[str, list[Measured]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name, form in forms.items():
            taken[name].append(form())
    return {name: _together(parts) for name, parts in taken.items()}


def _scored(stack: ServingStack, candidates: int) -> Callable[[], object]:
    """Return what scores the next of ``PREPARED`` requests by the bundle's two files."""
    features = open_bundle(stack.features, stack.bundle)
    chance = np.random.default_rng(0)
    requests = [
        features.assemble(
            [chance.choice(user_ids())], [chance.choice(item_ids(), candidates, False)]
        ).tensors
        for _ in range(PREPARED)
    ]
    features.close()
    scorer, turns = onnx_export.scorer(stack.bundle), itertools.cycle(requests)
    return lambda: scorer(next(turns))


def _idle_cores(stack: ServingStack, idle_s: float) -> float:
    """Return how many cores the server and its steps use while nobody calls."""
    time.sleep(1.0)
    before, began = cpu_s(stack.server.pid), time.perf_counter()
    time.sleep(idle_s)
    return round((cpu_s(stack.server.pid) - before) / (time.perf_counter() - began), 4)


def _together(parts: Sequence[Measured]) -> Measured:
    return Measured(
        latencies_s=np.concatenate([each.latencies_s for each in parts]),
        wall_s=sum(each.wall_s for each in parts),
        cpu_s=sum(each.cpu_s for each in parts),
        rss_mb=max(each.rss_mb for each in parts),
    )


def _moved(stack: ServingStack, form: str) -> int:
    """Return the bytes of a request's states that pass from encoder to head."""
    if form != THREE_STEPS:
        return 0
    return sum(4 * int(np.prod(spec.dims(stack.sizes))) for spec in STATE_TENSORS)


def _main_figures(rows: Sequence[Row]) -> Row:
    """Return the figures of ``MAIN`` and of cases near it, null where not measured."""
    found = {(*itemgetter(*CASE)(row), row["form"]): row for row in rows}

    def figure(name: str, form: str, case: tuple[int, ...] = MAIN) -> Any:
        return found.get((*case, form), {}).get(name)

    def cost(form: str, case: tuple[int, ...] = MAIN) -> float:
        """Return the CPU milliseconds of a request; NaN where it was not measured."""
        return (figure("cpu_s_per_1000_candidates", form, case) or math.nan) * case[1]

    costs = _costs(cost)
    return {
        "p50_ms": figure("p50_ms", RANK_CLICKS),
        "p99_ms": figure("p99_ms", RANK_CLICKS),
        "tiled_p99_ms": figure("p99_ms", TILED),
        "bound_p50_ms": figure("p50_ms", ONNX),
        "requests_per_s": figure("requests_per_s", RANK_CLICKS),
        "requests_per_s_4": figure("requests_per_s", RANK_CLICKS, FOUR),
        "p99_ms_500": figure("p99_ms", RANK_CLICKS, MORE),
        "rss_mb": figure("rss_mb", RANK_CLICKS),
        **{n: None if math.isnan(each) else round(each, 3) for n, each in costs.items()},
    }


def _costs(cost: Callable[..., float]) -> dict[str, float]:
    """Return the CPU time of requests in milliseconds, and its ratios between forms."""
    return {
        "cpu_ms_per_request": cost(RANK_CLICKS),
        "cpu_ms_per_request_4": cost(RANK_CLICKS, FOUR),
        "onnx_ms": cost(ONNX),
        "cost_ratio_tiled": cost(TILED) / cost(PYTHON),
        "native_cost_ratio": cost(RANK_CLICKS) / cost(PYTHON),
        "native_cost_ratio_4": cost(RANK_CLICKS, FOUR) / cost(PYTHON, FOUR),
        "cpu_ratio_onnx": cost(RANK_CLICKS) / cost(ONNX),
        "cpu_ratio_onnx_4": cost(RANK_CLICKS, FOUR) / cost(ONNX),
        "din_cost_ratio": cost(PYTHON) / cost(DIN),
        "din_cost_ratio_4": cost(PYTHON, FOUR) / cost(DIN, FOUR),
        "din_cost_ratio_10": cost(PYTHON, FEW) / cost(DIN, FEW),
        "lightgbm_cost_ratio": cost(PYTHON) / cost(TREES),
        "brief_cost_ratio": cost(BRIEF) / cost(RANK_CLICKS),
        "cpu_ratio_many_users": cost(MANY_USERS) / cost(FEW_USERS),
        "cpu_ratio_many_contexts": cost(MANY_CONTEXTS) / cost(FEW_USERS),
        "long_cost_ratio": cost(RANK_CLICKS, LONG) / cost(RANK_CLICKS),
        "long_din_cost_ratio": cost(PYTHON, LONG) / cost(DIN, LONG),
    }


def _arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--lengths", type=int, nargs="+", default=LENGTHS, help="L of the histories")
    add("--candidates", type=int, nargs="+", default=CANDIDATES)
    add("--callers", type=int, nargs="+", default=CALLERS, help="at once")
    add("--forms", nargs="+", help="only these")
    add("--duration", type=float, default=DURATION_S, help="seconds per form, all rounds")
    add("--rounds", type=int, default=ROUNDS, help="turns of all forms")
    add("--users", type=int, default=MANY, help="with attributes")
    add("--idle", type=float, default=IDLE_S, help="seconds without a caller at the end")
    add("--quick", action="store_true", help="one length, few seconds; writes no results")
    options = parser.parse_args()
    if options.quick:
        options.lengths, options.candidates, options.callers = [50], [100], [1]
        options.duration, options.rounds, options.idle = 1.0, 1, 1.0
        options.users = 2_000
    return options


if __name__ == "__main__":
    main()
