"""All dashboards → docs/panels.md: every panel with the words that its own ⓘ shows."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from srp4ctr.monitoring.dashboards import FOLDER

PAGE = FOLDER.resolve().parents[2] / "docs" / "panels.md"
_HEAD = """# What each panel shows

Written by `make dashboards`, from the words that a panel's own ⓘ shows; not to be edited
here. What the figures mean, and which wait for labels:
[what the monitor shows](monitoring.md).
"""


def page(names: Iterable[str]) -> str:
    """Return the page of the dashboards whose files are named so."""
    lines = [_HEAD]
    for name in names:
        board = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        lines += [f"## {board['title']}", "", *_table(board["panels"]), ""]
    return "\n".join(lines)


def _table(panels: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield "| panel | what it shows |"
    yield "|---|---|"
    for panel in panels:
        if panel["type"] == "row":
            yield f"| **{panel['title']}** | |"
        else:
            said = " ".join(panel["description"].split()).replace("|", "\\|")
            yield f"| {panel['title']} | {said} |"
