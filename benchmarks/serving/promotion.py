"""Claim: a switch of models loses no request and mixes no two models, whatever crashes.

Eight callers call a real Triton all the while (``promotion_traffic.py``), and meanwhile

- bundles are promoted and rolled back, 20 times,
- a corrupt one is promoted: refused, with the reason,
- ``kill -9`` ends a promoting process while the server loads, and another in the middle of
  the switch; the next promotion repairs both,
- ``kill -9`` ends one of the processes that answer: its watch replaces it.

Each answer is held to the one that its bundle must give. Two bundles in turns have weights
so different that a mixture of both would be seen: the difference is reported.

    make bench NAME=promotion
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import parser_of
from benchmarks.harness.figures import table
from benchmarks.serving.promotion_faults import (
    in_child,
    is_loading,
    kill_a_process,
    promote,
    promote_and_crash,
    renamed,
    roll_back,
)
from benchmarks.serving.promotion_traffic import (
    CALLERS,
    RankedCall,
    Scores,
    all_requests,
    called,
    expected,
)
from srp4ctr.features.bundles import bundle
from srp4ctr.ops.triton import supervisor

if TYPE_CHECKING:  # torch: the processes of this run need none
    from srp4ctr.testing.serving_stack import ServingStack

LENGTH, SWITCHES, QUIET_S = 200, 20, 10.0
SWITCHING = "promotions and rollbacks"
TOLERANCE = 1e-4  # of a probability: other batches, other rounding
COLUMNS = {
    "phase": "phase",
    "times": "times",
    "s each": "seconds",
    **{name: name for name in ("requests", "failed", "raw_failed", "mixed")},
    **{f"{name} ms": f"{name}_ms" for name in ("p50", "p99", "longest")},
}
Row = dict[str, Any]


@dataclass(slots=True)
class PromotionRun:
    """One stack's phases: when each of them was, by the machine's monotonic clock."""

    stack: "ServingStack"
    weights: Sequence[Path]
    """The bundles of which even and odd versions are made."""
    phases: list[tuple[str, float, float]] = field(default_factory=list)
    versions: Iterator[int] = field(default_factory=lambda: iter(range(2, 1000)))
    refused: list[str] = field(default_factory=list)
    """Why bundles were refused that should have been."""
    replaced_s: float = 0.0
    """From a process's end until another answers in its place."""
    whole_again_s: float = 0.0
    """Until as many answer as before."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note that what is done meanwhile is ``name``."""
        began = time.monotonic()
        yield
        self.phases.append((name, began, time.monotonic()))
        print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)

    def next_bundle(self) -> Path:
        """Return a new version, whose weights are those of the one before the last."""
        number = next(self.versions)
        return renamed(self.weights[number % 2], f"v{number}")

    def promote(self, source: Path) -> None:
        """Promote in a process of its own, as an operator does; raise its refusal."""
        if refusal := in_child(promote, self.stack, source):
            raise RuntimeError(refusal)

    def switch(self, turn: int) -> None:
        """Promote a new bundle, or roll back: two and two, so that both ways are gone."""
        if turn % 4 < 2:
            self.promote(self.next_bundle())
        elif refusal := in_child(roll_back, self.stack, None):
            raise RuntimeError(refusal)


