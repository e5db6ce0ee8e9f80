"""One PromQL expression per column → Grafana's table with one row per version.

All expressions have the same labels; transformations join the columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.builders.common import TableSortByFieldState
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import (
    DashboardFieldConfigSourceOverrides as FieldOverrides,
)
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig, ValueMapping

from srp4ctr.monitoring.dashboards.builders.panels import lettered
from srp4ctr.monitoring.dashboards.builders.queries import SOURCE, cells
from srp4ctr.monitoring.dashboards.builders.versions import matching

_COLOURED_TEXT = {"type": "color-text"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its heading, its expression, and the format of its values."""

    name: str
    expr: str
    unit: str = "none"
    decimals: int | None = None
    limits: ThresholdsConfig | None = None
    words: list[ValueMapping] = field(default_factory=list)


def table_of(
    title: str, why: str, keys: Mapping[str, str], columns: Sequence[Column]
) -> table.Panel:
    """Return a table; ``keys`` maps the rows' labels to headings."""
    newest_first = (
        TableSortByFieldState().display_name(next(iter(keys.values()))).desc(True)
    )
    return (
        table.Panel()
        .title(title)
        .description(why)
        .datasource(SOURCE)
        .targets(lettered([cells(column.expr) for column in columns]))
        .unit("none")
        .transformations(joined(keys, [column.name for column in columns]))
        .overrides([_formatted(column) for column in columns])
        .sort_by([newest_first])
        .show_header(True)
    )


def joined(keys: Mapping[str, str], names: Sequence[str]) -> list[DataTransformerConfig]:
    """Return the transformations that join targets A, B, C… with columns ``names``."""
    values = [f"Value #{letter}" for letter, _ in zip(ascii_uppercase, names, strict=False)]
    organize = {
        "excludeByName": {"Time": True},
        "indexByName": {name: place for place, name in enumerate((*keys, *values))},
        "renameByName": {**keys, **dict(zip(values, names, strict=True))},
    }
    return [
        DataTransformerConfig(id_val="merge", options={}),
        DataTransformerConfig(id_val="organize", options=organize),
    ]


def _formatted(column: Column) -> Builder[FieldOverrides]:
    properties: dict[str, object] = {"unit": column.unit}
    if column.decimals is not None:
        properties["decimals"] = column.decimals
    if column.limits is not None:
        properties["thresholds"] = column.limits.build()
    if column.words:
        properties["mappings"] = column.words
    if column.limits is not None or column.words:
        properties["custom.cellOptions"] = _COLOURED_TEXT
    return matching("byName", column.name, properties)
