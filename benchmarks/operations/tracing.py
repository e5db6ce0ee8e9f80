"""Claim: tracing costs nothing that can be measured while it is off, and little at 1 %.

What tracing adds to a request (the caller's span, its ``traceparent``, Triton's span and
its four parts) is repeated in a process of its own: off, on for 1 % of the requests and on
for all, in turns. Its CPU time stands against that of a whole request, as the benchmark
``serving`` has it.

    make bench NAME=tracing
"""

import json
import subprocess
import sys
from statistics import median

from benchmarks import RESULTS, parser_of
from benchmarks.harness.figures import table
from srp4ctr.testing.trace_collector import collecting

FORMS = {"off": None, "1 % traced": 0.01, "all traced": 1.0}
COLUMNS = {
    "tracing": "tracing",
    "µs a request": "microseconds:.2f",
    "of a request's CPU": "share:.3%",
}
OF_REQUEST = """
import sys, time
from srp4ctr import tracing
if len(sys.argv) > 2:
    config = tracing.TracingConfig(endpoint=sys.argv[2], sample=float(sys.argv[3]))
    tracing.start("cost", config)
began = time.process_time()
for _ in range(int(sys.argv[1])):
    with tracing.span("RankClient.rank", requests=1):
        parent = tracing.traceparent()
    with tracing.answering([parent], "rank_clicks"):
        for name in ("read", "assemble", "encode", "score"):
            with tracing.part(name):
                pass
print((time.process_time() - began) / int(sys.argv[1]))
"""


def main() -> None:
    """Print a table, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    request_s = _request_cpu_s()
    seconds: dict[str, list[float]] = {name: [] for name in FORMS}
    with collecting() as collector:
        for _ in range(options.rounds):
            for name, sample in FORMS.items():
                seconds[name].append(_cost_s(options.requests, collector.address, sample))
    rows = [
        {"tracing": name, "microseconds": median(s) * 1e6, "share": median(s) / request_s}
        for name, s in seconds.items()
    ]
    print(table(rows, COLUMNS))
    costs = {row["tracing"]: row["microseconds"] for row in rows}
    report = {
        "off_us": costs["off"],
        "one_percent_us": costs["1 % traced"],
        "all_us": costs["all traced"],
        "request_cpu_ms": request_s * 1000,
    }
    print(json.dumps(report))


def _request_cpu_s() -> float:
    """Return the CPU time of a request of 100 candidates, of ``serving``'s result."""
    rows = json.loads((RESULTS / "serving.json").read_text())["rows"]
    wanted = {"form": "rank_clicks", "length": 200, "candidates": 100, "callers": 1}
    (found,) = (row for row in rows if wanted.items() <= row.items())
    return float(found["cpu_s_per_1000_candidates"]) / 10


def _cost_s(requests: int, address: str, sample: float | None) -> float:
    """Return the CPU seconds that tracing adds to a request, of a process of its own."""
    words = [str(requests)] if sample is None else [str(requests), address, str(sample)]
    command = [sys.executable, "-c", OF_REQUEST, *words]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
