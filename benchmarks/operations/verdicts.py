"""Claim: verdicts and intervals of live quality hold for users who come back.

Simulated users with click rates of their own, some far more active than others, see equal
models for two weeks. Their sums go through the monitor's own functions. Counted are: how
often a verdict, evaluated every hour, finds a difference that is none; how often 95 %
intervals contain the truth; on how many days alerts fire falsely; and how much longer a
difference of 5 % takes than with a test of a fixed size. Users and requests are those of
one version. At last the speed of counting labels, and how long a restart takes with five
million of them (``verdict_restart.py``, which needs Java). With ``--page`` the table of
docs/monitoring.md is written as well. Results of rows are kept in
``.data/benchmarks/verdicts``: a run that was cut off continues.

    make bench NAME=verdicts ARGS=--page
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks import ROOT, parser_of
from benchmarks.harness.figures import table
from benchmarks.harness.runs import cached, code_digest, digest_of, run_all
from benchmarks.operations import verdict_restart
from benchmarks.operations.monitoring import LABEL_WINDOW_S, add_labels, monitor_of
from benchmarks.operations.verdict_traffic import (
    ARRIVING,
    CLICK_RATE,
    EQUAL,
    HEAVY,
    ONCE,
    RETURNING,
    Chance,
    Population,
    Slates,
    calibration_days,
    counts_at_top,
    drawn_sums,
    explored_pairs,
    exploring_slates,
    slates_of,
    users_at_top,
)
from srp4ctr.atomic_files import replace_text
from srp4ctr.monitoring.quality.ab_test import EXPECTED_DIFFERENCE, anytime_half_widths
from srp4ctr.monitoring.quality.confidence_intervals import Interval, calibration, student
from srp4ctr.monitoring.quality.user_groups import ratio_of_sums
from srp4ctr.streams.state.label_join import ImpressionLabel

RUNS = 4000
SIZES = ((500, 100), (2000, 20), (20_000, 2))
DEVIATIONS = (0.0, 0.05, 0.1)
PATTERNS = ((EQUAL, RETURNING), (HEAVY, RETURNING), (HEAVY, ARRIVING), (EQUAL, ONCE))
ETAS = (0.0, 0.3, 0.7, 1.0)  # of examination, 1 / (1 + position)^eta
AUC_RUNS = 50
DAYS = ((500, 2), (200, 10), (60, 2), (50, 10))  # users and requests of an hour
# Of the alert rules (monitoring/rules/alerts.yml).
CALIBRATION_LIMITS = (0.9, 1.1)
MIN_CLICKS = 100
PREDICTED_SHARE = 0.25
POWER_RISE = 1.05
POWER_LOOKS, POWER_USERS, POWER_REQUESTS = 120, 200, 10  # 200 new users between two looks
LABELS = 200_000
CACHE = ROOT / ".data" / "benchmarks" / "verdicts"
SIMULATED_CODE = (
    "monitoring/quality",
    "triton_repo/serving/exploration.py",
    *(f"benchmarks/operations/{name}.py" for name in ("verdict_traffic", "verdicts")),
)
PAGE = ROOT / "docs" / "monitoring.md"
BEGIN = "<!-- begin: make bench NAME=verdicts ARGS=--page -->"
END = "<!-- end: verdicts -->"
COMPARED = {
    "users": "users:,",
    "requests": "requests:,",
    "sd": "deviation:.2f",
    "activity": "activity",
    "arrival": "arrival",
    "false verdicts": "false_verdicts:.4f",
    "difference covered": "difference:.4f",
}
COVERED = {
    "users": "users:,",
    "requests": "requests:,",
    "sd": "deviation:.2f",
    "activity": "activity",
    "CTR": "click_rate:.4f",
    "CTR at 1": "top:.4f",
    "calibration": "calibration:.4f",
    "AUC": "auc:.4f",
    "AUC in request": "request_auc:.4f",
}
INTERVALS = ("click_rate", "top", "calibration", "auc", "request_auc")


@dataclass(frozen=True, slots=True)
class Simulation:
    """Simulations of one row, in a process and with a seed of their own."""

    measure: Callable[..., Any]
    arguments: tuple[Any, ...]
    runs: int
    seed: int

    def __str__(self) -> str:
        """Return the name for the progress on stderr."""
        return f"{self.measure.__name__} {self.arguments}"

    @property
    def file(self) -> Path:
        """Where its result is kept, so that a run which was cut off continues."""
        digest = digest_of(
            self.measure.__name__,
            self.arguments,
            self.runs,
            self.seed,
            code_digest(*SIMULATED_CODE),
        )
        return CACHE / f"{self.measure.__name__}-{digest}.json"


def main() -> None:
    """Print two tables, then one JSON object."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--runs", type=int, default=RUNS, help="simulations of each row")
    add("--workers", type=int, default=2, help="processes that simulate")
    add("--labels", type=int, default=LABELS)
    add("--restart-labels", type=int, default=verdict_restart.LABELS)
    add("--page", action="store_true", help="write the table of docs/monitoring.md")
    options = parser.parse_args()
    results = simulate(simulations(options.runs), options.workers)
    compared, covered = results[_compared], results[_covered]
    print(table(compared, COMPARED))
    print(table(covered, COVERED))
    if options.page:
        write_table(compared, covered, options.runs)
    shares = [row[name] for row in covered for name in INTERVALS]
    shares += [row["difference"] for row in compared]
    report = {
        "runs": options.runs,
        "false_verdicts_max": max(row["false_verdicts"] for row in compared),
        "coverage_min": min(shares),
        "coverage_max": max(shares),
        "sequence_coverage_min": min(
            1 - max(row["false_verdicts"] for row in compared),
            *results[_sequence_coverage],
        ),
        "false_alert_days_max": max(results[_false_days]),
        "auc_alert_wrong": sum(results[_wrong_alerts]),
        "power_ratio": round(results[_power_ratio][0], 3),
        "restart_s": verdict_restart.measure(options.restart_labels)["restart_s"],
        "labels_per_core_s": _labels_per_core_s(options.labels),
    }
    print(json.dumps(report))


