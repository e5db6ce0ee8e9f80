"""Files in anyone's columns → a mapping to read and change, with the reason of each line.

Files of the same columns are one kind, of which the first is looked at. The kind that looks
most like a log is the log; others are catalogues, further events, or left out by name.
"""

import itertools
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import msgspec

from srp4ctr.errors import MistakeError
from srp4ctr.streams.imports.draft import MANY, Draft
from srp4ctr.streams.imports.guess_rows import guess_events, time_by_value
from srp4ctr.streams.imports.guess_values import (
    MAX_ACTIONS,
    NAMES,
    are_called,
    is_flag,
    is_time,
    snake,
)
from srp4ctr.streams.imports.mapping import CsvForm, ready_formats
from srp4ctr.streams.imports.queries import compiled
from srp4ctr.streams.imports.readers import has_open_quotes, open_table
from srp4ctr.streams.imports.rows import as_vectors
from srp4ctr.streams.imports.sql_text import quoted, toml
from srp4ctr.streams.imports.tables import Table, files_in, matches, opened

_LONG_TEXT = 200  # characters: the body of an article is no attribute
# Share of the log's ids: a column without repetition that has this share has the same ids.
_IDS_SHARED = 0.5
_TITLES = ("title", "name")
_OWNERS = ("item", "user")
_OWN = "# Each item has one value of each"
_GENERIC = ("clicks",)  # a ready mapping that says less than a guess
_MAX_CONTEXT_NUMBERS = 1_000  # different ones: an hour, a version
_TEXTS_REPEATED = 2  # rows per text of a context: a device, a place
_OWNER_REPEATED = 1.2  # rows per user or item: else each column has one value of each


@dataclass(frozen=True, slots=True)
class _Kind:
    """The files of the same columns, and the first of them."""

    draft: Draft
    names: list[str]

    @property
    def table(self) -> Table:
        return self.draft.table

    @property
    def likeness(self) -> float:
        """How much it looks like a log of what users did."""
        weights = {
            **dict.fromkeys(("user", "item", "time"), 1.0),
            "action": 0.5,
            "value": 0.5,
            "position": 0.25,
        }
        found = sum(w for key, w in weights.items() if self.draft.named(key))
        found += 1.0 if {"year", "month", "day"} <= set(self.table.columns) else 0.0
        flags = any(is_flag(name, v) for name, v in self.draft.values.items())
        found += 0.75 if flags else 0.0
        return found + 0.001 * len(self.table.columns)  # README.txt has one


def guess_mapping(files: Sequence[str], form: CsvForm | None = None) -> str:
    """Return a mapping for ``files`` as TOML, with its reasons as comments.

    ``form`` is what a CSV file does not say of itself. Raises ``MistakeError`` where no
    file has a row.
    """
    form = form or CsvForm()
    paths = files_in(files)
    with opened(paths) as database:
        kinds, unread = _kinds(database, paths, form)
        log = max(kinds, key=lambda kind: kind.likeness)
        if log.table.is_unnamed and not form.columns:
            named = msgspec.structs.replace(form, columns=_names_by_value(log.draft))
            note = "# The file has no header: the names in [csv] are guessed by values."
            return f"{note}\n{guess_mapping(files, named)}"
        if form.quote and has_open_quotes(database, paths, form):
            return guess_mapping(files, msgspec.structs.replace(form, quote=""))
        draft, others = log.draft, [kind for kind in kinds if kind is not log]
        draft.lines += _title(log)
        if others:
            pattern = ", ".join(map(toml, _patterns(log, others)))
            draft.add(f"files = [{pattern}]", "the other files have other columns: below")
        guess_events(draft)
        draft.lines += [f"# Not looked at: {text}" for text in unread]
        own, catalogues = list(draft.lines), list(_others(log, others))
        own += itertools.dropwhile(lambda line: not line.startswith(_OWN), catalogues)
        draft.lines += [*catalogues, *_unused(draft, own)]
    draft.lines += _csv_lines(form)
    return "\n".join(draft.lines) + "\n"


def _kinds(
    database: Any, paths: Sequence[Path], form: CsvForm
) -> tuple[list[_Kind], list[str]]:
    """Return the kinds of files that have rows, and what is wrong with the others."""
    found: dict[tuple[str, ...], _Kind] = {}
    unread = []
    for number, path in enumerate(paths):
        try:
            table = open_table(database, path, form, number=number, skip_bad=True)
            if kind := found.get(tuple(table.columns)):
                kind.names.append(path.name)
                continue
            draft = Draft(table)
        except MistakeError as error:
            unread.append(" ".join(str(error).split()))
            continue
        if draft.num_rows:
            found[tuple(table.columns)] = _Kind(draft, [path.name])
        else:
            unread.append(f"{path} has no rows to look at")
    if not found:
        raise MistakeError("; ".join(unread))
    return list(found.values()), unread


