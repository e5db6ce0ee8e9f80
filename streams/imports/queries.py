"""A mapping on a table → one query, and where each rule finds its fields in its rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from srp4ctr.errors import MistakeError
from srp4ctr.streams.imports.mapping import (
    Expression,
    Items,
    Mapping,
    Rule,
    Users,
    has_field,
)
from srp4ctr.streams.imports.sql_text import quoted
from srp4ctr.streams.imports.tables import Column, Table

_FIELDS = {
    "user": "user_id",
    "item": "item_id",
    "time": "occurred_at",
    "request": "request_id",
    "position": "position",
    "action": "action",
    "value": "value",
}


@dataclass(slots=True, kw_only=True)
class CompiledRule:
    """One rule on one table: for each field the number of its column in the query."""

    rule: Rule
    where: int | None
    fields: dict[str, int]
    context: dict[str, int]
    numbers: dict[str, int]
    action: str | None
    time_kind: str
    again: int = 0
    """How many rules before it make events of its kind and action of the same rows."""

    def values(self, row: tuple[Any, ...], event_id: str) -> dict[str, Any]:
        """Return the fields of the event of ``row``."""
        values = {name: row[index] for name, index in self.fields.items()}
        values["event_id"] = f"{event_id}-r{self.again}" if self.again else event_id
        if self.action is not None:
            values["action"] = self.action
        if self.context:
            context = {name: row[index] for name, index in self.context.items()}
            values["context"] = {n: str(v) for n, v in context.items() if v is not None}
        if self.numbers:
            values["numbers"] = {name: row[index] for name, index in self.numbers.items()}
        return values


@dataclass(slots=True)
class Query:
    """The columns of one pass over a table; equal expressions are computed once."""

    table: Table
    view: str
    columns: dict[str, int] = field(default_factory=dict)

    def add(self, sql: str) -> int:
        """Return the number of the column that ``sql`` is computed in."""
        return self.columns.setdefault(sql, len(self.columns))

    @property
    def text(self) -> str:
        """The SQL of the pass."""
        named = ", ".join(f"{sql} AS c{number}" for sql, number in self.columns.items())
        return f"SELECT {named} FROM {self.view}"


def unnested(rule: Rule) -> tuple[str, ...]:
    """Return the list whose elements are the rule's rows; rules of one share a query."""
    each = rule.each or ()
    return (each,) if isinstance(each, str) else tuple(each)


def compiled(
    mapping: Mapping, table: Table, rules: Sequence[Rule]
) -> tuple[Query, list[CompiledRule]]:
    """Return one pass over ``table`` and where each rule finds its fields in it."""
    view, index = table.view, "NULL"
    if each := rules[0].each:
        column = table.resolve("each", each)
        view = (
            f"(SELECT *, unnest({column.sql}) AS each, "
            f"generate_subscripts({column.sql}, 1) - 1 AS each_index FROM {view})"
        )
        index = "each_index"
    query = Query(table=table, view=view)
    for sql in ("__row", "__hash", index):
        query.add(sql)
    return query, [_compiled_rule(mapping, query, rule) for rule in rules]


def _compiled_rule(mapping: Mapping, query: Query, rule: Rule) -> CompiledRule:
    def column(name: str, given: Any) -> Column:
        is_number = name in ("time", "value", "position")
        return query.table.resolve(name, given, view=query.view, is_number=is_number)

    where = None
    if rule.where is not None and rule.where != "true":
        where = query.add(f"CAST({column(rule.type, rule.where).sql} AS BOOLEAN)")
    fields, action, time_kind = {}, None, "number"
    for name, event_field in _FIELDS.items():
        given = getattr(rule, name)
        if given is None or not has_field(rule.type, name):
            continue
        if name == "action":
            words = [given] if isinstance(given, str) else given
            if not words[0].startswith("$"):
                action = words[0]
                continue
            given = [word.removeprefix("$") for word in words]
        found = column(name, given)
        if name == "time":
            time_kind = _time_kind(mapping, query.table, found)
        fields[event_field] = query.add(_field_sql(name, found))
    context, numbers = _of_impressions(mapping, query, rule)
    return CompiledRule(
        rule=rule,
        where=where,
        fields=fields,
        context=context,
        numbers=numbers,
        action=action,
        time_kind=time_kind,
    )


