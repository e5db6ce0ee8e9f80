"""What a person says of a file: which column is the user, item, time; which rows are what.

In: ``import.toml``, a ready mapping of ``formats/`` and settings of the command line. Out:
one ``Mapping``; what is unknown in it is an error with the nearest name.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.schema import NUMBER_SUFFIXES

DEFAULT_MAPPING = "import.toml"
Expression = str | list[str]
"""A column's name or SQL; of a list, the first that the file's columns allow."""
Kind = Literal["impression", "click", "behavior"]
TimeUnit = Literal["s", "ms", "us", "ns"]
MS_PER_UNIT: dict[TimeUnit, float] = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
FIRST_PLAUSIBLE_MS = 631_152_000_000  # 1990
UNKNOWN = "?"
"""A column that a guess does not know."""
_COLUMNS = ("user", "item", "time", "request", "position", "action", "value")

SYNONYMS = {
    "cart": r"(add_?(to)?_?)?(cart|basket)",
    "favourite": r"fav(ou?rite)?s?|bookmark(ed)?|wish_?list|star(red)?|collect",
    "buy": r"buy|purchased?|transaction|order(ed)?|pay(ment)?|checkout",
    "like": r"liked?|thumbs_?up|upvoted?",
    "dislike": r"dislike[sd]?|hate[sd]?|thumbs_?down|downvoted?",
    "hide": r"hid(e|den)|not_?interested|muted?|blocked?",
    "share": r"share[sd]?|forward(ed)?",
}
"""Words for the actions that the model has a code of its own for, as a guess finds them."""


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    user: Expression | None = None
    item: Expression | None = None
    time: Expression | None = None
    request: Expression | None = None
    position: Expression | None = None
    action: Expression | None = None
    """A word for all rows, or ``$column``: its value in each."""
    value: Expression | None = None
    files: list[str] = []
    """Patterns of file names; none: every file."""


class Rule(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which rows become one kind of event, and from which columns."""

    type: Kind
    where: Expression | None = None
    each: Expression | None = None
    """A list: each of its elements is a row of its own, ``each`` and ``each_index``."""


class Catalogue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the attributes of items, or of users, are."""

    attributes: dict[str, Expression] = {}
    named_values: Expression | None = None
    """A list of structs ``name``, ``value``: attributes that name themselves."""
    files: list[str] = []
    """Patterns of the catalogue's file names; none: the events' own files."""
    where: Expression | None = None
    time: Expression | None = None
    """Since when the attributes hold. None: since the first event."""


class Items(Catalogue, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where items' attributes are."""

    item: Expression


