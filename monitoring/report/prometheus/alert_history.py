"""When alerts fired, step by step → what each was about, and how long it fired."""

from collections.abc import Iterable

from srp4ctr.monitoring.report.prometheus.prometheus_http import Series
from srp4ctr.monitoring.report.report_contents import AlertSpell

ALERT_STEP_S = 60.0
# Labels that say nothing to who reads that it fired.
_PLUMBING = frozenset(
    {"__name__", "alertname", "alertstate", "severity", "instance", "job", "source", "slo"}
)


def alert_spells(fired: Iterable[Series], step_s: float) -> tuple[AlertSpell, ...]:
    """Return an entry an alert and label set, in the order in which they began.

    A point of ``fired`` says that it fired within the ``step_s`` before.
    """
    spells = (
        AlertSpell(
            name=each.labels.get("alertname", ""),
            severity=each.labels.get("severity", ""),
            labels={n: v for n, v in each.labels.items() if n not in _PLUMBING},
            first_s=each.points[0][0] - step_s,
            last_s=each.points[-1][0],
            firing_s=len(each.points) * step_s,
        )
        for each in fired
    )
    return tuple(sorted(spells, key=lambda each: (each.first_s, each.name)))
