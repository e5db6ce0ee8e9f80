"""Columns with lists of items → impressions, clicks, and the numbers of candidates.

A list was shown if the row's own item is in it, or if most of its elements are items of the
log. Lists are columns of lists, or texts such as ``17|4|25``.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from srp4ctr.streams.events.schema import NUMBER_SUFFIXES
from srp4ctr.streams.imports.draft import MANY, SAMPLE, Draft, plain
from srp4ctr.streams.imports.guess_values import snake
from srp4ctr.streams.imports.sql_text import literal, toml

_MOST = 0.5
_SAME_LENGTH = 0.95  # of lists
_ARE_NUMBERS = 0.9  # of their elements
_SEPARATORS = ("|", ", ", ",", " ")
_WHOLE = r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|U?INTEGER"
_IDS = rf"(VARCHAR|{_WHOLE})\[\]"
_NUMBERS = rf"({_WHOLE}|FLOAT|DOUBLE|DECIMAL.*)\[\]"
_PAST = r".*(hist|previous|past|recent|last|click|viewed|bought|purchase|basket|cart).*"


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemLists:
    """A column with lists of items that were shown."""

    column: str
    sql: str
    """The list, as the mapping writes it."""
    item_sql: str
    """The row's own item, as text."""
    has_item: float
    """Share of the lists in which the row's own item is."""
    known: float
    """Share of the elements that are items of other rows; 0 if they were not counted."""
    length: float

    @property
    def is_text(self) -> bool:
        """Whether the file has the lists as texts."""
        return self.sql.startswith("string_split(")

    @property
    def as_texts(self) -> str:
        """The SQL of the list with its elements as texts."""
        return _as_texts(self.sql)

    @property
    def is_of_rows(self) -> bool:
        """Whether most lists contain the row's own item."""
        return self.has_item >= _MOST

    @property
    def holds_item(self) -> str:
        """The condition that the row's own item was shown: NULL without a list."""
        return f"list_contains({self.as_texts}, {self.item_sql})"

    @property
    def evidence(self) -> str:
        """The reason for taking the lists as shown."""
        if self.is_of_rows:
            return f"{self.has_item:.0%} of its lists contain the row's item"
        return f"{self.known:.0%} of its elements are items of the log"


def _as_texts(sql: str) -> str:
    is_text = sql.startswith("string_split(")
    return sql if is_text else f"CAST({sql} AS VARCHAR[])"


def text_of(draft: Draft, name: str) -> str:
    """Return the SQL of a column's values as texts."""
    is_text = draft.table.columns[name] == "VARCHAR"
    return plain(name) if is_text else f"CAST({plain(name)} AS VARCHAR)"


def list_columns(draft: Draft, pattern: str = _IDS) -> Iterator[tuple[str, str]]:
    """Yield the free columns with lists, and each SQL by which they may be taken apart.

    ``pattern`` is of the types of lists; texts are split at every separator they have.
    """
    for name, type_ in draft.table.columns.items():
        values = draft.values[name]
        if name in draft.chosen.values():
            continue
        if re.fullmatch(pattern, type_):
            yield name, plain(name)
        if type_ != "VARCHAR" or not values:
            continue
        if sum(v.startswith("[") and v.endswith("]") for v in values) >= len(values) / 2:
            yield name, f"TRY_CAST({plain(name)} AS VARCHAR[])"
            continue
        for mark in _SEPARATORS:
            if sum(mark in value for value in values) >= len(values) / 2:
                yield name, f"string_split({plain(name)}, {literal(mark)})"


def find_lists(draft: Draft, item: str) -> ItemLists | None:
    """Return the lists that were shown, if a column has such; the longest come first."""
    found = [
        lists
        for name, sql in list_columns(draft)
        if name != item
        and not re.fullmatch(_PAST, snake(name))
        and (lists := _measured(draft, name, sql, item))
    ]
    return max(found, key=lambda each: (each.is_of_rows, each.length), default=None)


def item_of_lists(draft: Draft, names: Sequence[str]) -> ItemLists | None:
    """Return the lists that contain the row's value of one of the columns ``names``."""
    found = [
        lists for item in names if (lists := find_lists(draft, item)) and lists.is_of_rows
    ]
    return max(found, key=lambda each: each.has_item, default=None)


def _measured(draft: Draft, name: str, sql: str, item: str) -> ItemLists | None:
    """Return the lists of a column if they have items of the log, and else nothing."""
    own = text_of(draft, item)
    lists = (
        f"SELECT {_as_texts(sql)} AS shown, {own} AS own FROM {draft.table.view} "
        f"WHERE {plain(name)} IS NOT NULL LIMIT {SAMPLE}"
    )
    contains = "CAST(coalesce(list_contains(shown, own), false) AS INTEGER)"
    [(has_item, length)] = draft.table.rows(
        f"SELECT avg({contains}), avg(len(shown)) FROM ({lists})"
    )
    if has_item is None or length < 2:  # most lists have one element
        return None
    known = 0.0
    if has_item < _MOST:
        items = f"SELECT {own} AS own FROM {draft.table.view} LIMIT {MANY}"
        [(known,)] = draft.table.rows(
            f"SELECT avg(CAST(each IN (SELECT own FROM ({items}) WHERE own IS NOT NULL) AS "
            f"INTEGER)) FROM (SELECT unnest(shown) AS each FROM ({lists}))"
        )
    if max(has_item, known or 0.0) < _MOST:
        return None
    return ItemLists(
        column=name, sql=sql, item_sql=own, has_item=has_item, known=known, length=length
    )


