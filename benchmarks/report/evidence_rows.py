"""Files of results → the rows that a reader compares, data set by data set.

A value that is absent, null or NaN is None here, and an en dash wherever it is shown.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality.clicks.variants import REFERENCE

Row = Mapping[str, Any]
WITHOUT_PRETRAINING = f"{REFERENCE}-none"
ABLATION = f"{REFERENCE}-"  # how the names of its variants begin
TITLES = {
    "ebnerd": "EB-NeRD",
    "movielens": "MovieLens-100K",
    "ml-100k": "MovieLens-100K",
    "Beauty": "Amazon Beauty",
}
SIZED, FROZEN = "+size", " frozen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the rows of one harness say of one data set, in the file's order."""

    source: str
    """The data set as the harness calls it."""
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """Return the data set as people call it."""
        name = self.source.removesuffix(FROZEN).removesuffix(SIZED)
        sized = ", slate size known" if SIZED in self.source else ""
        frozen = ", features frozen" if self.source.endswith(FROZEN) else ""
        return TITLES.get(name, name) + sized + frozen

    @property
    def reference(self) -> Row:
        """Return SRP4CTR's row; an empty one if it did not run."""
        return self.of(REFERENCE)

    @property
    def models(self) -> list[Row]:
        """Return what was trained on all labels and is no ablation, best gAUC first."""
        whole = [row for row in self.rows if share_of(row) == 1.0]
        kept = [row for row in whole if not _is_ablation(row) or _is_untrained(row)]
        return best_first(kept, "gauc")

    @property
    def ablations(self) -> list[Row]:
        """Return SRP4CTR's variants, without SRP4CTR itself."""
        return [row for row in self.rows if share_of(row) == 1.0 and _is_ablation(row)]

    @property
    def curves(self) -> dict[str, list[Row]]:
        """Return the rows by share of the labels, of each model that ran with few."""
        with_few = {model_of(row) for row in self.rows if share_of(row) < 1.0}
        found: dict[str, list[Row]] = {}
        for row in sorted(self.rows, key=share_of):
            if model_of(row) in with_few:
                found.setdefault(model_of(row), []).append(row)
        return dict(sorted(found.items()))

    @property
    def is_of_last_items(self) -> bool:
        """Whether a user's last item was ranked: HR@10 is what counts."""
        return any(number(row, "hr10") is not None for row in self.rows)

    def of(self, model: str) -> Row:
        """Return the row of ``model``; an empty one if it did not run."""
        return next((row for row in self.rows if row["model"] == model), {})


def read(file: Path) -> list[Evidence]:
    """Return what ``file`` says of each data set; nothing if there is no such file."""
    rows: list[Row] = json.loads(file.read_text())["rows"] if file.is_file() else []
    return [
        Evidence(source=source, rows=tuple(row for row in rows if row["data"] == source))
        for source in sorted({row["data"] for row in rows})
    ]


def number(row: Row, name: str) -> float | None:
    """Return a value of ``row``; None if it has none."""
    value = row.get(name)
    return None if value is None or math.isnan(value) else float(value)


def model_of(row: Row) -> str:
    """Return the model without its share of the labels."""
    return str(row["model"]).partition("@")[0]


def share_of(row: Row) -> float:
    """Return the share of the labels that the row's model was trained on."""
    share = str(row["model"]).partition("@")[2]
    return float(share.rstrip("%")) / 100.0 if share else 1.0


def tiled_flops(row: Row) -> float | None:
    """Return what 100 candidates cost without sharing, as ``count_flops`` has it."""
    one = number(row, "flops_1")
    return None if one is None else 100.0 * one


def best_first(rows: list[Row], name: str) -> list[Row]:
    """Return ``rows`` by falling ``name``, those that have none last."""
    return sorted(rows, key=lambda row: (-(number(row, name) or 0.0), row["model"]))


def plain(value: float | None, digits: int = 4, sign: str = "") -> str:
    """Return ``value`` as a table has it: .8142, −.0003, 1.013."""
    if value is None:
        return "–"
    text = f"{value:{sign}.{digits}f}"
    return text.replace("-", "−").replace("0.", ".", 1) if abs(value) < 1.0 else text


def with_error(row: Row, name: str, error: str, sign: str = "") -> str:
    """Return the value called ``name`` and, if there is one, its error."""
    value, spread = number(row, name), number(row, error)
    found = plain(value, sign=sign)
    return found if value is None or spread is None else f"{found} ± {plain(spread)}"


def _is_ablation(row: Row) -> bool:
    return model_of(row).startswith(ABLATION)


def _is_untrained(row: Row) -> bool:
    return model_of(row) == WITHOUT_PRETRAINING
