"""A column's name and values → what it may be: users, times, ratings, actions, flags."""

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from srp4ctr.streams.imports.mapping import (
    FIRST_PLAUSIBLE_MS,
    MS_PER_UNIT,
    SYNONYMS,
    TimeUnit,
)
from srp4ctr.streams.imports.tables import Column

NAMES = {
    "user": r"(user|visitor|customer|member|account|person|reader|reviewer|listener|viewer"
    r"|buyer|shopper|subscriber|guest|client|device|session|kunde|nutzer|usuario|cliente)"
    r"_?(id)?|uid|u|who|cookie(_?id)?|sid",
    "item": r"(click(ed)?_?)?(item|product|article|video|movie|content|news|ad|asset|sku"
    r"|track|song|artist|book|post|game|recipe|hotel|job|course|offer|story|page|film|clip"
    r"|artikel|produkt|producto|produit|articulo)_?(id)?|iid|i|what|asin|isbn",
    "time": r"(event_?|click_?|impression_?|view_?)?(time|ts|timestamp)"
    r"(_?stamp)?(_?(ms|s|us))?|date(_?time)?|(created|occurred|clicked|shown|seen|viewed"
    r"|reviewed|rated|played|watched|visited|bought|ordered|logged)_?(at|on)|at|t|when"
    r"|zeit(punkt)?|datum|fecha",
    "request": r"(request|impression|ranking|slate|list|page_?view|query|search|visit)_?id"
    r"|request|visit",
    "position": r"position|pos|rank|slot|place",
    "action": r"action(_?type)?|behaviou?r(_?type)?|event(_?type|_?name)?|type"
    r"|feedback_?type|interaction(_?type)?|activity(_?type)?",
    "value": r"rating|score|stars|value|price|dwell(_?time)?|read_?time(_?s)?|duration",
}
LAST = ("session", "sid", "device", "cookie", "date", "datum", "type", "page", "job")
MAX_ACTIONS = 30
SHOWN = r"impressions?|impr?|show(n|ed)?|seen|expos(e|ed|ure)|display(ed)?|served"
CLICK = r"clicks?|clicked|clk|(item|product|content|article)_?click(ed)?|click_?\w+"
VIEW = (
    r"pv|(product|item|article|content|page|detail)?_?(view|detail)(s|ed)?|view_?\w+"
    r"|(play|open|listen|watch|stream)(s|ed)?|reads?"
)
_ACTIONS = (SHOWN, CLICK, VIEW, *SYNONYMS.values())
_CLICKED = r"(is_?)?click(ed|s)?|label"
_MAX_GRADES = 11  # 0 to 10
_LAST_MS = 2_524_608_000_000  # 2050: the last time of our days
_DAYS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y%m%d")
_CLOCKS = ("", " %H:%M:%S", " %H:%M", " %H:%M:%S.%f", " %I:%M:%S %p", " %I:%M %p")


def units_of(values: Sequence[Any]) -> list[TimeUnit]:
    """Return the units in which all numbers are times between 1990 and 2050."""
    numbers = list(map(float, values))
    return [
        unit
        for unit, factor in MS_PER_UNIT.items()
        if numbers and all(FIRST_PLAUSIBLE_MS <= n * factor <= _LAST_MS for n in numbers)
    ]


def is_time(type_: str, values: Sequence[Any]) -> bool:
    """Return whether values of DuckDB's ``type_`` are times of our days."""
    kind = Column(sql="", type=type_).time_kind
    if kind == "number":
        return len(units_of(values)) == 1
    return kind != "text" or bool(formats_of(values))


def formats_of(values: Sequence[Any]) -> list[str]:
    """Return the formats in which all texts are times of our days; none for ISO."""
    texts = list(dict.fromkeys(map(str, values)))
    if not texts or _are_times(texts, ""):
        return []
    forms = [day + clock for day in _DAYS for clock in _CLOCKS]
    return [form for form in forms if _are_times(texts, form)]


def _are_times(texts: Sequence[str], form: str) -> bool:
    with suppress(ValueError):
        for text in texts:
            at = datetime.strptime(text, form) if form else datetime.fromisoformat(text)
            if not 1990 <= at.year <= 2050:
                return False
        return True
    return False


def is_flag(name: str, values: Sequence[Any]) -> bool:
    """Return whether a column says with 0 and 1 whether what was shown was clicked."""
    return are_called(name, _CLICKED) and {str(value) for value in values} <= {"0", "1"}


def is_rating(name: str, values: Sequence[Any]) -> bool:
    """Return whether a column has users' ratings: a score is one if it has few grades."""
    grades = set(values)
    are_few = 1 < len(grades) <= _MAX_GRADES and all(
        isinstance(grade, int | float) and 0 <= grade <= 10 for grade in grades
    )
    return are_called(name, "rating|stars") or (are_called(name, "score") and are_few)


def are_actions(values: Sequence[Any]) -> bool:
    """Return whether a column has few texts, two or more of which are names of actions."""
    texts = {value for value in values if isinstance(value, str)}
    if not 2 <= len(texts) <= MAX_ACTIONS:
        return False
    return sum(any(is_called(text, p) for p in _ACTIONS) for text in texts) >= 2


def is_called(action: str, pattern: str) -> bool:
    """Return whether an action has a name like ``pattern``."""
    return bool(re.fullmatch(pattern, snake(action)))


def samples(values: Sequence[Any]) -> str:
    """Return up to three of ``values``, for a comment."""
    found = list(dict.fromkeys(str(value)[:24] for value in values))[:3]
    return ", ".join(each.replace("\n", " ") for each in found) or "none"


def snake(name: str) -> str:
    """Return ``name`` in lower case, with _ between its words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|\W+", "_", name).lower()


def are_called(name: str, pattern: str) -> bool:
    """Return whether a column has a name like ``pattern``, or ends in one if it is nested.

    ``properties.product_id`` does, where ``pattern`` matches ``product_id``.
    """
    parts = name.split(".")
    tails = (snake("_".join(parts[first:])) for first in range(len(parts)))
    return any(re.fullmatch(pattern, tail) for tail in tails)
