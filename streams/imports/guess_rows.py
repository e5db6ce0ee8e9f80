"""A log's columns → which one is what, which rows are clicks, and the reason of each.

Names come first, values confirm: numbers that are times of our days in one unit only, texts
with few values, 0 and 1. What is not clear is a comment, never a silent choice.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from srp4ctr.streams.imports.draft import MANY, Draft, plain
from srp4ctr.streams.imports.guess_lists import (
    ItemLists,
    find_lists,
    item_of_lists,
    number_lines,
    request_of,
    shown_lines,
    text_of,
)
from srp4ctr.streams.imports.guess_values import (
    CLICK,
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
    is_time,
    samples,
    snake,
    units_of,
)
from srp4ctr.streams.imports.mapping import SYNONYMS
from srp4ctr.streams.imports.sql_text import literal, quoted, toml
from srp4ctr.streams.imports.tables import Column

# Not ids: as few values, each in as many rows.
_FEW = 30
_ROWS_OF_FEW = 200
_MIN_WITH_ITEM = 0.1  # of an action's rows: the others name a filter, a place, a page
_ID = r"(.+_)?(id|key|code|ref|reference|number|no|sku)"
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


def guess_events(draft: Draft) -> None:
    """Add which columns are user, item and time, and which rows are what."""
    _choose_user(draft)
    item = _choose_item(draft)
    _guess_time(draft)
    lists = find_lists(draft, item) if item else None
    if lists is None:
        _guess_rows(draft)
    else:
        _guess_lists(draft, lists)
    draft.lines += draft.tail


def _choose_user(draft: Draft) -> None:
    """Add the column of users: by its name, else that of visits, which works as well."""
    found, few = _choose_of_many(draft, "user")
    visits = [each for each in draft.named("request") if re.search("visit", snake(each))]
    if not found and visits:
        draft.take("user", visits[0], f"{few}a visit may be the user")
    elif not found:
        why = few.removesuffix("; ") or "no column is named like the user"
        draft.add('user = "?"', f"{why}: fill it in")


def _choose_of_many(draft: Draft, key: str) -> tuple[str | None, str]:
    """Return the column that is ``key`` by its name, and why those before it are not.

    Users and items have many values: a column with few in many rows is neither.
    """
    named, few = draft.named(key), ""
    for name in named:
        rows, values = draft.spread(name)
        if values > _FEW or rows < values * _ROWS_OF_FEW:
            others = ", ".join(each for each in named if each != name)
            reason = "by its name" + (f" (or {others}?)" if others else "")
            return draft.take(key, name, f"{few}{reason}"), few
        few += f"{name} has {values:,} values in {rows:,} rows, too few for {key}s; "
    return None, few


def _choose_item(draft: Draft) -> str | None:
    """Return the column of items: by its name, by lists that have it, or like an id."""
    named = draft.named("item")
    found, few = _choose_of_many(draft, "item")
    if found:
        return found
    ids = [name for name in draft.table.columns if _may_be_ids(draft, name)]
    if lists := item_of_lists(draft, [name for name in ids if name not in named]):
        item = next(name for name in ids if text_of(draft, name) == lists.item_sql)
        why = f"{few}{lists.has_item:.0%} of the lists in {lists.column} contain it"
        return draft.take("item", item, why)
    like = [name for name in ids if _is_like_an_id(draft, name)]
    if few and like:
        others = f" (or {', '.join(like[1:])}?)" if like[1:] else ""
        return draft.take("item", like[0], f"{few}this is like an id{others}")
    why = few.removesuffix("; ") or "no column is named like the item"
    draft.add('item = "?"', f"{why}: fill it in")
    return None


def _may_be_ids(draft: Draft, name: str) -> bool:
    """Return whether a free column has texts or whole numbers."""
    type_ = draft.table.columns[name]
    is_free = name not in draft.chosen.values() and bool(draft.values[name])
    return is_free and (type_ == "VARCHAR" or type_.endswith(("INT", "INTEGER")))


def _is_like_an_id(draft: Draft, name: str) -> bool:
    """Return whether a column is called like an id, and rows share many values of it."""
    if not re.fullmatch(_ID, snake(name)) or any(
        are_called(name, NAMES[key]) for key in NAMES if key != "item"
    ):
        return False
    rows, values = draft.spread(name)
    return _FEW < values < rows


def _guess_rows(draft: Draft) -> None:
    """Add which rows are what, where each row has at most one item."""
    request, position = draft.choose("request"), draft.choose("position")
    action, value = _choose_action(draft), draft.choose("value")
    flags = (name for name, values in draft.values.items() if is_flag(name, values))
    if clicked := next(flags, None):
        _guess_flag(draft, clicked, request, position)
    elif action:
        _guess_actions(draft, action)
    elif value and is_rating(value, draft.values[value]):
        draft.chosen["action"] = ""
        why = f"a row is a rating of {samples(draft.values[value])}"
        draft.add('action = "rate"', why)
        draft.add('behavior = "true"', "every row")
        draft.add(f"# click = {toml(f'{plain(value)} >= 4')}", "makes good ratings clicks:")
        _add_negatives(draft)
    else:
        _guess_clicks(draft, value)


def _guess_flag(
    draft: Draft, clicked: str, request: str | None, position: str | None
) -> None:
    """Add that each row was shown, and that the flag ``clicked`` says what followed."""
    if not request and {"user", "time"} <= draft.chosen.keys():
        both = ", ".join(quoted(draft.chosen[key]) for key in ("user", "time"))
        why = "no column says what was shown together: what a user saw at one time?"
        together = f"concat_ws('-', {both})"
        draft.add(f"request = {toml(together)}", why)
    if not position:
        draft.add('position = "0"', "no column has the place in the list")
    why = f"each row was shown: {clicked} says what followed"
    draft.add('impression = "true"', why)
    draft.add(f"click = {toml(f'{plain(clicked)} = 1')}", "0 and 1 only")


def _guess_lists(draft: Draft, lists: ItemLists) -> None:
    """Add that lists were shown, and what the rows' own items are."""
    draft.has_lists = True
    draft.chosen["lists"] = lists.column
    numbers = number_lines(draft, lists)
    if lists.is_of_rows:
        request, why, repeats = request_of(draft, lists)
        draft.add(f"request = {toml(request)}", why)
        draft.tail += shown_lines(lists, request if repeats else "")
        draft.tail += ["", "# A row whose item was in its list is a click on it."]
        draft.tail += ["[[events]]", 'type = "click"', f"where = {toml(lists.holds_item)}"]
        _guess_others(draft, lists)
    else:
        mark = "" if draft.named("request") else "# "
        _guess_rows(draft)
        if mark:
            why = "which list a click came from: add it as `request`, then uncomment this"
            draft.tail += ["", f"# No column says {why}."]
        draft.tail += [mark + line for line in shown_lines(lists) if line]
    draft.tail += numbers


