"""Columns that a guess uses for nothing → what each may be, as comments."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from srp4ctr.streams.imports.draft import MANY, Draft
from srp4ctr.streams.imports.guess_values import MAX_ACTIONS, NAMES, are_called, is_time
from srp4ctr.streams.imports.sql_text import quoted

_FEW = 1_000  # numbers of a context: an hour, a version
_TEXTS_REPEATED = 2  # rows per text of a context: a device, a place
_REPEATED = 1.2  # rows per user: else all columns have one value per user


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spread:
    """How many rows and values a column has, and whether they follow from others."""

    rows: int
    all_rows: int
    values: int
    owners: frozenset[str]
    """Of user and item, each that has one value; request: likewise where there is one."""


def unused_lines(draft: Draft, lines: Iterable[str]) -> Iterator[str]:
    """Yield a comment for each column of the log that no line of the mapping reads."""
    values = "\n".join(
        line.partition("=")[2] for line in lines if line and not line.startswith("#")
    )
    unused = [
        name
        for name in draft.table.columns
        if name not in draft.chosen.values()
        and not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", values)
    ]
    if unused:
        yield from ("", "# Columns that nothing reads, and what each may be:")
    has_impressions = 'type = "impression"' in lines or any(
        line.startswith("impression = ") for line in lines
    )
    for name in unused:
        yield f"#   {name}: {_suggestion(draft, name, has_impressions)}"


def _suggestion(draft: Draft, name: str, has_impressions: bool) -> str:
    spread = _spread_of(draft, name)
    if spread.values < 2:
        return f"leave out: it has {'one value' if spread.values else 'no value'}"
    if are_called(name, NAMES["user"]) and spread.values > MAX_ACTIONS:
        return f'another id of users? user = "{name}", or leave out'
    if is_time(draft.table.columns[name], draft.values[name]):
        return "leave out: another time"
    if spread.values == spread.all_rows:
        return "leave out: each row has its own"
    if "item" in spread.owners:
        return "an attribute of items: [items.attributes]"
    if "user" in spread.owners:
        context = f", or a context of the request: [context] {_key(name)}"
        also = context if has_impressions else ""
        return f"an attribute of users: [users] user, [users.attributes]{also}"
    return _of_request(draft, name, spread, has_impressions)


def _of_request(draft: Draft, name: str, spread: _Spread, has_impressions: bool) -> str:
    """Return what a column may be whose values follow from no user and no item."""
    type_ = draft.table.columns[name]
    is_number = type_.endswith(("INT", "INTEGER", "FLOAT", "DOUBLE")) or "DECIMAL" in type_
    differs = "request" in draft.chosen and "request" not in spread.owners
    if has_impressions and differs and "lists" not in draft.chosen:
        where = "[numbers]" if is_number else "[items.attributes] if it is the item's"
        return f"it differs within a request: {where}"
    if type_.endswith("]"):
        return "leave out: a list of other things than items"
    is_repeated = spread.rows >= _TEXTS_REPEATED * spread.values
    if has_impressions and (spread.values <= _FEW if is_number else is_repeated):
        return f"a context of the request: [context] {_key(name)}"
    if is_number and "value" not in draft.chosen and "action" in draft.chosen:
        return f'a value of behaviours? value = "{name}", or leave out'
    if is_repeated and not has_impressions:
        return "leave out: a context of the request, which only impressions have"
    return "leave out: too many values for a context"


def _spread_of(draft: Draft, name: str) -> _Spread:
    column = quoted(name)
    owners = [key for key in ("user", "item", "request") if draft.chosen.get(key)]
    counts = ["count(*)", f"count({column})", f"count(DISTINCT {column})"]
    for key in owners:
        owner = quoted(draft.chosen[key])
        counts.append(f"count(DISTINCT {owner}) FILTER ({column} IS NOT NULL)")
        pair = f"({owner}, {column})"
        counts.append(f"count(DISTINCT {pair}) FILTER ({column} IS NOT NULL)")
    [(all_rows, rows, values, *numbers)] = draft.table.rows(
        f"SELECT {', '.join(counts)} FROM (SELECT * FROM {draft.table.view} LIMIT {MANY})"
    )
    pairs = zip(owners, numbers[::2], numbers[1::2], strict=True)
    return _Spread(
        rows=rows,
        all_rows=all_rows,
        values=values,
        owners=frozenset(
            key for key, ids, both in pairs if ids == both and rows > _REPEATED * ids
        ),
    )


def _key(name: str) -> str:
    key = re.sub(r"\W+", "_", name).strip("_").lower()
    return f'{key} = "{name}"'
