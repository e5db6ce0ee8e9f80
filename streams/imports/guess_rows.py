"""A log's columns → which one is what, which rows are clicks, and the reason of each.

Names come first, values confirm: numbers that are times of our days in one unit only, texts
with few values, 0 and 1. What is not clear is a comment, never a silent choice.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from srp4ctr.streams.imports.guess_values import (
    CLICK,
    LAST,
    MAX_ACTIONS,
    NAMES,
    SHOWN,
    VIEW,
    are_actions,
    are_called,
    formats_of,
    is_called,
    is_flag,
    is_rating,
    samples,
    snake,
    units_of,
)
from srp4ctr.streams.imports.mapping import SYNONYMS
from srp4ctr.streams.imports.sql_text import literal, quoted, toml
from srp4ctr.streams.imports.tables import Column, Table

SAMPLE, MANY = 1_000, 200_000  # rows for names and times; for what follows what
_NEGATIVES = (
    "# Nobody knows what was shown and not clicked, which a click model learns from. Where",
    "# you log it, say so here: `impression` and `request`. Else settings.toml needs",
    "#   [training]",
    '#   negatives = "sampled"',
    "# Without it `srp4ctr model refresh` waits for impressions; with it, a score is a",
    "# preference among popular items, not a click probability (docs/model.md).",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Action:
    """A value of the action's column: how many rows have it, how many lead to another."""

    name: str
    rows: int
    followed: int

    def is_like(self, pattern: str) -> bool:
        return is_called(self.name, pattern)