def candidate_numbers(draft: Draft, lists: ItemLists) -> Iterator[tuple[str, str, str]]:
    """Yield columns with a number of each shown item: column, name, SQL of the element."""
    for column, sql in list_columns(draft, _NUMBERS):
        if column == lists.column or column in draft.chosen.values():
            continue
        is_native = sql == plain(column)
        number = "each" if is_native else "TRY_CAST(each AS DOUBLE)"
        both = (
            f"SELECT {sql} AS numbers, len({lists.sql}) AS shown FROM {draft.table.view} "
            f"WHERE {plain(lists.column)} IS NOT NULL LIMIT {SAMPLE}"
        )
        [(same,)] = draft.table.rows(
            "SELECT avg(CAST(coalesce(len(numbers) = shown, false) AS INTEGER)) "
            f"FROM ({both})"
        )
        [(are_numbers,)] = draft.table.rows(
            f"SELECT avg(CAST({number} IS NOT NULL AS INTEGER)) "
            f"FROM (SELECT unnest(numbers) AS each FROM ({both}))"
        )
        if (same or 0.0) >= _SAME_LENGTH and (are_numbers or 0.0) >= _ARE_NUMBERS:
            element = f"{sql}[each_index + 1]"
            value = element if is_native else f"TRY_CAST({element} AS DOUBLE)"
            yield column, _singular(column), value


def _singular(column: str) -> str:
    """Return the name of one number of a list: ``price`` of ``prices``."""
    name = re.sub(r"\W+", "_", re.sub(r"_?(list|array)$", "", snake(column))).strip("_")
    name = re.sub(r"(?<=[a-z])ies$", "y", name)
    name = re.sub(r"(?<=[^s])s$", "", name) or "number"
    if not name.isascii():
        return "number"
    return f"{name}_of_item" if name.endswith(NUMBER_SUFFIXES) else name


def request_of(draft: Draft, lists: ItemLists) -> tuple[str, str, bool]:
    """Return the SQL of a list's request, its reason, and whether lists repeat in it.

    A column that is called like a request has it if each value is of one list; else the
    user, the time and, where users had several lists at a time, more of the row.
    """
    for name in draft.named("request"):
        values, with_list, rows = _distinct(draft, lists, [plain(name)])
        if values in (rows, with_list):
            draft.chosen["request"] = name
            return name, "by its name", values < rows
    names = [draft.chosen[key] for key in ("user", "time") if key in draft.chosen]
    parts = [plain(each) for each in names]
    for more in ((), (lists.item_sql,), ("__row",)):
        values, _, rows = _distinct(draft, lists, [*parts, *more])
        if values == rows:
            parts += more
            break
    why = "each row with a list is a request, for no column has its id"
    return f"concat_ws('-', {', '.join(parts)})", why, False


def _distinct(draft: Draft, lists: ItemLists, parts: Sequence[str]) -> tuple[int, int, int]:
    """Return how many values ``parts`` have, how many with their lists, how many rows."""
    key = f"concat_ws('-', {', '.join(parts)})"
    column = plain(lists.column)
    [(values, with_list, rows)] = draft.table.rows(
        f"SELECT count(DISTINCT {key}), count(DISTINCT ({key}, md5(CAST({column} AS "
        "VARCHAR)))), count(DISTINCT __hash) FROM (SELECT * FROM "
        f"{draft.table.view} WHERE {column} IS NOT NULL LIMIT {MANY})"
    )
    return values, with_list, rows


def shown_lines(lists: ItemLists, once_in: str = "") -> Iterator[str]:
    """Yield the rule that makes an impression of each element of ``lists``.

    ``once_in`` is the request in which several rows have the same list.
    """
    where = "each <> ''" if lists.is_text else "each IS NOT NULL"
    if once_in:
        where += f" AND __row = min(__row) OVER (PARTITION BY {plain(once_in)})"
    yield from (
        "",
        f"# {lists.column} has lists of items that were shown: {lists.evidence}.",
    )
    yield from ("[[events]]", 'type = "impression"')
    yield from (f"where = {toml(where)}", f"each = {toml(lists.sql)}")
    yield from ('item = "each"', 'position = "each_index"')


def number_lines(draft: Draft, lists: ItemLists) -> list[str]:
    """Return the table of numbers that go with ``lists``, and how the model uses them."""
    lines = []
    for column, name, value in candidate_numbers(draft, lists):
        draft.chosen[f"number {name}"] = column
        lines.append(f"{name} = {toml(value)}")
    order = '# order = "each_index"  # the order before a model, if callers send it, too'
    note = (
        "# Numbers of each shown item: the model reads those that settings.toml names as",
        "# [[features.candidate_numbers]] (docs/model.md), and callers send them.",
    )
    return ["", *note, "[numbers]", *lines, order] if lines else []
