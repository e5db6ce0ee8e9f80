"""Writes the rules of the service level objectives: ``rules/objectives.yml``.

Each objective has two recorded rates over seven windows, and two alerts by the burn rates
of the Site Reliability Workbook (chapter 5). Only the table below is written by hand:
``make rules`` writes the rest.
"""

from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "rules" / "objectives.yml"
WINDOWS = ("5m", "30m", "1h")
LONG_WINDOWS = ("2h", "6h", "1d", "3d")
_SECONDS = {"1h": 3600, "6h": 21600, "1d": 86400, "3d": 259200}


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A service level objective over 30 days; W in an expression is a window."""

    name: str
    """Of its alerts, after ``Srp4ctr``."""
    target: str
    metric: str
    """Recorded name of the bad events, without its operation."""
    bad: str
    """PromQL of bad events per second, in lines."""
    ratio: str
    """PromQL of bad events per event; RATE is the recorded rate of bad events."""
    budget: str
    """Share of events that may be bad."""
    minimum: int
    """Number of bad events in the long window, below which no alert fires."""
    symptom: str
    """What the share of events does, for the alerts' summaries."""
    source: str = ""
    """The monitor's source of the metric, which inhibits the alerts while it is down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Burn:
    """An alert fires if both windows burn the budget at ``rate``; "" is rate 1."""

    rate: str
    long: str
    short: str


PAGES = (
    Burn(rate="14.4 * ", long="1h", short="5m"),
    Burn(rate="6 * ", long="6h", short="30m"),
)
TICKETS = (Burn(rate="3 * ", long="1d", short="2h"), Burn(rate="", long="3d", short="6h"))

OBJECTIVES = (
    Objective(
        name="Availability",
        target="99.9 %",
        metric="srp4ctr:failed_requests",
        bad="""\
clamp_min(sum(rate(srp4ctr_served_requests_total{outcome="failure"}[W])) / 2
- (sum(rate(srp4ctr_refused_requests_total[W])) or vector(0)), 0)""",
        ratio="""\
RATE / (RATE
+ sum(rate(srp4ctr_served_requests_total{outcome="success"}[W])) > 0)""",
        budget="0.001",
        minimum=10,
        symptom="of requests fail",
        source="triton",
    ),
    Objective(
        name="Latency",
        target="99 % within 50 ms",
        metric="model_version:srp4ctr_slow_requests",
        bad="""\
sum by (model_version) (rate(srp4ctr_request_duration_seconds_count[W]))
- sum by (model_version) (rate(srp4ctr_request_duration_seconds_bucket{le="0.05"}[W]))""",
        ratio="""\
RATE
/ (sum by (model_version) (rate(srp4ctr_request_duration_seconds_count[W])) > 0)""",
        budget="0.01",
        minimum=100,
        symptom="of the requests to {{ $labels.model_version }} take over 50 ms",
        source="triton",
    ),
    Objective(
        name="Freshness",
        target="99 % within a second",
        metric="srp4ctr:late_sequences",
        bad="""\
sum(rate(srp4ctr_event_to_sequence_seconds_count[W]))
- sum(rate(srp4ctr_event_to_sequence_seconds_bucket{le="1.0"}[W]))""",
        ratio="""\
RATE
/ (sum(rate(srp4ctr_event_to_sequence_seconds_count[W])) > 0)""",
        budget="0.01",
        minimum=100,
        symptom="of events take over a second to reach the store",
    ),
)

_HEAD = """\
# Written by `make rules` from monitoring/objective_rules.py: change the table there.
#
# Service level indicators over the windows of the burn rates: bad events per second, and
# their ratio.
#   failed_requests  Triton 2.51 counts a call that fails in a step of its ensemble twice,
#                    and does not count a call that is refused for its shape. Calls that a
#                    step refuses as invalid are neither good nor bad.
#   slow_requests    over 50 ms in a process of the server, its queue left out, by version
#   late_sequences   over a second from an event's publication to its effect in the store
groups:
  - name: srp4ctr_sli
    rules:
"""
_LONG = """\
  # Three days of samples take long to read: once per minute is enough.
  - name: srp4ctr_sli_long
    interval: 1m
    rules:
"""
_ALERTS = """\
  # Multi-window, multi-burn-rate alerts: the long window shows that it matters, the short
  # one that it continues. A budget lasts 30 days at rate 1; 14.4 spends 2 % of it in an
  # hour, 6 spends 5 % in six hours, 3 spends 10 % in a day. The last condition is a minimum
  # number of bad requests in the long window.
  - name: srp4ctr_objectives_alerts
    rules:
"""


def text() -> str:
    """Return the file of rules, as YAML."""
    recorded = [
        [_rules(objective, window) for window in windows for objective in OBJECTIVES]
        for windows in (WINDOWS, LONG_WINDOWS)
    ]
    alerts = [
        _alert(objective, is_page=is_page)
        for objective in OBJECTIVES
        for is_page in (True, False)
    ]
    groups = ("".join(rules) for rules in (*recorded, alerts))
    return "\n".join(a + b for a, b in zip((_HEAD, _LONG, _ALERTS), groups, strict=True))


def _rules(objective: Objective, window: str) -> str:
    """Return the two recorded rates of ``objective`` over ``window``."""
    rate = f"{objective.metric}:rate{window}"
    ratio = objective.ratio.replace("RATE", rate)
    return _record(rate, objective.bad, window) + _record(
        f"{objective.metric}:ratio_rate{window}", ratio, window
    )


def _record(name: str, expression: str, window: str) -> str:
    lines = expression.replace("[W]", f"[{window}]").splitlines()
    return f"      - record: {name}\n        expr: >-\n{_indented(lines)}"


def _alert(objective: Objective, *, is_page: bool) -> str:
    """Return the page, or the ticket, of ``objective``."""
    name = f"Srp4ctr{objective.name}ErrorBudgetBurn{'Fast' if is_page else 'Slow'}"
    first, second = (_burns(objective, burn) for burn in (PAGES if is_page else TICKETS))
    labels = f"severity: {'page' if is_page else 'ticket'}, slo: {objective.name.lower()}"
    if objective.source:
        labels += f", source: {objective.source}"
    lasts = (
        "the month's error budget will last less than five days"
        if is_page
        else "the error budget will not last the month"
    )
    return f"""\
      - alert: {name}
        # {objective.target}. Without `for`: the windows delay it, and end it.
        expr: >-
{_indented([*first, "or", *second])}\
        labels: {{ {labels} }}
        annotations:
          summary: "{{{{ $value | humanizePercentage }}}} {objective.symptom}, and {lasts}."
          runbook: monitoring/runbook.md#{name.lower()}
"""


def _burns(objective: Objective, burn: Burn) -> list[str]:
    """Return the condition under which ``burn`` spends the objective's budget."""
    metric, limit = objective.metric, f"{burn.rate}{objective.budget}"
    seconds = _SECONDS[burn.long]
    return [
        f"({metric}:ratio_rate{burn.long} > {limit}",
        f"and {metric}:ratio_rate{burn.short} > {limit}",
        f"and {metric}:rate{burn.long} * {seconds} >= {objective.minimum})",
    ]


def _indented(lines: list[str]) -> str:
    return "".join(f"          {line}\n" for line in lines)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
