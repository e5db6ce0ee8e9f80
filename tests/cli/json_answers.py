"""What a script does with ``--json``: it validates the object, then reads it."""

import copy
import json
from typing import Any

from jsonschema import Draft202012Validator

from srp4ctr.cli.json_output import OUTPUTS
from tests.structure.source_tree import ROOT

SCHEMAS = ROOT / "docs" / "schemas"


def committed_schema(command: str) -> dict[str, Any]:
    """Return the published schema of a command."""
    path = SCHEMAS / f"{command.replace(' ', '-')}.schema.json"
    schema: dict[str, Any] = json.loads(path.read_text())
    return schema


def without_more(schema: dict[str, Any]) -> dict[str, Any]:
    """Return ``schema`` as one that refuses fields which it does not name."""
    closed = copy.deepcopy(schema)
    for each in closed["$defs"].values():
        if "properties" in each:
            each["additionalProperties"] = False
    return closed


def answer(command: str, printed: str) -> Any:
    """Return what ``command`` printed on standard output: one line, of its schema."""
    assert command in OUTPUTS
    (line,) = printed.splitlines()
    found = json.loads(line, parse_constant=refuse)
    Draft202012Validator(without_more(committed_schema(command))).validate(found)
    return found


def refuse(constant: str) -> None:
    """Fail for NaN and Infinity, which other languages cannot read."""
    raise AssertionError(f"{constant} is not JSON")


def problem(command: str, printed: str) -> dict[str, Any]:
    """Return the error that ``command`` printed as its only object."""
    found = answer(command, printed)
    assert set(found) == {"error"}
    error: dict[str, Any] = found["error"]
    return error
