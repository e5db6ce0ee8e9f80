"""Inference cost: what a score costs, where the time goes, and what folding saves.

In: counters of Triton and of the serving processes, bundles' cost cards, prices from the
settings. Out: the dashboard of who pays for serving.
"""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from srp4ctr.monitoring.dashboards.builders import thresholds
from srp4ctr.monitoring.dashboards.builders.grid import (
    choose_versions,
    line,
    new_board,
    section,
)
from srp4ctr.monitoring.dashboards.builders.panels import (
    bars,
    heat,
    light,
    limited,
    lines,
    stat_of,
)
from srp4ctr.monitoring.dashboards.builders.queries import (
    CHOSEN,
    MONEY,
    VERSION,
    buckets,
    by_version,
    now,
    of_serving,
    over_time,
    rate,
)

_STEPS = "sum by (step) (rate(srp4ctr_step_seconds_total"
_RUNS = "sum by (step) (rate(srp4ctr_step_runs_total[5m]))"


def board() -> Dashboard:
    """Return the dashboard."""
    why = "What a score costs by version and by step, and what folded serving saves."
    made = choose_versions(new_board("inference_cost", "Inference cost", why))
    _at_a_glance(made)
    _folded(made)
    _by_version(made)
    _by_step(made)
    _answers(made)
    _candidates(made)
    _gpus(made)
    return made


def _at_a_glance(made: Dashboard) -> None:
    section(made, "At a glance, of the serving version")
    ratio = "model_version:srp4ctr_reencode_flops_ratio:rate5m"
    saved = light(
        "Fewer FLOPs than unfolded",
        "How many times as much the same traffic would cost with a history a candidate.",
        "short",
        thresholds.at_least(1.0, 1.5),
        over_time(of_serving(ratio)),
    ).decimals(1)
    price = "model_version:srp4ctr_price_per_million_candidates:rate5m"
    spent = stat_of(
        "Price of a million candidates",
        "CPU time of the serving processes at the price in the settings.",
        MONEY,
        over_time(of_serving(price)),
    ).decimals(4)
    runs = light(
        "Encoder runs a request",
        "Folded serving encodes a history once, or not at all if its states were kept.",
        "none",
        thresholds.encoder_runs(),
        over_time(of_serving("model_version:srp4ctr_encoder_runs_per_request:rate5m")),
    ).decimals(2)
    core = stat_of(
        "Price of a core-hour",
        "What all prices here rest on: monitoring.price_per_core_hour of the settings.",
        MONEY,
        over_time("max(srp4ctr_price_per_core_hour)"),
    ).decimals(3)
    line(made, 4, (6, saved), (6, spent), (6, runs), (6, core))


def _folded(made: Dashboard) -> None:
    section(made, "Folded against unfolded")
    flops = lines(
        "FLOPs a second",
        "What is computed, and what the same traffic costs with the history tiled.",
        "flops",
        over_time(rate("srp4ctr_inference_flops_total", "model_version", CHOSEN), VERSION),
        over_time(
            rate("srp4ctr_reencode_flops_total", "model_version", CHOSEN),
            f"{VERSION} unfolded",
        ),
    )
    unfolded = "model_version:srp4ctr_reencode_price_per_million_candidates:rate5m"
    price = lines(
        "Price of a million candidates",
        "The same in money; unfolded is an estimate, the price times the ratio of FLOPs.",
        MONEY,
        by_version("model_version:srp4ctr_price_per_million_candidates:rate5m"),
        over_time(f"{unfolded}{{{CHOSEN}}}", f"{VERSION} unfolded"),
    )
    ratio = lines(
        "Unfolded over folded FLOPs",
        "What folding saves: more, the more candidates a request has.",
        "short",
        by_version("model_version:srp4ctr_reencode_flops_ratio:rate5m"),
    )
    ratio = limited(ratio.min(0), thresholds.at_least(1.0, 1.5))
    line(made, 8, (8, flops.min(0)), (8, price.min(0)), (8, ratio))