def _guess_others(draft: Draft, lists: ItemLists) -> None:
    """Add that rows which are no clicks on a list are behaviours, where they have items."""
    item = draft.chosen["item"]
    where = f"NOT coalesce({lists.holds_item}, false) AND {plain(item)} IS NOT NULL"
    [(rows,)] = draft.table.rows(f"SELECT count(*) FROM {draft.table.view} WHERE {where}")
    if not rows:
        return
    if action := _choose_action(draft):
        found = _actions_of(draft, action, where)
        kept = [each for each in found if _names_items(draft, lists, each, action)]
        if not kept or len(kept) > MAX_ACTIONS:
            draft.lines[-1] = 'action = "view"'
            draft.add(f"# {action} has {len(found):,} values")
        else:
            draft.lines[-1] = f"action = {toml('$' + action)}"
            draft.add(f"# Its values: {_counted(kept)}")
            _guess_names(draft, kept)
            strange = [each for each in found if each not in kept]
            where = _without(draft, action, strange) + where
    else:
        draft.add('action = "view"', "nothing says what the rows without a list are")
    draft.choose("value")
    draft.add(f"behavior = {toml(where)}", "the other rows with an item")


def _without(draft: Draft, action: str, strange: Sequence[_Action]) -> str:
    """Return the condition that leaves out actions without items, and add the reason."""
    if not strange:
        return ""
    item = draft.chosen["item"]
    draft.add(f"# Left out, for their {item} is hardly ever an item: {_counted(strange)}")
    names = ", ".join(literal(each.name) for each in strange)
    return f"{plain(action)} NOT IN ({names}) AND "


def _names_items(draft: Draft, lists: ItemLists, each: _Action, column: str) -> bool:
    """Return whether rows of an action have items that are in lists, too."""
    view = draft.table.view
    [(share,)] = draft.table.rows(
        f"SELECT avg(CAST({lists.item_sql} IN (SELECT unnest({lists.as_texts}) FROM {view} "
        f"WHERE {plain(lists.column)} IS NOT NULL) AS INTEGER)) FROM "
        f"(SELECT * FROM {view} WHERE CAST({plain(column)} AS VARCHAR) = "
        f"{literal(each.name)} LIMIT {MANY})"
    )
    return bool((share or 0.0) >= _MIN_WITH_ITEM)


def _counted(found: Sequence[_Action]) -> str:
    return ", ".join(f"{each.name} ({each.rows:,})" for each in found)


