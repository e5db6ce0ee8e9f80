"""All dashboards → the JSON files that Grafana and the project's own page read.

The output is the same in every run: keys are sorted. docs/panels.md has every panel with
the description behind its ⓘ.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from srp4ctr.monitoring.dashboards import (
    FOLDER,
    inference_cost,
    model_comparison,
    overview,
    servers,
    streams_features,
    training,
)

BOARDS = {
    "overview": overview.BOARD,
    "model_comparison": model_comparison.BOARD,
    "inference_cost": inference_cost.BOARD,
    "servers": servers.BOARD,
    "streams_features": streams_features.BOARD,
    "training": training.BOARD,
}
PAGE = FOLDER.resolve().parents[2] / "docs" / "panels.md"
_HEAD = """# What each panel shows

For users of the dashboards. At the end you know what a panel shows, and where to find it:

```console
$ srp4ctr monitor open
```

Each description is also behind the panel's ⓘ. [What the monitor shows](monitoring.md)
explains the figures, and which wait for labels. `make dashboards` generates this page.
"""


def text(name: str) -> str:
    """Return the content of the file of the dashboard ``name``."""
    return json.dumps(BOARDS[name], indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def page() -> str:
    """Return the page of all panels."""
    found = [_HEAD]
    for board in BOARDS.values():
        found += [f"## {board['title']}", "", *_table(board["panels"]), ""]
    return "\n".join(found)


def write() -> None:
    """Write every dashboard's file, and the page of all panels."""
    for name in BOARDS:
        (FOLDER / f"{name}.json").write_text(text(name), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")


def _table(panels: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield "| panel | what it shows |"
    yield "|---|---|"
    for panel in panels:
        if panel["type"] == "row":
            yield f"| **{panel['title']}** | |"
        else:
            sentence = " ".join(panel["description"].split()).replace("|", "\\|")
            yield f"| {panel['title']} | {sentence} |"


if __name__ == "__main__":
    write()