def _by_version(made: Dashboard) -> None:
    section(made, "By version")
    cpu = lines(
        "CPU time of 1,000 candidates",
        "The serving processes' own time, which is what more traffic will need more of.",
        "s",
        by_version("model_version:srp4ctr_cpu_seconds_per_1000_candidates:rate5m"),
    )
    flops = lines(
        "FLOPs of 1,000 candidates",
        "What a version computes, whatever machine it runs on.",
        "short",
        by_version("model_version:srp4ctr_flops_per_1000_candidates:rate5m"),
    )
    runs = lines(
        "Encoder runs a request",
        "Above 1 histories are encoded more often than there are users.",
        "none",
        by_version("model_version:srp4ctr_encoder_runs_per_request:rate5m"),
    )
    reuse = lines(
        "Reuse of states",
        "The share of requests whose history had not changed, so that nothing was encoded.",
        "percentunit",
        by_version("model_version:srp4ctr_encoder_reuse_share:rate5m"),
    )
    runs = limited(runs.min(0), thresholds.encoder_runs())
    line(made, 8, (6, cpu.min(0)), (6, flops.min(0)), (6, runs), (6, reuse.min(0)))


def _by_step(made: Dashboard) -> None:
    section(made, "By step of the ensemble")
    mean = lines(
        "Time by step",
        "Mean of a step, its queue included: which one to make faster.",
        "s",
        over_time("step:srp4ctr_step_seconds:mean5m", "{{step}}"),
    )
    queued = f'{_STEPS}{{phase="queue"}}[5m])) / ({_RUNS} > 0)'
    waiting = lines(
        "Waiting by step",
        "Time in a step's queue: where it grows, more processes help.",
        "s",
        over_time(queued, "{{step}}"),
    )
    phases = 'sum by (phase) (rate(srp4ctr_step_seconds_total{phase!="request"}[5m]))'
    shares = bars(
        "Time by phase, of all steps",
        "Seconds a second in the queue, in copying tensors in and out, and in computing.",
        "s",
        now(phases, "{{phase}}"),
    )
    line(made, 8, (10, mean.min(0)), (8, waiting.min(0)), (6, shares))


def _answers(made: Dashboard) -> None:
    section(made, "Answer time")
    spread = heat(
        "Answer time, all requests",
        "Two bands are two kinds of requests, which a quantile would hide.",
        "s",
        buckets("srp4ctr_request_duration_seconds", CHOSEN),
    )
    quantiles = lines(
        "Answer time by version",
        "Whether a version is slow for everyone (p50) or for a few (p99).",
        "s",
        over_time(
            f"model_version:srp4ctr_request_duration_seconds:p50_5m{{{CHOSEN}}}",
            f"{VERSION} p50",
        ),
        over_time(
            f"model_version:srp4ctr_request_duration_seconds:p99_5m{{{CHOSEN}}}",
            f"{VERSION} p99",
        ),
    )
    line(made, 9, (12, spread), (12, limited(quantiles, thresholds.answer_time())))


def _candidates(made: Dashboard) -> None:
    section(made, "Candidates")
    scored = lines(
        "Candidates a second",
        "What was scored, without padding: the denominator of all prices.",
        "cps",
        over_time(
            rate("srp4ctr_scored_candidates_total", "model_version", CHOSEN), VERSION
        ),
    )
    requests = rate("srp4ctr_scored_requests_total", "model_version", CHOSEN)
    candidates = rate("srp4ctr_scored_candidates_total", "model_version", CHOSEN)
    each = lines(
        "Candidates a request",
        "How far a history's cost is shared: with few candidates it is most of the price.",
        "short",
        over_time(f"{candidates} / ({requests} > 0)", VERSION),
    )
    status = lines(
        "Candidates by status",
        "How many were scored without all that the model wants to know of them.",
        "cps",
        over_time(
            rate("srp4ctr_candidates_by_status_total", "status", CHOSEN), "{{status}}"
        ),
    )
    line(made, 8, (8, scored.min(0)), (8, each.min(0)), (8, status.min(0)))


def _gpus(made: Dashboard) -> None:
    section(made, "GPUs, where there are any")
    busy = stat_of(
        "GPU seconds a second",
        "How busy Triton's GPUs are, all together: 1 is one that never rests.",
        "none",
        over_time("sum(srp4ctr:gpu_seconds:rate5m)"),
    ).decimals(2)
    power = stat_of(
        "GPU power",
        "What Triton's GPUs draw, whoever uses them.",
        "watt",
        over_time("sum(srp4ctr:gpu_energy_joules:rate5m)"),
    )
    price = stat_of(
        "Price of GPUs for 1,000 requests",
        "Who holds one pays for all of it: monitoring.price_per_gpu_hour of the settings.",
        MONEY,
        over_time("max(srp4ctr:gpu_price_per_1000_requests:rate5m)"),
    ).decimals(4)
    none = "Triton has no GPU here"
    line(made, 4, *((8, each.no_value(none)) for each in (busy, power, price)))