def simulations(runs: int) -> list[Simulation]:
    """Return all simulations, ``runs`` of each row."""
    measures: list[tuple[Callable[..., Any], tuple[Any, ...], int]] = [
        *((_compared, (each,), runs) for each in _grid(PATTERNS)),
        *((_covered, (each,), runs) for each in _grid(PATTERNS[:2])),
        (_sequence_coverage, (), runs),
        *((_false_days, day, runs) for day in DAYS),
        *((_wrong_alerts, pair, AUC_RUNS) for pair in product(ETAS, (True, False))),
        (_power_ratio, (), min(runs, 1000)),
    ]
    return [Simulation(*each, seed) for seed, each in enumerate(measures)]


def simulate(
    jobs: Sequence[Simulation], workers: int
) -> dict[Callable[..., Any], list[Any]]:
    """Return the results by measure, in the order of ``jobs``.

    Raises ``SystemExit`` if one failed; another call runs that one alone.
    """
    missing = [each for each in jobs if not each.file.is_file()]
    if None in run_all(run, missing, workers):
        raise SystemExit("simulations failed: see above, and run it again for these alone")
    results: dict[Callable[..., Any], list[Any]] = {each.measure: [] for each in jobs}
    for job in jobs:
        results[job.measure].append(json.loads(job.file.read_text()))
    return results


def run(simulation: Simulation) -> Any:
    """Return the result of ``simulation``, which is kept in its file."""
    chance = np.random.default_rng((53, simulation.seed))
    return cached(
        simulation.file,
        lambda: simulation.measure(*simulation.arguments, simulation.runs, chance),
    )


def write_table(
    compared: Sequence[Mapping[str, Any]], covered: Sequence[Mapping[str, Any]], runs: int
) -> None:
    """Write the table of docs/monitoring.md: a row per size and standard deviation."""
    lines = [
        f"{runs:,} simulations of each population.",
        "",
        "| users × requests, of each version | standard deviation of the users' CTR | "
        "false verdicts, at most | coverage of 95% intervals |",
        "|---|---|---|---|",
    ]
    for (users, requests), deviation in product(SIZES, DEVIATIONS):
        of = {"users": users, "requests": requests, "deviation": deviation}
        pairs, ones = (
            [row for row in rows if of.items() <= row.items()]
            for rows in (compared, covered)
        )
        shares = [row[name] for row in ones for name in INTERVALS]
        shares += [row["difference"] for row in pairs]
        lines.append(
            f"| {users:,} × {requests} | {deviation:g} "
            f"| {max(row['false_verdicts'] for row in pairs):.1%} "
            f"| {min(shares):.1%} to {max(shares):.1%} |"
        )
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    table_text = "\n".join(lines).replace("%", " %")
    replace_text(PAGE, f"{before}{BEGIN}\n{table_text}\n{END}{after}")