def _csv_lines(form: CsvForm) -> Iterator[str]:
    if form != CsvForm():
        yield from ("", "[csv]")
    for name, default in msgspec.structs.asdict(CsvForm()).items():
        if (given := getattr(form, name)) != default:
            texts = f"[{', '.join(map(toml, given))}]" if name == "columns" else toml(given)
            yield f"{name} = {given if isinstance(given, int) else texts}"


def _names_by_value(draft: Draft) -> list[str]:
    """Return names for columns without a header: user and item come first in most files."""
    time = time_by_value(draft)
    names = {time: "timestamp"} if time else {}
    for column, values in draft.values.items():
        few = len(set(values)) <= MAX_ACTIONS and isinstance(next(iter(values), 0), str)
        if few and len(values) > MAX_ACTIONS and "action" not in names.values():
            names.setdefault(column, "action")
    free = (column for column in draft.table.columns if column not in names)
    names |= zip(free, ("user_id", "item_id"), strict=False)
    return [names.get(column, column) for column in draft.table.columns]


def _title(log: _Kind) -> Iterator[str]:
    draft, name = log.draft, log.names[0]
    same = f", the first of {len(log.names)} files with its columns"
    yield (
        f"# Guessed from {draft.num_rows:,} rows of {name}"
        f"{same if len(log.names) > 1 else ''}: read it, then change it."
    )
    columns = list(log.table.columns)
    yield f"# Its columns: {', '.join(columns)}"
    for each in _fitting(log.table):
        yield f"# A ready mapping knows these columns, and needs no guess: --format {each}"


def _fitting(table: Table) -> Iterator[str]:
    """Yield the names of ready mappings whose columns ``table`` has."""
    for name, mapping in ready_formats().items():
        rules = [r for r in mapping.rules() if not r.files or matches(table.path, r.files)]
        try:
            for rule in rules:
                compiled(mapping, table, [rule])
        except MistakeError:
            continue
        if rules and name not in _GENERIC:
            yield name


def _others(log: _Kind, others: Sequence[_Kind]) -> Iterator[str]:
    """Yield what the ``others`` are: the catalogue of items, of users, further events."""
    catalogues: dict[str, Iterable[str]] = {}
    for kind in others:
        owners = _owners(kind, log)
        key = next(iter(owners), "")
        columns = f"{', '.join(kind.names)} ({', '.join(kind.table.columns)})"
        if len(owners) == 2:
            yield from _further_events(kind, [log, *others], log, owners)
        elif why := _left_out(kind, owners, catalogues):
            yield from ("", f"# Left out, for {why}: {columns}")
        else:
            pattern = ", ".join(map(toml, _patterns(kind, [log, *others])))
            attributes = _attributes(kind.draft, key, owners[key])
            catalogues[key] = [f"files = [{pattern}]", *attributes]
    if "item" not in catalogues and (own := list(_own_attributes(log))):
        catalogues["item"] = own
    for key, lines in catalogues.items():
        yield from ("", f"[{key}s]", *lines)


def _left_out(kind: _Kind, owners: dict[str, str], catalogues: Container[str]) -> str:
    if not owners:
        return "no column has users or items"
    [(key, column)] = owners.items()
    if {"property", "value"} <= set(kind.table.columns):
        return "`where` must pick one property"
    if kind.table.repeated(column) > 0.5:
        return f"it has several rows of most {key}s"
    return f"[{key}s] is of one kind of file" if key in catalogues else ""


def _owners(kind: _Kind, log: _Kind) -> dict[str, str]:
    """Return the columns of items' and users' ids: by name, else by the log's own ids."""
    by_name = {key: named[0] for key in _OWNERS if (named := kind.draft.named(key))}
    if by_name:
        return by_name
    by_value = (
        (key, _column_of(log.draft.chosen[key], kind, log))
        for key in _OWNERS
        if key in log.draft.chosen
    )
    return dict([(key, name) for key, name in by_value if name][:1])


def _column_of(ids: str, kind: _Kind, log: _Kind) -> str | None:
    """Return the column without repetition that has the log's ``ids``."""
    for name in kind.table.columns:
        column = f"CAST({quoted(name)} AS VARCHAR)"
        [(share,)] = kind.table.rows(
            f"SELECT avg(CAST(id IN (SELECT {column} FROM {kind.table.view}) AS INTEGER)) "
            f"FROM (SELECT DISTINCT CAST({quoted(ids)} AS VARCHAR) AS id "
            f"FROM {log.table.view} LIMIT 1000)"
        )
        if not kind.table.repeated(name) and (share or 0.0) >= _IDS_SHARED:
            return name
    return None