def main() -> None:
    """Print a table, then one JSON object."""
    from srp4ctr.testing.serving_stack import fresh_bundle, running_stack

    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--switches", type=int, default=SWITCHES, help="promotions and rollbacks")
    add("--quick", action="store_true", help="four switches")
    options = parser.parse_args()
    switches = 4 if options.quick else options.switches
    with running_stack(LENGTH) as stack:
        even = fresh_bundle(stack.bundle.parent, LENGTH, "v1000", seed=1)
        run = PromotionRun(stack, weights=(even, stack.bundle))
        supervisor.start(stack.server, stack.plan, stack.folder, tied=True)
        requests = all_requests(time.time_ns() // 1_000_000)
        right = expected(stack, {"odd": stack.bundle, "even": even}, requests)
        answers = called(CALLERS, stack.address, requests, lambda: _phases(run, switches))
    names = dict.fromkeys(name for name, *_ in run.phases)
    rows = [phase_row(name, run, answers, right) for name in names]
    print(table(rows, COLUMNS))
    print(json.dumps(_figures(run, answers, right) | {"rows": rows}))


def _phases(run: PromotionRun, switches: int) -> None:
    stack = run.stack
    with run.phase("nothing else"):
        time.sleep(QUIET_S)
    for turn in range(switches):
        with run.phase(SWITCHING):
            run.switch(turn)
    with run.phase("a corrupt bundle"):
        corrupt = run.next_bundle()
        (corrupt / bundle.HEAD_FILE).write_bytes(b"not what the manifest says")
        run.refused.append(in_child(promote, stack, corrupt))
    with run.phase("promoter killed while the server loads"):
        source = run.next_bundle()
        in_child(promote, stack, source, kill_when=lambda: is_loading(stack, source))
        run.promote(source)
    with run.phase("promoter killed in the switch"):
        source = run.next_bundle()
        in_child(promote_and_crash, stack, source)
        run.promote(source)
    with run.phase("one of the step's processes killed"):
        run.replaced_s, run.whole_again_s = kill_a_process(stack)
        time.sleep(QUIET_S / 2)


def phase_row(
    name: str,
    run: PromotionRun,
    answers: Sequence[RankedCall],
    right: Mapping[tuple[str, str], Scores],
) -> Row:
    """Return a line of the table: the calls during the phases called ``name``."""
    spans = [(began, ends) for each, began, ends in run.phases if each == name]
    during = [a for a in answers if any(began <= a.at_s < ends for began, ends in spans)]
    return {
        "phase": name,
        "times": len(spans),
        "seconds": round(float(np.median([ends - began for began, ends in spans])), 2),
        **counts(during, right),
        "longest_ms": round(1000.0 * max((a.took_s for a in during), default=0.0), 1),
    }


def counts(answers: Sequence[RankedCall], right: Mapping[tuple[str, str], Scores]) -> Row:
    """Return how many of ``answers`` failed or are not ``right``, and what they took."""
    taken = np.array([answer.took_s for answer in answers]) * 1000.0
    failed = sum(not answer.version for answer in answers)
    return {
        "requests": len(answers),
        "failed": failed,
        "raw_failed": failed + sum(answer.retries for answer in answers),
        "mixed": sum(_is_wrong(a, right) for a in answers if a.version),
        "p50_ms": round(float(np.quantile(taken, 0.5)), 2),
        "p99_ms": round(float(np.quantile(taken, 0.99)), 2),
    }


def _is_wrong(answer: RankedCall, right: Mapping[tuple[str, str], Scores]) -> bool:
    name = "odd" if int(answer.version.removeprefix("v")) % 2 else "even"
    wanted = right[name, name][answer.request]
    return bool(np.max(np.abs(answer.scores - wanted)) > TOLERANCE)


def _figures(
    run: PromotionRun,
    answers: Sequence[RankedCall],
    right: Mapping[tuple[str, str], Scores],
) -> Row:
    began, ended = run.phases[0][1], run.phases[-1][2]
    pure = [right[name, name] for name in ("odd", "even")]
    mixtures = [right["odd", "even"], right["even", "odd"]]
    apart = [np.abs(m - p).max(axis=1).min() for m in mixtures for p in pure]
    return {
        **counts(answers, right),
        "p99_ms": phase_row(SWITCHING, run, answers, right)["p99_ms"],
        "refused": len(run.refused) if all(run.refused) else 0,
        "refusals": run.refused,
        "replaced_s": round(run.replaced_s, 2),
        "whole_again_s": round(run.whole_again_s, 2),
        "requests_per_s": round(len(answers) / (ended - began), 1),
        "versions": sorted({a.version for a in answers if a.version}),
        "errors": sorted({answer.error for answer in answers if answer.error}),
        "mixture_differs_by": round(float(min(apart)), 5),
        "right_within": TOLERANCE,
    }


if __name__ == "__main__":
    main()
