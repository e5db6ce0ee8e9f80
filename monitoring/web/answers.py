"""A panel's targets and a period → Prometheus's answers, as lines over time or as rows."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srp4ctr.monitoring.prometheus import Prometheus, Series
from srp4ctr.monitoring.web.period import Period

FRESH_S = 5  # a figure whose last point may be older is read again
_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
# What is in quotes is matched first, so that it stays as it is.
_RANGE = re.compile(r'"(?:\\.|[^"\\])*"|\[((?:\d+(?:ms|[smhdw]))+)(?=[\]:])')
Row = dict[str, float | str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A named series; a value is None where Prometheus has none."""

    name: str
    labels: Mapping[str, str]
    times_s: Sequence[float]
    values: Sequence[float | None]

    @property
    def known(self) -> list[float]:
        """The values that there are."""
        return [value for value in self.values if value is not None]

    @property
    def bound(self) -> str:
        """``low`` or ``high`` of a line that bounds an interval, else ""."""
        return self.labels.get("bound", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Prometheus, a period, and the versions that were chosen."""

    prometheus: Prometheus
    period: Period
    versions: str
    """A regular expression: the value of ``$model_version``."""

    def lines(self, panel: Mapping[str, Any]) -> list[Line]:
        """Return the lines of all targets; figures of one instant have one point."""
        is_figure = panel["type"] == "stat"
        return [
            line
            for target in panel["targets"]
            for line in self._lines_of(target, is_figure=is_figure)
        ]

    def rows(self, panel: Mapping[str, Any]) -> tuple[list[str], list[Row]]:
        """Return the columns' headings, and a row per combination of the key labels.

        The targets' series are joined where those labels are equal.
        """
        (organize,) = (
            transformation["options"]
            for transformation in panel["transformations"]
            if transformation["id"] == "organize"
        )
        heading: dict[str, str] = organize["renameByName"]
        order = sorted(organize["indexByName"], key=organize["indexByName"].__getitem__)
        keys = [name for name in order if not name.startswith("Value #")]
        headings = [heading[name] for name in keys]
        rows: dict[tuple[str, ...], Row] = {}
        for target in panel["targets"]:
            column = heading[f"Value #{target['refId']}"]
            for found in self.prometheus.at(self.filled(target), self.period.end_s):
                key = tuple(found.labels.get(name, "") for name in keys)
                row = rows.setdefault(key, dict(zip(headings, key, strict=True)))
                row[column] = found.newest
        return [heading[name] for name in order], list(rows.values())

    def filled(self, target: Mapping[str, Any]) -> str:
        """Return the target's query with the variables' values."""
        query = target["expr"].replace("$model_version", self.versions)
        return str(query.replace("$__range", f"{self.period.length_s:.0f}s"))

    def _lines_of(self, target: Mapping[str, Any], *, is_figure: bool) -> Iterator[Line]:
        query, step_s = self.filled(target), self.period.step_s
        newest: dict[tuple[Any, ...], Series] = {}
        if target["instant"] or (is_figure and step_s > FRESH_S):
            found = self.prometheus.at(query, self.period.end_s)
            newest = {_key(each): each for each in found}
        past: list[Series] = []
        if not target["instant"]:
            times_s = self.period.times_s
            wide = widened(query, step_s)
            past = self.prometheus.over(wide, times_s[0], times_s[-1], step_s)
        for each in past:
            yield self._line(target, each, newest.pop(_key(each), None))
        for each in newest.values():
            yield self._line(target, Series(labels=each.labels, points=()), each)

    def _line(self, target: Mapping[str, Any], past: Series, newest: Series | None) -> Line:
        """Return the line of ``past`` and then of ``newest``, with None in its gaps."""
        times_s: Sequence[float] = self.period.times_s if past.points else ()
        found = {round(at_s): value for at_s, value in past.points}
        values = [found.get(round(at_s)) for at_s in times_s]
        if newest is not None:
            times_s, values = [*times_s, self.period.end_s], [*values, newest.newest]
        return Line(
            name=_legend(target, past.labels),
            labels=past.labels,
            times_s=times_s,
            values=values,
        )


def widened(query: str, step_s: float) -> str:
    """Return ``query`` with ranges of a step at least.

    Shorter ranges would leave out what happened between two points.
    """

    def longer(match: re.Match[str]) -> str:
        return f"[{step_s:g}s" if match[1] and _seconds(match[1]) < step_s else match[0]

    return _RANGE.sub(longer, query)


def _seconds(length: str) -> float:
    parts = re.findall(r"(\d+)(ms|[smhdw])", length)
    return float(sum(int(number) * _UNITS_S[unit] for number, unit in parts))


def _legend(target: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Return the line's name: the legend with the labels' values."""
    legend = target.get("legendFormat", "")
    return re.sub(r"\{\{(\w+)\}\}", lambda m: labels.get(m[1], ""), legend).strip()


def _key(series: Series) -> tuple[Any, ...]:
    return tuple(sorted(series.labels.items()))
