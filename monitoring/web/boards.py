"""Grafana's dashboard files → the page's list of dashboards, and each one's JSON.

The page's script draws the same files that Grafana is provisioned with.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "grafana" / "dashboards"
_FIRST = ("overview", "model_comparison", "inference_cost", "streams_features", "training")


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard in the page's navigation."""

    name: str
    title: str


def boards(folder: Path = FOLDER) -> Sequence[Board]:
    """Return the dashboards in ``folder``, the overview first."""
    names = sorted((path.stem for path in folder.glob("*.json")), key=_place)
    return [Board(name=name, title=str(board(name, folder)["title"])) for name in names]


def board(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Return one dashboard; ``LookupError`` if ``folder`` has none of that name."""
    files = {path.stem: path for path in folder.glob("*.json")}
    if name not in files:
        raise LookupError(f"there is no dashboard {name!r}")
    content: dict[str, Any] = json.loads(files[name].read_text(encoding="utf-8"))
    return content


def _place(name: str) -> tuple[int, str]:
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)
