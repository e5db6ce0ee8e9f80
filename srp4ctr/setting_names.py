"""The environment variables of settings: their names, and those that hold JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

PREFIX = "SRP4CTR_"
ENVIRONMENT = "the environment"
Key = tuple[str, ...]
"""Section, perhaps sections within it, and name."""
# What follows from another setting, which is to be set instead.
DERIVED: Mapping[Key, str] = {
    ("features", "partitions"): "kafka.partitions",
    ("features", "action_codes"): "streams.action_codes",
}
# Settings that are lists: a variable has them as JSON.
LISTS: tuple[Key, ...] = (
    ("features", "candidate_numbers"),
    ("features", "item_fields"),
    ("features", "user_fields"),
    ("monitoring", "certificate_files"),
    ("triton", "replicas"),
)
_LIST = list, "list in JSON: […, …]"
# Settings that are tables with the user's own names: a variable has them as JSON, too.
TABLES: tuple[Key, ...] = (("streams", "action_codes"), ("monitoring", "tls_endpoints"))
# Variables with our prefix that are not settings: the paths of the file and the test data,
# and compose.yaml's own: its address, its secrets, the operator.
NOT_SETTINGS = {
    "SRP4CTR_SETTINGS",
    "SRP4CTR_DATA",
    "SRP4CTR_BIND",
    "SRP4CTR_SECRETS",
    "SRP4CTR_ACTOR",
}


def variable_of(key: Key) -> str:
    """Return the environment variable of setting ``key``."""
    return f"{PREFIX}{'__'.join(key).upper()}"


def with_lists(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` of the environment with its lists and tables.

    Raises ``ValueError`` that names the variable of one that is not JSON.
    """
    kept = dict(values)
    for *sections, name in (*LISTS, *TABLES):
        is_table = (*sections, name) in TABLES
        kind, form = (dict, 'object in JSON: {"NAME": …}') if is_table else _LIST
        inside = _inside(kept, sections)
        if not isinstance(text := inside.get(name), str):
            continue
        try:
            read = json.loads(text)
        except ValueError:
            read = None
        if not isinstance(read, kind):
            variable = variable_of((*sections, name))
            raise ValueError(f"{variable} is no {form}")
        kept = _with(kept, sections, {**inside, name: read})
    return kept


def _inside(values: Any, sections: Sequence[str]) -> Mapping[str, Any]:
    """Return what ``values`` have in a section of sections; {} where it is no section."""
    for section in sections:
        values = values.get(section) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping) else {}


def _with(
    values: Mapping[str, Any], sections: Sequence[str], inside: Mapping[str, Any]
) -> dict[str, Any]:
    """Return ``values`` with ``inside`` in that section."""
    if not sections:
        return dict(inside)
    first, *rest = sections
    return {**values, first: _with(values[first], rest, inside)}
