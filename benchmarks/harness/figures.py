"""Means over seeds with their standard errors, and rows of figures → a table of text."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def mean(values: Sequence[float | None], digits: int = 6) -> float | None:
    """Return the mean; None where one is undefined: no seed is left out silently."""
    found = _defined(values)
    return round(statistics.fmean(found), digits) if found else None


def error(values: Sequence[float | None], digits: int = 6) -> float | None:
    """Return the standard error of the mean; None below two seeds."""
    found = _defined(values)
    if len(found) < 2:
        return None
    return round(statistics.stdev(found) / math.sqrt(len(found)), digits)


def _defined(values: Sequence[float | None]) -> list[float]:
    """Return ``values``, or nothing where one of them is undefined."""
    found = [value for value in values if value is not None and math.isfinite(value)]
    return found if len(found) == len(values) else []


def table(rows: Iterable[Row], columns: Mapping[str, str]) -> str:
    """Return ``rows`` under the headings of ``columns``: heading → ``FIELD:FORMAT``.

    ``FIELD±ERROR:FORMAT`` shows a field and its error, where there is one. What is None
    or missing is a dash; words are aligned on the left, numbers on the right.
    """
    shown = list(rows)
    lines = [list(columns)]
    lines += [[_cell(row, column) for column in columns.values()] for row in shown]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    names = [column.partition(":")[0] for column in columns.values()]
    first = next(iter(shown), {})
    sides = ["<" if isinstance(first.get(name), str) else ">" for name in names]
    cells = (zip(line, sides, widths, strict=True) for line in lines)
    return "\n".join(
        "  ".join(f"{c:{s}{w}}" for c, s, w in line).rstrip() for line in cells
    )


def _cell(row: Row, column: str) -> str:
    fields, _, form = column.partition(":")
    name, _, error_name = fields.partition("±")
    if row.get(name) is None:
        return "–"
    spread = row.get(error_name)
    sure = "" if spread is None else f" ± {spread:{form.lstrip('+')}}"
    return f"{row[name]:{form}}{sure}"
