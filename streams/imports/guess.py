"""A file's columns → a mapping to read and change, with the reason of each line.

Names come first, values confirm: numbers that are times of our days in one unit only, texts
with few values, 0 and 1. What is not clear is a comment, never a silent choice.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from srp4ctr.errors import MistakeError
from srp4ctr.streams.imports.mapping import CsvForm
from srp4ctr.streams.imports.readers import open_table
from srp4ctr.streams.imports.sql_text import quoted
from srp4ctr.streams.imports.tables import Column, Table, files_in, opened

_SAMPLE = 1_000
_NAMES = {
    "user": r"(user|visitor|customer|member|account|client|session)_?(id)?|uid|u",
    "item": r"(item|product|article|video|movie|content|news|ad|asset|sku|track|song|book)"
    r"_?(id)?|iid|i",
    "time": r"(event_?|click_?|impression_?)?(time|ts|timestamp)(_?stamp)?(_?(ms|s|us))?"
    r"|date(time)?|created_?at|occurred_?at|clicked_?at|at|t",
    "request": r"(request|impression|ranking|slate|list|page_?view|query|search)_?id",
    "position": r"position|pos|rank|slot|place",
    "action": r"action|behaviou?r|event(_?type|_?name)?|type|feedback_?type",
    "value": r"rating|score|stars|value|price|dwell(_?time)?|read_?time(_?s)?|duration",
}
_CLICKED = r"(is_?)?click(ed|s)?|label"
_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_TIMES_S = (631_152_000, 2_524_608_000)  # 1990 to 2050
_MAX_ACTIONS = 30


@dataclass(slots=True)
class _Draft:
    """Lines of the mapping to be, and the columns that they use."""

    table: Table
    values: dict[str, list[Any]]
    lines: list[str] = field(default_factory=list)
    chosen: dict[str, str] = field(default_factory=dict)

    def choose(self, key: str) -> str | None:
        """Return the column whose name says that it is ``key``, best name first."""
        matching = [
            name
            for name in self.table.columns
            if re.fullmatch(_NAMES[key], _snake(name)) and name not in self.chosen.values()
        ]
        if not matching:
            return None
        alternatives = sorted(matching, key=lambda name: _preference(key, name))
        others = ", ".join(alternatives[1:])
        reason = "by its name" + (f" (or {others}?)" if others else "")
        return self.take(key, alternatives[0], reason)

    def take(self, key: str, name: str, reason: str) -> str:
        """Add the line that makes column ``name`` the ``key``."""
        self.chosen[key] = name
        why = f"{reason}; values such as {_samples(self.values[name])}"
        self.add(f"{key} = {_toml(name)}", why)
        return name

    def add(self, line: str, why: str = "") -> None:
        self.lines += [f"# {why}", line] if why else [line]


def guess_mapping(files: Sequence[str]) -> str:
    """Return a mapping for the first of ``files`` as TOML, with its reasons as comments."""
    path = files_in(files)[0]
    with opened([path]) as database:
        table = open_table(database, path, CsvForm(), number=0, skip_bad=True)
        columns = ", ".join(quoted(each) for each in table.columns)
        rows = list(table.rows(f"SELECT {columns} FROM {table.view} LIMIT {_SAMPLE}"))
    if not rows:
        raise MistakeError(f"{path} has no rows to look at")
    values = {
        name: [row[n] for row in rows if row[n] is not None]
        for n, name in enumerate(table.columns)
    }
    draft = _Draft(table, values)
    draft.add(f"# Guessed from {len(rows):,} rows of {path.name}: read it, then change it.")
    draft.add(f"# Its columns: {', '.join(table.columns)}")
    for key in ("user", "item"):
        if not draft.choose(key):
            draft.add(f'# {key} = "?"  # no column has a name of a {key}: fill it in')
    _guess_time(draft)
    _guess_events(draft)
    return "\n".join(draft.lines) + "\n"


def _guess_time(draft: _Draft) -> None:
    name = draft.choose("time") or _time_by_value(draft)
    if name is None:
        draft.add('# time = "?"  # no column has a name of a time: fill it in')
        return
    kind = Column(sql="", type=draft.table.columns[name]).time_kind
    if kind == "number":
        units = [unit for unit in _UNITS if _are_times(draft.values[name], unit)]
        if len(units) == 1:
            why = "only in this unit are all of them between 1990 and 2050"
            draft.add(f'time_unit = "{units[0]}"', why)
        else:
            draft.add('# time_unit = "?"  # in no single unit are these times of our days')
    elif kind != "zoned":
        draft.add('time_zone = "UTC"', "texts without a zone: is it UTC? Europe/Berlin …")


def _time_by_value(draft: _Draft) -> str | None:
    for name, type_ in draft.table.columns.items():
        kind = Column(sql="", type=type_).time_kind
        if name in draft.chosen.values() or kind == "text":
            continue
        values = draft.values[name]
        if kind != "number" or sum(_are_times(values, unit) for unit in _UNITS) == 1:
            return draft.take("time", name, "by its values, which are times of our days")
    return None


def _guess_events(draft: _Draft) -> None:
    request, position = draft.choose("request"), draft.choose("position")
    action, value = draft.choose("action"), draft.choose("value")
    flags = (
        name
        for name, values in draft.values.items()
        if re.fullmatch(_CLICKED, _snake(name)) and {str(v) for v in values} <= {"0", "1"}
    )
    clicked = next(flags, None)
    if request and clicked:
        if not position:
            draft.add('position = "0"', "no column has the place in the list")
        draft.add(
            'impression = "true"', f"each row was shown: {clicked} says what followed"
        )
        name = clicked if re.fullmatch(r"\w+", clicked) else quoted(clicked)
        draft.add(f"click = {_toml(f'{name} = 1')}", "0 and 1 only")
    elif action:
        _guess_actions(draft, action)
    elif value and re.fullmatch("rating|stars", _snake(value)):
        draft.chosen["action"] = ""
        draft.add(
            'action = "rate"', f"a row is a rating of {_samples(draft.values[value])}"
        )
        draft.add('behavior = "true"', "every row")
    else:
        why = "nothing says what a row is: a click? Or behavior = with action = view, buy …"
        draft.add('click = "true"', why)


def _guess_actions(draft: _Draft, action: str) -> None:
    found = sorted({str(each) for each in draft.values[action]})
    line = draft.lines.index(f"action = {_toml(action)}")
    if len(found) > _MAX_ACTIONS:
        draft.lines[line] = f'action = "view"  # {action} has too many values'
    else:
        draft.lines[line] = f"action = {_toml('$' + action)}"
        draft.add('# Its values; in [actions] they get other names, such as pv = "view":')
        draft.add(f"# {', '.join(found)}")
    draft.add('behavior = "true"', "every row is a behaviour; click = … makes some clicks")


def _are_times(values: Sequence[float], unit: str) -> bool:
    first, last = (at * _UNITS[unit] for at in _TIMES_S)
    return bool(values) and all(first <= each <= last for each in values)


def _preference(key: str, name: str) -> tuple[int, str]:
    """Order names: user_id before session_id, timestamp before date."""
    last = ("session", "date", "type") if key != "action" else ("type",)
    return (1 if _snake(name).startswith(last) else 0, name)


def _samples(values: Sequence[Any]) -> str:
    found = list(dict.fromkeys(str(each)[:24] for each in values))[:3]
    return ", ".join(each.replace("\n", " ") for each in found) or "none"


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _toml(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
