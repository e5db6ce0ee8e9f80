"""All dashboards → the JSON files that Grafana and the project's own page read.

The output is the same in every run: keys are sorted.
"""

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from srp4ctr.monitoring.dashboards import (
    FOLDER,
    inference_cost,
    model_comparison,
    overview,
    streams_features,
    training,
)

BOARDS = {
    "overview": overview.board,
    "model_comparison": model_comparison.board,
    "inference_cost": inference_cost.board,
    "streams_features": streams_features.board,
    "training": training.board,
}


def text(name: str) -> str:
    """Return the content of the file of the dashboard ``name``."""
    board = BOARDS[name]().build()
    for number, panel in enumerate(board.panels or [], 1):
        panel.id_val = number
    content = json.dumps(
        board, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False
    )
    return content + "\n"


def write() -> None:
    """Write every dashboard's file."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in BOARDS:
        (FOLDER / f"{name}.json").write_text(text(name), encoding="utf-8")