def _further_events(
    kind: _Kind, kinds: Sequence[_Kind], log: _Kind, owners: dict[str, str]
) -> Iterator[str]:
    """Yield a rule for files with users and items; a comment where it is not clear."""
    action, time = kind.draft.named("action"), kind.draft.named("time")
    lines = [f"files = [{', '.join(map(toml, _patterns(kind, kinds)))}]"]
    lines += ['type = "behavior"', 'where = "true"']
    lines.append(f'action = "${action[0]}"' if action else 'action = "view"')
    for key, name in {**owners, **({"time": time[0]} if time else {})}.items():
        if name != log.draft.chosen.get(key):
            lines.append(f"{key} = {toml(name)}")
    mark = "" if action and time else "# "
    yield from ("", f"# {kind.names[0]} has users and items, too: further events?")
    yield f"{mark}[[events]]"
    yield from (mark + line for line in lines)


def _attributes(draft: Draft, key: str, owner: str) -> Iterator[str]:
    """Yield the lines of a catalogue whose ids are in column ``owner``."""
    yield f"{key} = {toml(owner)}"
    yield from ("", f"[{key}s.attributes]")
    for name, values in draft.values.items():
        texts = list(map(str, values))
        if name == owner or not texts:
            continue
        key = _attribute(name)
        line = f"{key} = {toml(name)}"
        is_text = any(isinstance(value, str) for value in values)
        if vectors := as_vectors(name, values):
            yield f"{key} = {toml(vectors)}  # embeddings"
        elif sum(map(len, texts)) / len(texts) > _LONG_TEXT:
            yield f"# {line}  # long texts are no attributes"
        elif is_text and key not in _TITLES and len(set(texts)) == len(texts) > 20:
            yield f"# {line}  # each has its own, which no other item shares"
        elif is_text and sum("|" in text for text in texts) > 0.3 * len(texts):
            split = f"string_split({quoted(name)}, '|')"
            yield f"{key} = {toml(split)}"
        else:
            yield line


def _own_attributes(log: _Kind) -> Iterator[str]:
    """Yield the lines of attributes in the log itself: an item has one value of each."""
    if (item := log.draft.chosen.get("item")) is None:
        return
    free = [n for n in log.table.columns if n not in log.draft.chosen.values()]
    free = [n for n in free if len(set(map(str, log.draft.values[n]))) > 1]
    pairs = (f"count(DISTINCT ({quoted(item)}, {quoted(n)}))" for n in free)
    [(rows, items, *numbers)] = log.table.rows(
        f"SELECT {', '.join(['count(*)', f'count(DISTINCT {quoted(item)})', *pairs])} "
        f"FROM (SELECT * FROM {log.table.view} LIMIT {MANY})"
    )
    own = [n for n, pair in zip(free, numbers, strict=True) if pair == items]
    if own and rows > _OWNER_REPEATED * items:
        yield f"{_OWN}: {', '.join(own)}"
        yield f"item = {toml(item)}"
        yield from ("", "[items.attributes]")
        yield from (f"{_attribute(n)} = {toml(n)}" for n in own)


def _attribute(column: str) -> str:
    """Return a key of TOML for an attribute that is called like ``column``."""
    name = re.sub(r"\W+", "_", snake(column)).strip("_") or "column"
    return name if name.isascii() else toml(name)


def _patterns(kind: _Kind, others: Sequence[_Kind]) -> list[str]:
    """Return patterns of the files of ``kind`` only, or else all their names."""
    if len(kind.names) == 1:
        return kind.names
    patterns = sorted({re.sub(r"\d+", "*", name) for name in kind.names})
    strange = (name for other in others if other is not kind for name in other.names)
    is_wider = any(fnmatch(n, pattern) for n in strange for pattern in patterns)
    return kind.names if is_wider else patterns


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spread:
    """How many rows and values a column has, and whether they follow from others."""

    rows: int
    all_rows: int
    values: int
    owners: frozenset[str]
    """Of user and item, each that has one value; request: likewise where there is one."""


def _unused(draft: Draft, lines: Iterable[str]) -> Iterator[str]:
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
    is_few = spread.values <= _MAX_CONTEXT_NUMBERS if is_number else is_repeated
    if has_impressions and is_few:
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
            key for key, ids, both in pairs if ids == both and rows > _OWNER_REPEATED * ids
        ),
    )


def _key(name: str) -> str:
    key = re.sub(r"\W+", "_", name).strip("_").lower()
    return f'{key} = "{name}"'