def _grid(patterns: Sequence[tuple[str, str]]) -> Iterator[Population]:
    for (users, requests), deviation, pattern in product(SIZES, DEVIATIONS, patterns):
        yield Population(
            users=users,
            requests=requests,
            deviation=deviation,
            activity=pattern[0],
            arrival=pattern[1],
        )


def _compared(population: Population, runs: int, chance: Chance) -> dict[str, Any]:
    """Return how often two equal models get a verdict, and the coverage at the end."""
    wrong = covered = 0
    for _ in range(runs):
        ours, theirs = (ratio_of_sums(*counts_at_top(population, chance)) for _ in "12")
        error = np.abs(ours.value - theirs.value)
        halves = anytime_half_widths(ours, theirs, EXPECTED_DIFFERENCE)
        wrong += bool((error > halves).any())
        # One look, at the end.
        variances = np.array([ours.variance[-1], theirs.variance[-1]])
        groups = np.array([ours.effective_groups[-1], theirs.effective_groups[-1]])
        degrees = variances.sum() ** 2 / (variances**2 / (groups - 1)).sum()  # Welch
        covered += error[-1] <= student(degrees + 1) * np.sqrt(variances.sum())
    shares = {"false_verdicts": wrong / runs, "difference": float(covered / runs)}
    return asdict(population) | shares


def _sequence_coverage(runs: int, chance: Chance) -> float:
    """Return how often all hourly intervals contain a difference of 2 percentage points."""
    population = Population(
        users=2000, requests=20, deviation=0.1, activity=HEAVY, arrival=ARRIVING
    )
    missed = 0
    for _ in range(runs):
        ours = ratio_of_sums(*counts_at_top(population, chance, CLICK_RATE * 1.2))
        theirs = ratio_of_sums(*counts_at_top(population, chance))
        error = np.abs(ours.value - theirs.value - CLICK_RATE * 0.2)
        missed += bool(
            (error > anytime_half_widths(ours, theirs, EXPECTED_DIFFERENCE)).any()
        )
    return 1 - missed / runs


def _covered(population: Population, runs: int, chance: Chance) -> dict[str, Any]:
    """Return how often each interval contains the truth."""
    first, second = (
        CLICK_RATE * chance.lognormal(-0.08, 0.4, (4000, items)) for items in (3, 4)
    )
    slates = slates_of(first, first, eta=0.7)
    explored = exploring_slates(second, chance)
    seen = slates.seen_by(population, chance)
    truths = {
        "click_rate": seen.click_rates.mean(),
        "top": seen.click_rates[:, 0].mean(),
        "calibration": slates.scores.sum() / seen.click_rates.sum(),
        "auc": seen.auc,
        "request_auc": explored.auc(population.tastes(chance)),
    }
    hits = dict.fromkeys(truths, 0)
    for _ in range(runs):
        quality = drawn_sums(population, slates, chance).quality("v1")
        pairs = explored_pairs(population, explored, chance)
        intervals = {
            "click_rate": quality.click_rate_interval,
            "top": quality.top_click_rate_interval,
            "calibration": quality.calibration_interval,
            "auc": quality.auc.interval,
            "request_auc": pairs.auc().interval,
        }
        for name, interval in intervals.items():
            hits[name] += bool(interval.low <= truths[name] <= interval.high)
    return asdict(population) | {name: count / runs for name, count in hits.items()}


def _false_days(users: int, requests: int, days: int, chance: Chance) -> float:
    """Return the share of days on which calibrated scores raise CalibrationDrift.

    The window is an hour; every ten minutes the rule is evaluated, and fires if it holds
    twice in a row.
    """
    false = 0
    for _ in range(days):
        clicks, predicted, variance = calibration_days(users, requests, chance)
        holds = np.array(
            [
                _drifts(p, c, calibration(p, c, v))
                for p, c, v in zip(predicted, clicks, variance, strict=True)
            ]
        )
        false += bool((holds[1:] & holds[:-1]).any())
    return false / days


