"""A Prometheus with fixed answers, and panels of it."""

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, cast

from srp4ctr.monitoring.prometheus import Prometheus, Series
from srp4ctr.monitoring.web.answers import Answers
from srp4ctr.monitoring.web.drawings import View
from srp4ctr.monitoring.web.period import Period

PERIOD = Period(start_s=0, end_s=20)
Labels = Mapping[str, str]


class Stub:
    """Answers each query with the series of its name; remembers the queries."""

    def __init__(self, series: Mapping[str, Sequence[tuple[Labels, list[float]]]]) -> None:
        self.series, self.queries = series, list[str]()

    def at(self, query: str, when_s: float) -> list[Series]:
        self.queries.append(f"at {query}")
        return [
            Series(labels=labels, points=((when_s, values[-1]),))
            for labels, values in self.series.get(query, ())
        ]

    def over(self, query: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        self.queries.append(f"over {query}")
        times = [start_s + step_s * place for place in range(1000)]
        return [
            Series(
                labels=labels,
                points=tuple(
                    (at, value)
                    for at, value in zip(times, values, strict=False)
                    if value == value  # Prometheus's client leaves out NaN
                ),
            )
            for labels, values in self.series.get(query, ())
        ]


def view(stub: Stub, period: Period = PERIOD, versions: str = ".*") -> View:
    answers = Answers(prometheus=cast(Prometheus, stub), period=period, versions=versions)
    return View(answers=answers, currency="EUR", zone=UTC)


def target(expr: str, legend: str = "", **fields: Any) -> dict[str, Any]:
    """Return a target over time, unless ``fields`` say something else."""
    return {"refId": "A", "expr": expr, "legendFormat": legend, "instant": False} | fields


def panel(kind: str, *targets: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a panel; ``defaults`` are of its values."""
    config = {"defaults": fields.pop("defaults", {}), "overrides": []}
    made = {"type": kind, "title": "A panel", "description": "What.", "targets": targets}
    return {**made, "fieldConfig": config, "options": {}, **fields}


def organized(**names: str) -> list[dict[str, Any]]:
    """Return the transformations of a table whose columns have these headings."""
    renamed = {name.replace("Value_", "Value #"): text for name, text in names.items()}
    order = {name: place for place, name in enumerate(renamed)}
    options = {"indexByName": order, "renameByName": renamed, "excludeByName": {}}
    return [{"id": "merge", "options": {}}, {"id": "organize", "options": options}]
