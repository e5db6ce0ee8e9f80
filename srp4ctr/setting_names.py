"""Old names of settings → today's: a removed or renamed one still loads, with a warning."""

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

PREFIX = "SRP4CTR_"
ENVIRONMENT = "the environment"
Key = tuple[str, ...]
"""Section, perhaps sections within it, and name."""
# Setting → the release that removed it.
REMOVED: Mapping[Key, str] = {
    ("triton", "stored_states_s"): "0.2.0",
    ("training", "max_seconds"): "0.2.0",
    ("training", "layer_decay"): "0.2.0",
    **{
        ("training", name): "0.3.0"
        for name in (
            "patience",
            "max_full_softmax_items",
            "mask_ratio",
            "num_oov_rows",
            "warm_pretrain_epochs",
            "warm_finetune_epochs",
            "warm_learning_rate_scale",
            "tensorboard_dir",
            "mlflow_experiment",
            "checkpoint_every_s",
        )
    },
    **{
        ("training", "model", name): "0.3.0"
        for name in (
            "num_heads",
            "num_cross_layers",
            "num_spans",
            "use_cross_attention",
            "use_querying",
            "use_all_layers",
        )
    },
}
# Setting → its name since 0.2.0; 0.3.0 reads only that.
RENAMED: Mapping[Key, Key] = {
    **{
        ("local", name): ("embedded", name)
        for name in ("data_dir", "serving_dir", "broker", "store", "ports")
    },
    ("local", "audit_log"): ("audit", "log"),
    ("local", "actor"): ("audit", "actor"),
}
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
OLD_SECTIONS = {section for section, _ in RENAMED}
_log = logging.getLogger(__name__)


def variable_of(key: Key) -> str:
    """Return the environment variable of setting ``key``."""
    return f"{PREFIX}{'__'.join(key).upper()}"


def with_current_names(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return ``values`` of one source under today's names, and warn of each old name.

    Where a setting has both names, the value under today's is kept.
    """
    kept = dict(values)
    for key in (*REMOVED, *RENAMED):
        *sections, name = key
        inside = _inside(kept, sections)
        if name not in inside:
            continue
        _warn_once(key, source)
        kept = _with(kept, sections, {n: inside[n] for n in inside if n != name})
        if key in RENAMED:
            section, name_now = RENAMED[key]
            current = kept.get(section, {})
            if isinstance(current, Mapping):  # else its section is refused
                kept[section] = {name_now: inside[name], **current}
    return {name: each for name, each in kept.items() if each or name not in OLD_SECTIONS}


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


def old_sections(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of variables of sections that no longer exist.

    Raises ``ValueError`` or ``TypeError`` where such a section's own variable is no object.
    """
    found: dict[str, Any] = {}
    for section in OLD_SECTIONS:
        whole = variable_of((section,))
        for variable, text in environment.items():
            name = variable.upper()
            if name == whole:
                found[section] = dict(json.loads(text)) | found.get(section, {})
            elif name.startswith(f"{whole}__"):
                inside = found.setdefault(section, {})
                inside[name.removeprefix(f"{whole}__").lower()] = text
    return found


@functools.cache
def _warn_once(key: Key, source: str) -> None:
    """Warn of an old name; a command reads its settings more than once."""
    is_variable = source == ENVIRONMENT
    name = variable_of(key) if is_variable else ".".join(key)
    if key in RENAMED:
        current = RENAMED[key]
        now = variable_of(current) if is_variable else ".".join(current)
        _log.warning(
            "%s: the setting %s is named %s since 0.2.0; 0.3.0 will refuse the old name",
            source,
            name,
            now,
        )
        return
    _log.warning(
        "%s: the setting %s was removed in %s and is ignored: docs/decisions/ says why",
        source,
        ".".join(key),
        REMOVED[key],
    )
