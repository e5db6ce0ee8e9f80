"""Claim: a request costs little more than its history, whatever its number of candidates.

One Triton, one set of weights, requests with features from the store, in several forms

- ``rank_clicks``: as it is served on a CPU, one step, each request's history encoded once,
- ``rank_states_kept``: the same when the user's history is still as it was at the request
  before, as for all of these 200 users,
- ``rank_in_three_steps``: the same in three steps, as for a GPU: what the hops cost,
- ``rank_tiled``: the history encoded again for each candidate, as tiling the user does
  (not where that takes gigabytes),
- ``rank_din``: DIN served in one step,
- in this process, without features: onnxruntime, the bound, and torch,

turn by turn in one run. Ratios count: the times are of this machine. What was measured
before with other lengths, candidates or callers stays in the results.

    make bench NAME=serving
    python -m benchmarks serving --lengths 200 --candidates 100 --callers 1
"""

import argparse
import functools
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks import RESULTS, parser_of, say
from benchmarks.serving.serving_forms import FORMS, THREE_STEPS, TILED
from benchmarks.serving.serving_load import Load, Measured, measure, timed
from benchmarks.serving.serving_stack import ServingStack, running_stack
from srp4ctr.atomic_files import replace_text
from srp4ctr.features.tensors.schema import STATE_TENSORS
from srp4ctr.training.export import onnx_export
from srp4ctr.triton_repo.model_names import RANK_CLICKS

LENGTHS, CANDIDATES, CALLERS = (50, 200, 1000), (10, 100, 500), (1, 4)
DURATION_S, ROUNDS = 4.0, 3
# Candidates × L of all calls at once beyond which no history is tiled: 500 × 1,000 would
# take 4 GB a layer.
MOST_TILED = 100_000
ONNX, TORCH = "onnxruntime in process", "torch in process"
FILE = RESULTS / "serving.json"
MAIN = (200, 100, 1)  # the length, candidates and callers that the JSON's first fields have
Row = dict[str, Any]


def main() -> None:
    """Print a table, then one JSON object."""
    options = _arguments()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for length in options.lengths:
        with running_stack(length) as stack:
            rows += [{"length": length, **row} for row in _rows(stack, options)]
    print(_table(rows))
    is_kept = not options.quick and not options.forms
    if is_kept:
        rows = _with_kept(rows)
    found = {**_main_figures(rows), "rows": rows}
    if is_kept:
        replace_text(FILE, json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


def _rows(stack: ServingStack, options: argparse.Namespace) -> Iterator[Row]:
    """Yield a row for each form, number of candidates and of callers."""
    duration_s = options.duration / options.rounds
    for candidates, callers in itertools.product(options.candidates, options.callers):
        forms: dict[str, Callable[[], Measured]] = {
            name: functools.partial(
                measure,
                Load(
                    address=stack.address,
                    model=name,
                    candidates=candidates,
                    callers=callers,
                    duration_s=duration_s,
                ),
                stack.server.pid,
            )
            for name in (RANK_CLICKS, *FORMS)
        }
        if callers == 1:
            forms |= {
                name: functools.partial(timed, call, duration_s)
                for name, call in _in_process(stack, candidates).items()
            }
        if options.forms:
            forms = {name: form for name, form in forms.items() if name in options.forms}
        if candidates * stack.sizes["L"] * callers > MOST_TILED:
            forms.pop(TILED, None)
        taken: dict[str, list[Measured]] = {name: [] for name in forms}
        for _ in range(options.rounds):
            for name, form in forms.items():
                taken[name].append(form())
        for name, parts in taken.items():
            row = {"form": name, "candidates": candidates, "callers": callers}
            row |= _together(parts).row(candidates)
            row["bytes_between_steps"] = _moved(stack, name)
            say(f"L {stack.sizes['L']}, {candidates} candidates, {callers} callers: {row}")
            yield row


def _in_process(stack: ServingStack, candidates: int) -> Mapping[str, Callable[[], object]]:
    """Return calls that score one request of random rows, without features."""
    tensors = onnx_export.sample(stack.sizes, requests=1, candidates=candidates)
    arrays = {name: np.ascontiguousarray(each.numpy()) for name, each in tensors.items()}
    scored = onnx_export.scorer(stack.bundle)

    @torch.no_grad()
    def by_torch() -> object:
        return stack.model.score({**tensors, **stack.model.encode(tensors)})

    return {ONNX: lambda: scored(arrays), TORCH: by_torch}


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


def _with_kept(rows: Sequence[Row]) -> list[Row]:
    """Return ``rows`` and the saved ones of other lengths, candidates and callers."""

    def case(row: Row) -> tuple[int, ...]:
        return row["length"], row["candidates"], row["callers"]

    kept = json.loads(FILE.read_text())["rows"] if FILE.is_file() else []
    new = set(map(case, rows))
    return sorted([*(row for row in kept if case(row) not in new), *rows], key=case)


def _main_figures(rows: Sequence[Row]) -> Row:
    """Return the figures of ``MAIN``, null where it was not measured."""
    found = {
        row["form"]: row
        for row in rows
        if (row["length"], row["candidates"], row["callers"]) == MAIN
    }
    served, tiled = found.get(RANK_CLICKS, {}), found.get(TILED, {})
    cpu = "cpu_s_per_1000_candidates"
    ratio = round(tiled[cpu] / served[cpu], 2) if served and tiled else None
    return {
        "p50_ms": served.get("p50_ms"),
        "p99_ms": served.get("p99_ms"),
        "tiled_p99_ms": tiled.get("p99_ms"),
        "bound_p50_ms": found.get(ONNX, {}).get("p50_ms"),
        "cost_ratio_tiled": ratio,
        "requests_per_s": served.get("requests_per_s"),
        "rss_mb": served.get("rss_mb"),
    }


def _table(rows: Sequence[Row]) -> str:
    times = f"{'p50':>8} {'p95':>8} {'p99 ms':>8} {'requests/s':>11}"
    costs = f"{'CPU s per 1,000':>16} {'RSS MB':>7}"
    lines = [f"{'L':>5} {'N':>4} {'callers':>7}  {'form':<24} {times} {costs}"]
    for row in rows:
        times = " ".join(f"{row[name]:>8.2f}" for name in ("p50_ms", "p95_ms", "p99_ms"))
        lines.append(
            f"{row['length']:>5} {row['candidates']:>4} {row['callers']:>7}"
            f"  {row['form']:<24} {times} {row['requests_per_s']:>11.0f}"
            f" {row['cpu_s_per_1000_candidates']:>16.4f} {row['rss_mb']:>7.0f}"
        )
    return "\n".join(lines)


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
