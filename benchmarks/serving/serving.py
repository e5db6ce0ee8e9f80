"""Claim: a request costs little more than its history, whatever its number of candidates.

One Triton, one set of weights, requests with features from the store, in several forms

- ``rank_clicks``: as it is served on a CPU, by the native step, each request's history
  encoded once,
- ``rank_in_python``: the same by the Python step, as all forms but the first are,
- ``rank_tiled``: the history encoded again for each candidate, as tiling the user does
  (not where that takes gigabytes),
- ``rank_din``: DIN served in one step,
- ``rank_lightgbm``: 200 trees on the counters, by onnxruntime, in one step,
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

import numpy as np

from benchmarks import RESULTS, parser_of, say
from benchmarks.harness.figures import table
from benchmarks.harness.saved_result import circumstances, cpu_name, merged_rows
from benchmarks.serving.serving_forms import DIN, FORMS, PYTHON, TILED, TREES, add_forms
from benchmarks.serving.serving_load import PREPARED, Load, Measured, measure, timed
from srp4ctr.atomic_files import replace_text
from srp4ctr.features.online.request_features import open_bundle
from srp4ctr.testing.serving_stack import (
    ServingStack,
    catalogue,
    item_ids,
    running_stack,
    user_ids,
)
from srp4ctr.training.export import onnx_export
from srp4ctr.triton_repo.model_names import RANK_CLICKS

LENGTHS, CANDIDATES, CALLERS = (50, 200, 1000), (10, 100, 500), (1, 4)
DURATION_S, ROUNDS = 4.0, 3
# Candidates × L of all calls at once beyond which no history is tiled: 500 × 1,000 would
# take 4 GB a layer.
MOST_TILED = 100_000
ONNX = "onnxruntime in process"
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
            add_forms(stack.triton, stack.sizes, catalogue(), FORMS)
            rows += [{"length": length, **row} for row in _rows(stack, options)]
    print(table(rows, COLUMNS))
    is_kept = not options.quick and not options.forms
    if is_kept:
        rows = sorted(merged_rows(rows, FILE, CASE), key=itemgetter(*CASE))
    of_machine = {"cpu": cpu_name(), **circumstances()}
    found = {**_main_figures(rows), **of_machine, "rows": rows}
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
            row |= made.row(candidates)
            say(f"L {stack.sizes['L']}, {candidates} candidates, {callers} callers: {row}")
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


def _together(parts: Sequence[Measured]) -> Measured:
    return Measured(
        latencies_s=np.concatenate([each.latencies_s for each in parts]),
        wall_s=sum(each.wall_s for each in parts),
        cpu_s=sum(each.cpu_s for each in parts),
        rss_mb=max(each.rss_mb for each in parts),
    )


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
    add("--quick", action="store_true", help="one length, few seconds; writes no results")
    options = parser.parse_args()
    if options.quick:
        options.lengths, options.candidates, options.callers = [50], [100], [1]
        options.duration, options.rounds = 1.0, 1
    return options


if __name__ == "__main__":
    main()