def _guess_clicks(draft: Draft, value: str | None) -> None:
    if value:
        draft.lines.remove(f"value = {toml(value)}")
        draft.add(f"# value = {toml(value)}", "clicks have no value, behaviours do:")
    why = "nothing says what a row is: a click? Or behavior = with action = view, buy …"
    draft.add('click = "true"', why)
    _add_negatives(draft)


def _choose_action(draft: Draft) -> str | None:
    """Return the column of actions: by its name, else by names of actions in it."""
    if name := draft.choose("action"):
        return name
    free = (column for column in draft.table.columns if column not in draft.chosen.values())
    name = next((each for each in free if are_actions(draft.values[each])), None)
    return name and draft.take("action", name, "by its values, which are actions")


def _guess_time(draft: Draft) -> None:
    name = draft.choose("time")
    if name is None and (name := time_by_value(draft)):
        draft.take("time", name, "by its values, which are times of our days")
    parts = {snake(column): column for column in draft.table.columns}
    if name is None and {"year", "month", "day"} <= parts.keys():
        date = ", ".join(quoted(parts[each]) for each in ("year", "month", "day"))
        draft.add(f"time = {toml(f'make_date({date})')}", "by its parts, which are columns")
        return
    if name is None:
        draft.add('time = "?"', "no column is named like a time: fill it in")
        return
    _guess_unit(draft, name)


def _guess_unit(draft: Draft, name: str) -> None:
    """Add the unit of times that are numbers, else the format and the zone."""
    kind = Column(sql="", type=draft.table.columns[name]).time_kind
    values = draft.values[name]
    if kind == "text" and all(str(value).isdigit() for value in values):
        kind, values = "number", [int(value) for value in values]
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
        if name not in draft.chosen.values() and is_time(type_, draft.values[name]):
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
        _add_negatives(draft)
        return
    draft.lines[line] = f"action = {toml('$' + column)}"
    draft.add(f"# Its values: {_counted(found)}")
    _guess_names(draft, found)
    shown = next((each for each in found if each.is_like(SHOWN)), None)
    clicked, why = _click_of([each for each in found if each is not shown])
    taken = [each for each in (shown, clicked) if each is not None]
    is_known = shown is not None and "request" in draft.chosen and not draft.has_lists
    if is_known and "position" not in draft.chosen:
        draft.add('position = "0"', "no column has the place in the list")
    for key, each, reason in (
        ("impression", shown if is_known else None, "by its name: an item was shown"),
        ("click", clicked, why),
    ):
        if each is not None:
            draft.add(f"{key} = {toml(f'{plain(column)} = {literal(each.name)}')}", reason)
    if shown is not None and not is_known:
        _explain_shown(draft, shown)
    if len(taken) < len(found):
        names = ", ".join(literal(each.name) for each in taken)
        rest = f"{plain(column)} NOT IN ({names})" if taken else "true"
        rest = rest if len(taken) > 1 else rest.replace("NOT IN (", "<> ").rstrip(")")
        why = "the other rows" if taken else "every row; click = … would make some clicks"
        draft.add(f"behavior = {toml(rest)}", why)
    if not is_known:
        _add_negatives(draft)


def _explain_shown(draft: Draft, shown: _Action) -> None:
    """Add why rows that say by their name what was shown are no impressions."""
    if draft.has_lists:
        draft.add(f"# Rows of {shown.name!r} have lists: [[events]] says what was shown.")
        return
    why = f"rows of {shown.name!r} are left out: no column says what was shown together"
    draft.add('# impression = …  # needs request = "COLUMN"', why)


def _add_negatives(draft: Draft) -> None:
    """Add how to train if the log does not record which items were shown."""
    if not draft.has_lists:
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


def _actions_of(draft: Draft, column: str, where: str = "true") -> list[_Action]:
    """Return the values of ``column`` where ``where`` holds, the most frequent first."""
    owner = [quoted(draft.chosen[key]) for key in ("user", "item") if key in draft.chosen]
    within = ", ".join(owner) or "__row"
    order = f"{quoted(draft.chosen['time'])}, " if "time" in draft.chosen else ""
    next_one = f"lead(__act) OVER (PARTITION BY {within} ORDER BY {order}__row)"
    acts = f"SELECT *, CAST({quoted(column)} AS VARCHAR) AS __act FROM {draft.table.view} "
    acts += f"WHERE {where}"
    both = f"SELECT __act, {next_one} AS __next FROM ({acts} LIMIT {MANY})"
    rows = draft.table.rows(
        "SELECT __act, count(*), count(*) FILTER (__next <> __act) "
        f"FROM ({both}) WHERE __act IS NOT NULL GROUP BY __act ORDER BY 2 DESC, 1"
    )
    return [_Action(name=name, rows=n, followed=after) for name, n, after in rows]