@dataclass(slots=True)
class Draft:
    """Lines of the mapping to be, and the columns that they use."""

    table: Table
    values: dict[str, list[Any]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    chosen: dict[str, str] = field(default_factory=dict)
    num_rows: int = 0

    def __post_init__(self) -> None:
        columns = ", ".join(quoted(each) for each in self.table.columns)
        query = f"SELECT {columns} FROM {self.table.view} LIMIT {SAMPLE}"
        rows = list(self.table.rows(query))
        self.num_rows = len(rows)
        self.values = {
            name: [row[n] for row in rows if row[n] is not None]
            for n, name in enumerate(self.table.columns)
        }

    def named(self, key: str) -> list[str]:
        """Return the free columns whose name says that they are ``key``, the best first."""
        matching = (
            name
            for name in self.table.columns
            if are_called(name, NAMES[key]) and name not in self.chosen.values()
        )
        last = LAST if key != "action" else ("type",)

        def order(name: str) -> tuple[bool, int, str]:
            return snake(name).startswith(last), name.count("."), name

        return sorted(matching, key=order)

    def choose(self, key: str) -> str | None:
        """Return the column that is ``key`` by its name, and add its line."""
        if not (alternatives := self.named(key)):
            return None
        others = ", ".join(alternatives[1:])
        reason = "by its name" + (f" (or {others}?)" if others else "")
        return self.take(key, alternatives[0], reason)

    def take(self, key: str, name: str, reason: str) -> str:
        """Add the line that makes column ``name`` the ``key``."""
        self.chosen[key] = name
        why = f"{reason}; values such as {samples(self.values[name])}"
        is_from_1 = key == "position" and min(self.values[name], default=0) == 1
        why += "; the top is 0" if is_from_1 else ""
        self.add(f"{key} = {toml(f'{_sql(name)} - 1' if is_from_1 else name)}", why)
        return name

    def add(self, line: str, why: str = "") -> None:
        """Add a line, and its reason as a comment before it."""
        self.lines += [f"# {why}", line] if why else [line]


def guess_events(draft: Draft) -> None:
    """Add which columns are user, item and time, and which rows are what."""
    for key in ("user", "item"):
        if not draft.choose(key):
            draft.add(f'# {key} = "?"  # no column is named like the {key}: fill it in')
    _guess_time(draft)
    request, position = draft.choose("request"), draft.choose("position")
    action, value = _choose_action(draft), draft.choose("value")
    flags = (name for name, values in draft.values.items() if is_flag(name, values))
    if clicked := next(flags, None):
        if not request and {"user", "time"} <= draft.chosen.keys():
            both = ", ".join(quoted(draft.chosen[key]) for key in ("user", "time"))
            why = "no column says what was shown together: what a user saw at one time?"
            together = f"concat_ws('-', {both})"
            draft.add(f"request = {toml(together)}", why)
        if not position:
            draft.add('position = "0"', "no column has the place in the list")
        why = f"each row was shown: {clicked} says what followed"
        draft.add('impression = "true"', why)
        draft.add(f"click = {toml(f'{_sql(clicked)} = 1')}", "0 and 1 only")
    elif action:
        _guess_actions(draft, action)
    elif value and is_rating(value, draft.values[value]):
        draft.chosen["action"] = ""
        why = f"a row is a rating of {samples(draft.values[value])}"
        draft.add('action = "rate"', why)
        draft.add('behavior = "true"', "every row")
        draft.add(f"# click = {toml(f'{_sql(value)} >= 4')}", "makes good ratings clicks:")
        draft.lines += _NEGATIVES
    else:
        _guess_clicks(draft, value)


def _guess_clicks(draft: Draft, value: str | None) -> None:
    if value:
        draft.lines.remove(f"value = {toml(value)}")
        draft.add(f"# value = {toml(value)}", "clicks have no value, behaviours do:")
    why = "nothing says what a row is: a click? Or behavior = with action = view, buy …"
    draft.add('click = "true"', why)
    draft.lines += _NEGATIVES


def _choose_action(draft: Draft) -> str | None:
    """Return the column of actions: by its name, else by names of actions in it."""
    if name := draft.choose("action"):
        return name
    free = (each for each in draft.table.columns if each not in draft.chosen.values())
    name = next((each for each in free if are_actions(draft.values[each])), None)
    return name and draft.take("action", name, "by its values, which are actions")


def _guess_time(draft: Draft) -> None:
    name = draft.choose("time")
    if name is None and (name := time_by_value(draft)):
        draft.take("time", name, "by its values, which are times of our days")
    parts = {snake(each): each for each in draft.table.columns}
    if name is None and {"year", "month", "day"} <= parts.keys():
        date = ", ".join(quoted(parts[each]) for each in ("year", "month", "day"))
        draft.add(f"time = {toml(f'make_date({date})')}", "by its parts, which are columns")
        return
    if name is None:
        draft.add('# time = "?"  # no column is named like a time: fill it in')
        return
    _guess_unit(draft, name)


def _guess_unit(draft: Draft, name: str) -> None:
    """Add the unit of times that are numbers, else the format and the zone."""
    kind = Column(sql="", type=draft.table.columns[name]).time_kind
    values = draft.values[name]
    if kind == "text" and all(str(each).isdigit() for each in values):
        kind, values = "number", [int(each) for each in values]
    if kind == "number":
        if len(units := units_of(values)) == 1:
            why = "only in this unit are all of them between 1990 and 2050"
            draft.add(f'time_unit = "{units[0]}"', why)
        else:
            draft.add('# time_unit = "?"  # in no single unit are these times of our days')
    elif kind != "zoned":
        if forms := formats_of(values):
            also = f"; so do they {', '.join(forms[1:])}: which?" if forms[1:] else ""
            draft.add(f"time_format = {toml(forms[0])}", f"all of them fit{also}")
        draft.add('time_zone = "UTC"', "texts without a zone: is it UTC? Europe/Berlin …")


def time_by_value(draft: Draft) -> str | None:
    """Return the first free column whose values are times of our days."""
    for name, type_ in draft.table.columns.items():
        kind, values = Column(sql="", type=type_).time_kind, draft.values[name]
        if name in draft.chosen.values():
            continue
        if kind == "number":
            is_time = len(units_of(values)) == 1
        else:
            is_time = kind != "text" or bool(formats_of(values))
        if is_time:
            return name
    return None


def _guess_actions(draft: Draft, column: str) -> None:
    """Add what the rows are by the values of ``column``: one of them is the click."""
    found = _actions_of(draft, column)
    line = draft.lines.index(f"action = {toml(column)}")
    if len(found) > MAX_ACTIONS:
        draft.lines[line] = f'action = "view"  # {column} has too many values'
        draft.add(
            'behavior = "true"', "every row is a behaviour; click = … makes some clicks"
        )
        draft.lines += _NEGATIVES
        return
    draft.lines[line] = f"action = {toml('$' + column)}"
    draft.add(f"# Its values: {', '.join(f'{e.name} ({e.rows:,})' for e in found)}")
    _guess_names(draft, found)
    shown = next((each for each in found if each.is_like(SHOWN)), None)
    clicked, why = _click_of([each for each in found if each is not shown])
    taken = [each for each in (shown, clicked) if each is not None]
    is_known = shown is not None and "request" in draft.chosen
    if is_known and "position" not in draft.chosen:
        draft.add('position = "0"', "no column has the place in the list")
    for key, each, reason in (
        ("impression", shown if is_known else None, "by its name: an item was shown"),
        ("click", clicked, why),
    ):
        if each is not None:
            draft.add(f"{key} = {toml(f'{_sql(column)} = {literal(each.name)}')}", reason)
    if shown is not None and not is_known:
        why = f"rows of {shown.name!r} are left out: no column says what was shown together"
        draft.add('# impression = …  # needs request = "COLUMN"', why)
    if len(taken) < len(found):
        names = ", ".join(literal(each.name) for each in taken)
        rest = f"{_sql(column)} NOT IN ({names})" if taken else "true"
        rest = rest if len(taken) > 1 else rest.replace("NOT IN (", "<> ").rstrip(")")
        why = "the other rows" if taken else "every row; click = … would make some clicks"
        draft.add(f"behavior = {toml(rest)}", why)
    if not is_known:
        draft.lines += _NEGATIVES


def _guess_names(draft: Draft, found: Sequence[_Action]) -> None:
    """Add the names by which the model knows some of the actions."""
    known = [
        f"{toml(each.name)} = {toml(name)}"
        for each in found
        for name, pattern in SYNONYMS.items()
        if each.name != name and each.is_like(pattern)
    ]
    if known:
        why = "names that the model knows; others stay as they are"
        draft.add(f"actions = {{ {', '.join(known)} }}", why)


def _click_of(found: Sequence[_Action]) -> tuple[_Action | None, str]:
    """Return which action is the click, the most frequent first, and the reason."""
    for pattern in (CLICK, VIEW):
        if each := next((each for each in found if each.is_like(pattern)), None):
            return (
                each,
                f"{each.name!r} is the click, by its name; {_evidence(each, found)}",
            )
    if each := next((each for each in found[:1] if each.followed), None):
        return each, f"{each.name!r} may be the click: {_evidence(each, found)}"
    return None, ""


def _evidence(each: _Action, found: Sequence[_Action]) -> str:
    share = each.rows / sum(other.rows for other in found)
    after = f"another action of the user on the item follows {each.followed:,} of them"
    return f"{share:.0%} of the rows" + (f", and {after}" if each.followed else "")


def _actions_of(draft: Draft, column: str) -> list[_Action]:
    """Return the values of ``column``, the most frequent first."""
    owner = [quoted(draft.chosen[key]) for key in ("user", "item") if key in draft.chosen]
    within = ", ".join(owner) or "__row"
    order = f"{quoted(draft.chosen['time'])}, " if "time" in draft.chosen else ""
    next_one = f"lead(__act) OVER (PARTITION BY {within} ORDER BY {order}__row)"
    acts = f"SELECT *, CAST({quoted(column)} AS VARCHAR) AS __act FROM {draft.table.view}"
    both = f"SELECT __act, {next_one} AS __next FROM ({acts} LIMIT {MANY})"
    rows = draft.table.rows(
        "SELECT __act, count(*), count(*) FILTER (__next <> __act) "
        f"FROM ({both}) WHERE __act IS NOT NULL GROUP BY __act ORDER BY 2 DESC, 1"
    )
    return [_Action(name=name, rows=n, followed=after) for name, n, after in rows]


def _sql(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else quoted(name)