class Users(Catalogue, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where users' attributes are."""

    user: Expression


class CsvForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a CSV file does not say of itself."""

    delimiter: str = ""
    columns: list[str] = []
    """The names where no header has them."""
    encoding: str = "utf-8"
    quote: str = '"'
    """What stands around texts with delimiters; "" where the mark is a plain character."""
    skip: int = 0
    """Lines before the header, or before the first row."""


class Mapping(_Strict, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which column is what, and which rows are impressions, clicks, behaviours."""

    description: str = ""
    time_unit: TimeUnit | None = None
    time_zone: str = "UTC"
    time_format: str | None = None
    """As ``datetime.strptime`` takes it. None: ISO 8601."""
    impression: Expression | None = None
    click: Expression | None = None
    behavior: Expression | None = None
    events: list[Rule] = []
    actions: dict[str, str] = {}
    """An action as the file has it → as it is published."""
    context: dict[str, Expression] = {}
    """Fields of a request: alike for all impressions of it."""
    numbers: dict[str, Expression] = {}
    """Numbers of a candidate in its request, a price: of each impression its own."""
    sort: bool = False
    items: Items | None = None
    users: Users | None = None
    csv: CsvForm = CsvForm()

    @property
    def catalogues(self) -> Sequence[Items | Users]:
        """Where attributes are, of items and of users."""
        return [each for each in (self.items, self.users) if each is not None]

    def rules(self) -> Sequence[Rule]:
        """Return all rules, each with the mapping's columns where it has none.

        Raises ``MistakeError`` where a rule lacks a column, or where there is no rule.
        """
        self._check_that_columns_are_filled_in()
        kinds: tuple[Kind, ...] = ("impression", "click", "behavior")
        found = [
            Rule(type=kind, where=where)
            for kind in kinds
            if (where := getattr(self, kind)) is not None
        ]
        rules = [self._with_columns(rule) for rule in [*found, *self.events]]
        if not rules and not self.catalogues:
            raise MistakeError(
                'the mapping does not say which rows are events: click = "true" makes a '
                'click of each, behavior = "true" with action = "view" a view'
            )
        for rule in rules:
            _check_columns(rule)
        _check_number_names(self.numbers)
        if rules:
            self._check_that_columns_are_read([rule.type for rule in rules])
        return rules

    def _check_that_columns_are_filled_in(self) -> None:
        open_ = [name for name in _COLUMNS if getattr(self, name) == UNKNOWN]
        if open_:
            names = " and ".join(f'{name} = "{UNKNOWN}"' for name in open_)
            raise MistakeError(
                f"the mapping has {names}, which a guess leaves open: fill in which column "
                f"has the {' and the '.join(open_)}, in the mapping or by --set "
                f"{open_[0]}=COLUMN"
            )

    def _check_that_columns_are_read(self, kinds: Sequence[Kind]) -> None:
        for name in _COLUMNS:
            if getattr(self, name) and not any(has_field(kind, name) for kind in kinds):
                have = " and ".join(f"{kind}s" for kind in _KINDS[name])
                raise MistakeError(
                    f"the mapping has `{name}`, which only {have} have, and no rule makes "
                    "any: leave it out, or add such a rule"
                )

    def _with_columns(self, rule: Rule) -> Rule:
        missing = {
            name: getattr(self, name)
            for name in (*_COLUMNS, "files")
            if not getattr(rule, name)
        }
        if rule.type == "behavior" and rule.files:
            # Other files seldom have the impressions' request, and behaviours need none.
            missing.pop("request", None)
        return msgspec.structs.replace(rule, **missing)


def has_field(kind: str, name: str) -> bool:
    """Return whether events of ``kind`` have what the column ``name`` says."""
    return kind in _KINDS.get(name, (kind,))


_KINDS = {
    "action": ("behavior",),
    "value": ("behavior",),
    "position": ("impression",),
}
_NEEDED = {
    "impression": ("user", "item", "time", "request", "position"),
    "click": ("user", "item", "time"),  # without a request each is one of its own
    "behavior": ("user", "item", "time", "action"),
}
_WHY = {
    "request": (
        "what was shown together? Without it nobody knows what was shown: leave "
        "`impression` out, and training samples what each click was preferred to"
    ),
    "position": 'its place from the top, 0 first; position = "0" where nobody knows',
    "action": 'a word (action = "view"), or a column with a $ (action = "$event_type")',
}


def _check_columns(rule: Rule) -> None:
    for name in _NEEDED[rule.type]:
        if getattr(rule, name) is None:
            why = _WHY.get(name, f'which column has it? {name} = "COLUMN"')
            raise MistakeError(f"the mapping has no `{name}` for {rule.type}: {why}")


def _check_number_names(names: Iterable[str]) -> None:
    for name in names:
        if name.endswith(NUMBER_SUFFIXES):
            raise MistakeError(
                f"[numbers] {name}: answers name their own columns so "
                f"({', '.join(NUMBER_SUFFIXES)}); give the number another name"
            )


def read_mapping(path: Path) -> Mapping:
    """Return the mapping in ``path``; raises ``MistakeError`` that names what is wrong."""
    try:
        return as_mapping(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MistakeError(f"{path} is not TOML: {error}") from error


def as_mapping(content: dict[str, Any], source: str) -> Mapping:
    """Return ``content`` as a mapping; ``source`` is its name in errors."""
    try:
        mapping = msgspec.convert(content, Mapping)
    except msgspec.ValidationError as error:
        raise MistakeError(f"{source}: {_explained(str(error))}") from error
    try:
        ZoneInfo(mapping.time_zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        zone = mapping.time_zone
        raise MistakeError(
            f"{source}: time_zone {zone!r} is not known; write Europe/Berlin or UTC"
        ) from error
    return mapping


def ready_formats() -> dict[str, Mapping]:
    """Return the mappings that come with the package, by name."""
    return {name: ready_format(name) for name in _format_names()}


def ready_format(name: str) -> Mapping:
    """Return the ready mapping ``name``; raises ``MistakeError`` with the nearest name."""
    if name not in (names := _format_names()):
        raise MistakeError(f"there is no format {name!r}{nearest(name, names)}")
    text = _formats().joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return as_mapping(tomllib.loads(text), f"format {name}")


def changed(mapping: Mapping, settings: Iterable[str]) -> Mapping:
    """Return ``mapping`` with ``settings``, each ``key=value`` or ``table.key=value``."""
    content = msgspec.to_builtins(mapping)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise MistakeError(f"--set {setting}: write KEY=VALUE, such as user=visitor_id")
        table, names = content, key.strip().split(".")
        for name in names[:-1]:
            inner = table.get(name)
            table[name] = table = {} if inner is None else inner
            if not isinstance(table, dict):
                raise MistakeError(f"--set {setting}: {name} is not a table")
        table[names[-1]] = _typed(names[-1], value.strip())
    return as_mapping(content, "--set")


def _typed(key: str, value: str) -> Any:
    """Return what is typed for ``key`` as TOML would have it."""
    if key in {"files", "columns"}:
        return value.split(",")
    if key == "sort":
        return {"true": True, "false": False}.get(value, value)
    return int(value) if key == "skip" and value.isdigit() else value


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean …? Known: …`` for an unknown ``name``."""
    names = list(known)
    folded = {each.lower(): each for each in names}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    hint = f"; did you mean {folded[close[0]]}?" if close else "."
    return f"{hint} There are: {', '.join(names)}"


def _format_names() -> list[str]:
    found = (path.name for path in _formats().iterdir())
    return sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))


def _formats() -> Any:
    return resources.files("srp4ctr.streams.imports") / "formats"


def _explained(message: str) -> str:
    if wrong := re.search(r"Invalid enum value (.+) - at `\$\.(\w+)`", message):
        kinds = get_args(get_type_hints(Mapping)[wrong[2]])  # Literal[...] | None
        allowed = ", ".join(arg for kind in kinds for arg in get_args(kind))
        return f"{wrong[2]} is {wrong[1]}; one of: {allowed}"
    unknown = re.search(r"unknown field `(\w+)`(?: - at `\$\.?(\w*))?", message)
    if not unknown:
        return message
    tables = {"events": Rule, "items": Items, "users": Users, "csv": CsvForm}
    fields = tables.get(unknown[2] or "", Mapping).__struct_fields__
    return f"there is no key {unknown[1]!r}{nearest(unknown[1], fields)}"
