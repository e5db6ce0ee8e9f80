"""Read the committed dashboards."""

from collections.abc import Iterator
from typing import Any

from srp4ctr.monitoring.dashboards import NAMES, load_boards


def board(name: str) -> dict[str, Any]:
    return load_boards()[name]


def panels(name: str) -> list[dict[str, Any]]:
    """Return the panels without the row headings."""
    return [panel for panel in board(name)["panels"] if panel["type"] != "row"]


def named_panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all panels of all dashboards, each with its board and title."""
    for name in NAMES:
        yield from ((f"{name}: {panel['title']}", panel) for panel in panels(name))


def expressions() -> dict[str, str]:
    """Return every target's PromQL, by a name that a recording rule may have."""
    return {
        f"board:{name}_{panel['id']}_{target['refId']}": target["expr"]
        .replace("$model_version", "(v[0-9]|[^u]).*")
        .replace("$__range", "30m")
        for name in NAMES
        for panel in panels(name)
        for target in panel.get("targets", [])
    }
