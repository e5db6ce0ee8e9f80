"""Inference cost: price of scores, time per step, and what encoding once saves.

In: counters of Triton and of the serving processes, bundles' cost cards, prices from the
settings. Out: the dashboard for capacity and cost planning.
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
    why = "Cost of scoring by version and step, and what encoding once per request saves."
    made = choose_versions(new_board("inference_cost", "Inference cost", why))
    _at_a_glance(made)
    _encode_once(made)
    _by_version(made)
    _by_step(made)
    _latency(made)
    _candidates(made)
    _gpus(made)
    return made


def _at_a_glance(made: Dashboard) -> None:
    section(made, "At a glance: the serving version")
    ratio = "model_version:srp4ctr_reencode_flops_ratio:rate5m"
    saved = light(
        "Saving in FLOPs",
        "FLOPs of re-encoding the history per candidate / FLOPs of encoding once.",
        "short",
        thresholds.at_least(1.0, 1.5),
        over_time(of_serving(ratio)),
    ).decimals(1)
    price = "model_version:srp4ctr_price_per_million_candidates:rate5m"
    spent = stat_of(
        "Price per million candidates",
        "CPU time of the serving processes at the price in the settings.",
        MONEY,
        over_time(of_serving(price)),
    ).decimals(4)
    runs = light(
        "Encoder runs per request",
        "Serving encodes a history once per request, or not at all if it is cached.",
        "none",
        thresholds.encoder_runs(),
        over_time(of_serving("model_version:srp4ctr_encoder_runs_per_request:rate5m")),
    ).decimals(2)
    core = stat_of(
        "Price per core-hour",
        "All prices are based on the setting monitoring.price_per_core_hour.",
        MONEY,
        over_time("max(srp4ctr_price_per_core_hour)"),
    ).decimals(3)
    line(made, 4, (6, saved), (6, spent), (6, runs), (6, core))


def _encode_once(made: Dashboard) -> None:
    section(made, "Encode once and re-encode per candidate")
    flops = lines(
        "FLOPs per second",
        "What serving computes, and what re-encoding per candidate would compute.",
        "flops",
        over_time(rate("srp4ctr_inference_flops_total", "model_version", CHOSEN), VERSION),
        over_time(
            rate("srp4ctr_reencode_flops_total", "model_version", CHOSEN),
            f"{VERSION} re-encoded",
        ),
    )
    reencoded = "model_version:srp4ctr_reencode_price_per_million_candidates:rate5m"
    price = lines(
        "Price per million candidates",
        "The same in money; re-encoded is an estimate: the price times the FLOPs ratio.",
        MONEY,
        by_version("model_version:srp4ctr_price_per_million_candidates:rate5m"),
        over_time(f"{reencoded}{{{CHOSEN}}}", f"{VERSION} re-encoded"),
    )
    ratio = lines(
        "Re-encode / encode once FLOPs",
        "The saving grows with the number of candidates per request.",
        "short",
        by_version("model_version:srp4ctr_reencode_flops_ratio:rate5m"),
    )
    ratio = limited(ratio.min(0), thresholds.at_least(1.0, 1.5))
    line(made, 8, (8, flops.min(0)), (8, price.min(0)), (8, ratio))


def _by_version(made: Dashboard) -> None:
    section(made, "By version")
    cpu = lines(
        "CPU time per 1,000 candidates",
        "CPU time of the serving processes, which grows with traffic.",
        "s",
        by_version("model_version:srp4ctr_cpu_seconds_per_1000_candidates:rate5m"),
    )
    flops = lines(
        "FLOPs per 1,000 candidates",
        "What a version computes, independent of the machine.",
        "short",
        by_version("model_version:srp4ctr_flops_per_1000_candidates:rate5m"),
    )
    runs = lines(
        "Encoder runs per request",
        "Above 1, histories are encoded more than once per request.",
        "none",
        by_version("model_version:srp4ctr_encoder_runs_per_request:rate5m"),
    )
    reuse = lines(
        "Encoder reuse",
        "Share of requests that used a cached encoding of an unchanged history.",
        "percentunit",
        by_version("model_version:srp4ctr_encoder_reuse_share:rate5m"),
    )
    runs = limited(runs.min(0), thresholds.encoder_runs())
    line(made, 8, (6, cpu.min(0)), (6, flops.min(0)), (6, runs), (6, reuse.min(0)))


def _by_step(made: Dashboard) -> None:
    section(made, "By step of the ensemble")
    mean = lines(
        "Time by step",
        "Mean time of a step, its queue included: the largest is worth optimising.",
        "s",
        over_time("step:srp4ctr_step_seconds:mean5m", "{{step}}"),
    )
    queued = f'{_STEPS}{{phase="queue"}}[5m])) / ({_RUNS} > 0)'
    waiting = lines(
        "Queue time by step",
        "Mean time in a step's queue: where it grows, add serving processes.",
        "s",
        over_time(queued, "{{step}}"),
    )
    phases = 'sum by (phase) (rate(srp4ctr_step_seconds_total{phase!="request"}[5m]))'
    shares = bars(
        "Time by phase, all steps",
        "Seconds per second in the queue, in copying tensors, and in computing.",
        "s",
        now(phases, "{{phase}}"),
    )
    line(made, 8, (10, mean.min(0)), (8, waiting.min(0)), (6, shares))


def _latency(made: Dashboard) -> None:
    section(made, "Latency")
    spread = heat(
        "Latency, all requests",
        "Two bands mean two kinds of requests, which a quantile would hide.",
        "s",
        buckets("srp4ctr_request_duration_seconds", CHOSEN),
    )
    quantiles = lines(
        "Latency by version",
        "Whether a version is slow for every request (p50) or for a few (p99).",
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
    line(made, 9, (12, spread), (12, limited(quantiles, thresholds.latency())))


def _candidates(made: Dashboard) -> None:
    section(made, "Candidates")
    scored = lines(
        "Candidates per second",
        "Scored candidates without padding: the denominator of all prices.",
        "cps",
        over_time(
            rate("srp4ctr_scored_candidates_total", "model_version", CHOSEN), VERSION
        ),
    )
    requests = rate("srp4ctr_scored_requests_total", "model_version", CHOSEN)
    candidates = rate("srp4ctr_scored_candidates_total", "model_version", CHOSEN)
    each = lines(
        "Candidates per request",
        "With few candidates per request, the history's encoding is most of the price.",
        "short",
        over_time(f"{candidates} / ({requests} > 0)", VERSION),
    )
    status = lines(
        "Candidates by status",
        "Scored candidates by the status of their item data.",
        "cps",
        over_time(
            rate("srp4ctr_candidates_by_status_total", "status", CHOSEN), "{{status}}"
        ),
    )
    line(made, 8, (8, scored.min(0)), (8, each.min(0)), (8, status.min(0)))


def _gpus(made: Dashboard) -> None:
    section(made, "GPUs, if any")
    busy = stat_of(
        "GPU utilisation",
        "Sum over Triton's GPUs: 1 is one GPU that is always busy.",
        "none",
        over_time("sum(srp4ctr:gpu_seconds:rate5m)"),
    ).decimals(2)
    power = stat_of(
        "GPU power",
        "Power draw of Triton's GPUs, including other processes.",
        "watt",
        over_time("sum(srp4ctr:gpu_energy_joules:rate5m)"),
    )
    price = stat_of(
        "GPU price per 1,000 requests",
        "A GPU costs its full hour, busy or idle: monitoring.price_per_gpu_hour.",
        MONEY,
        over_time("max(srp4ctr:gpu_price_per_1000_requests:rate5m)"),
    ).decimals(4)
    none = "Triton has no GPU here"
    line(made, 4, *((8, each.no_value(none)) for each in (busy, power, price)))
