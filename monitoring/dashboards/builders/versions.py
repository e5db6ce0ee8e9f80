"""The look of lines: a version's colour is the same everywhere; bounds are thin and dashed.

Versions are not known in advance, so the last digit chooses the colour: v3 is purple on
each panel of each dashboard.
"""

from collections.abc import Collection, Mapping

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import (
    DashboardFieldConfigSourceOverrides as FieldOverrides,
)
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue, MatcherConfig

COLOURS = {
    "[16]": "blue",
    "[27]": "orange",
    "[38]": "purple",
    "[49]": "#1ab3a6",
    "[50]": "yellow",
}
# A version's secondary lines, by the last word of their names.
BOUNDS = "/ (low|high)$/"
SECOND = ("p50", "re-encoded", "provisional", "training", "held-out")

_THIN: dict[str, object] = {
    "custom.lineStyle": {"fill": "dash", "dash": [4, 6]},
    "custom.lineWidth": 1,
    "custom.hideFrom": {"legend": True, "tooltip": False, "viz": False},
}
_SECOND: dict[str, object] = {"custom.lineStyle": {"fill": "dash", "dash": [10, 6]}}


def overrides(legends: Collection[str]) -> list[Builder[FieldOverrides]]:
    """Return the overrides of a panel whose lines have these ``legends``."""
    found: list[Builder[FieldOverrides]] = []
    if any("{{model_version}}" in legend for legend in legends):
        found += [
            matching("byRegexp", rf"/^v\d*{digits}( |$)/", {"color": fixed(colour)})
            for digits, colour in COLOURS.items()
        ]
    if any("{{bound}}" in legend for legend in legends):
        found.append(matching("byRegexp", BOUNDS, _THIN))
    if any(legend.endswith((*SECOND, "{{where}}")) for legend in legends):
        second = "|".join(SECOND)
        found.append(matching("byRegexp", rf"/(^| )({second})$/", _SECOND))
    return found


def matching(
    matcher: str, options: str, properties: Mapping[str, object]
) -> Builder[FieldOverrides]:
    """Return the override that sets ``properties`` where ``matcher`` says."""
    values = [DynamicConfigValue(id_val=name, value=v) for name, v in properties.items()]
    where = MatcherConfig(id_val=matcher, options=options)
    return builders.DashboardFieldConfigSourceOverrides().matcher(where).properties(values)


def fixed(colour: str) -> dict[str, str]:
    """Return a field's colour, whatever its value."""
    return {"mode": "fixed", "fixedColor": colour}