def _of_impressions(
    mapping: Mapping, query: Query, rule: Rule
) -> tuple[dict[str, int], dict[str, int]]:
    """Return where an impression's context is, and where its numbers are."""
    if rule.type != "impression":
        return {}, {}
    table, context, numbers = query.table, {}, {}
    for name, given in mapping.context.items():
        column = table.resolve(f"[context] {name}", given, view=query.view)
        context[name] = query.add(column.as_text)
    if rule.each:
        _check_context(table, rule, mapping.context)
    for name, given in mapping.numbers.items():
        setting = f"[numbers] {name}"
        column = table.resolve(setting, given, view=query.view, is_number=True)
        numbers[name] = query.add(_field_sql("value", column))
    return context, numbers


def _check_context(table: Table, rule: Rule, context: dict[str, Expression]) -> None:
    """Raise ``MistakeError`` for a field that differs within a request, as a price does.

    A field that needs an element of the list is of one impression, unless the request's id
    comes from the element, too.
    """
    if rule.request is not None and not _is_of_row(table, rule.request):
        return
    for name, given in context.items():
        if not _is_of_row(table, given):
            raise MistakeError(
                f"[context] {name} = {given!r} differs between the impressions of one "
                "request, and a context is the request's: training would read the first "
                f"one's only. A number of each impression belongs under [numbers]: "
                f"{name} = {given!r}"
            )


def _is_of_row(table: Table, given: Expression) -> bool:
    """Return whether ``given`` is an expression of the row, without ``each``."""
    try:
        table.resolve("context", given)
    except MistakeError:
        return False
    return True


def _field_sql(name: str, column: Column) -> str:
    if name == "time":
        return column.as_time
    if name == "position":
        return f"CAST({column.sql} AS BIGINT)"
    if name == "value" and column.type != "VARCHAR":  # a text that is no number: a bad row
        return f"CAST({column.sql} AS DOUBLE)"
    return column.as_text


def _time_kind(mapping: Mapping, table: Table, column: Column) -> str:
    if column.time_kind == "number" and mapping.time_unit is None:
        raise MistakeError(
            f"the times of {table.path.name} are numbers: say their unit, time_unit = "
            '"s", "ms", "us" or "ns"'
        )
    if column.time_kind == "text" and mapping.time_unit:
        return "digits"
    return column.time_kind


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueQuery:
    """The query of a catalogue: row, owner, time, named values, then the attributes."""

    owner: str
    """``item`` or ``user``."""
    text: str
    attributes: Sequence[str]
    time_kind: str


def catalogue_query(
    catalogue: Items | Users, table: Table, mapping: Mapping
) -> CatalogueQuery:
    """Return the query of ``catalogue``; of the events' own files each update once."""
    owner = "item" if isinstance(catalogue, Items) else "user"

    def column(name: str, given: Expression, *, is_number: bool = False) -> Column:
        return table.resolve(f"{owner}s.{name}", given, is_number=is_number)

    time_kind, at = "", "NULL"
    if catalogue.time is not None:
        found = column("time", catalogue.time, is_number=True)
        time_kind, at = _time_kind(mapping, table, found), found.as_time
    columns = [column(owner, getattr(catalogue, owner)).as_text, at]
    named = "NULL"
    if catalogue.named_values is not None:
        found = column("named_values", catalogue.named_values)
        named = f"CAST(to_json({found.sql}) AS VARCHAR)"
    columns.append(named)
    for name, given in catalogue.attributes.items():
        columns.append(column(f"attributes.{name}", given).sql)
    named_columns = ", ".join(f"{sql} AS c{n}" for n, sql in enumerate(columns))
    where = "true"
    if catalogue.where is not None:
        where = column("where", catalogue.where).sql
    inner = f"SELECT __row, {named_columns} FROM {table.view} WHERE {where}"
    names = ", ".join(quoted(f"c{n}") for n in range(len(columns)))
    once = f"SELECT min(__row), {names} FROM ({inner}) GROUP BY {names}"
    return CatalogueQuery(
        owner=owner,
        text=inner if catalogue.files else once,
        attributes=tuple(catalogue.attributes),
        time_kind=time_kind,
    )