def _drifts(predicted: np.ndarray, clicks: np.ndarray, interval: Interval) -> bool:
    """Return whether the expression of Srp4ctrCalibrationDrift holds."""
    expected, observed = predicted.sum(), clicks.sum()
    found = expected / observed
    low = found / (2 * found / interval.low - 1)
    high = found / (2 * found / interval.high - 1)
    below, above = CALIBRATION_LIMITS
    return bool(
        (low > above and expected >= MIN_CLICKS)
        or (0 < high < below and observed >= MIN_CLICKS)
    )


def _wrong_alerts(eta: float, is_random: bool, runs: int, chance: Chance) -> int:
    """Return how many alerts of RankingNearRandom are wrong or missing.

    Random scores raise it and perfect scores do not, at each examination ``eta``.
    """
    population = Population(users=4000, requests=10, deviation=0.05, activity=HEAVY)
    scores, others = np.minimum(chance.lognormal(-2.3, 0.5, (2, 4000, 10)), 0.9)
    slates = slates_of(scores, others if is_random else scores, eta)
    return sum(
        _is_near_random(population, slates, chance) != is_random for _ in range(runs)
    )


def _is_near_random(population: Population, slates: Slates, chance: Chance) -> bool:
    """Return whether the expression of Srp4ctrRankingNearRandom holds."""
    auc = drawn_sums(population, slates, chance).quality("v1").auc
    return auc.interval.high < 0.5 + PREDICTED_SHARE * (auc.expected - 0.5)


def _power_ratio(runs: int, chance: Chance) -> float:
    """Return impressions until the verdict / those of a fixed-size test of power 0.8.

    The median over runs, for a version with 5 % more clicks.
    """
    population = Population(
        users=POWER_LOOKS * POWER_USERS, requests=POWER_REQUESTS, deviation=0.05
    )
    needed = []
    for _ in range(runs):
        ours, theirs = (
            ratio_of_sums(*users_at_top(population, POWER_LOOKS, chance, mean))
            for mean in (CLICK_RATE * POWER_RISE, CLICK_RATE)
        )
        halves = anytime_half_widths(ours, theirs, EXPECTED_DIFFERENCE)
        found = np.flatnonzero(ours.value - theirs.value > halves)
        needed.append(found[0] + 1 if len(found) else np.inf)
    impressions = float(np.median(needed)) * POWER_USERS * POWER_REQUESTS
    within = CLICK_RATE * (1 - CLICK_RATE) - population.deviation**2
    variance = population.deviation**2 + within / POWER_REQUESTS  # of a user's click rate
    difference = CLICK_RATE * (POWER_RISE - 1)
    fixed_users = (1.960 + 0.842) ** 2 * 2 * variance / difference**2
    return impressions / (fixed_users * POWER_REQUESTS)


def _labels_per_core_s(count: int) -> int:
    """Return how many labels the monitor counts per second of CPU time."""
    chance = np.random.default_rng(1)
    labels = [_label(number, chance) for number in range(count)]
    labels.sort(key=lambda each: each.matured_at)
    with TemporaryDirectory(prefix="srp4ctr-verdicts-") as folder:
        monitor = monitor_of(Path(folder), "http://127.0.0.1:9/metrics")
        began = time.process_time()
        add_labels(monitor, labels)
        return round(count / (time.process_time() - began))


def _label(number: int, chance: Chance) -> ImpressionLabel:
    """Return the label of an impression of a slate of ten, of one of two versions."""
    request, position = divmod(number, 10)
    shown_ms, window_ms = 1_750_000_000_000 + request * 200, int(LABEL_WINDOW_S * 1000)
    clicked = bool(chance.random() < CLICK_RATE)
    return ImpressionLabel(
        request_id=f"r{request}",
        user_id=f"user-{request % 3001}",
        item_id=f"item-{chance.integers(5000)}",
        position=position,
        score=float(chance.random()) * 0.3 + 0.001,
        propensity=1.0,
        model_version=f"v{1 + request % 3001 % 2}",
        impression_at=shown_ms,
        clicked=clicked,
        within_window=True,
        matured_at=shown_ms + (1000 if clicked else window_ms),
        revision=2 if clicked else 0,
    )


if __name__ == "__main__":
    main()
