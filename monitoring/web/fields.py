"""A panel's field configuration and a name → text and colour of the values of that name."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srp4ctr.monitoring.web import units


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """How the values of one line or of one column are shown."""

    config: Mapping[str, Any]
    """The panel's defaults and what its overrides set; "custom.lineWidth" is one key."""
    currency: str = ""

    @property
    def unit(self) -> str:
        """The unit, as Grafana names it."""
        return str(self.config.get("unit", "none"))

    @property
    def low(self) -> float | None:
        """The lowest value of its axis, if the dashboard sets it."""
        return self.config.get("min")

    @property
    def high(self) -> float | None:
        """The highest value of its axis, if the dashboard sets it."""
        return self.config.get("max")

    @property
    def is_dashed(self) -> bool:
        """Whether its line is dashed."""
        return bool(self.config.get("custom.lineStyle", {}).get("fill") == "dash")

    @property
    def fixed_colour(self) -> str | None:
        """The colour that it has whatever its value; None if the dashboard names none."""
        colour = self.config.get("color", {})
        return css_colour(colour["fixedColor"]) if colour.get("mode") == "fixed" else None

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The thresholds, the lowest first; the first has no value."""
        return list(self.config.get("thresholds", {}).get("steps", ()))

    def text(self, value: float | str | None) -> str:
        """Return the word that ``value`` stands for, else the number in its unit."""
        if isinstance(value, str):
            return value
        if (mapped := self._mapping(value)) and mapped.get("text"):
            return str(mapped["text"])
        decimals = self.config.get("decimals")
        return units.text_of(value, self.unit, decimals, self.currency)

    def colour(self, value: float | None) -> str | None:
        """Return the colour of ``value``: its word's, the field's, or its threshold's."""
        if (mapped := self._mapping(value)) and mapped.get("color"):
            return css_colour(mapped["color"])
        return self.fixed_colour or self.threshold_colour(value)

    def threshold_colour(self, value: float | None) -> str | None:
        """Return the colour of the last threshold that ``value`` reaches, if any."""
        if value is None or len(self.steps) < 2:
            return None
        reached = [s for s in self.steps if s["value"] is None or value >= s["value"]]
        return css_colour(reached[-1]["color"])

    def tick_texts(self, values: Sequence[float]) -> list[str]:
        """Return the texts of an axis's ``values``, with decimals enough to differ."""
        return units.tick_texts(
            values, self.unit, self.config.get("decimals"), self.currency
        )

    def _mapping(self, value: float | None) -> dict[str, Any] | None:
        if value is None:
            return None
        words = (each["options"] for each in self.config.get("mappings", ()))
        return {key: word for each in words for key, word in each.items()}.get(f"{value:g}")


def field_of(panel: Mapping[str, Any], name: str, currency: str = "") -> Field:
    """Return how ``panel`` shows the values of ``name``."""
    given = panel.get("fieldConfig", {})
    config: dict[str, Any] = {**given.get("defaults", {})}
    config |= {f"custom.{key}": each for key, each in config.get("custom", {}).items()}
    for override in given.get("overrides", ()):
        if _matches(override["matcher"], name):
            config |= {each["id"]: each["value"] for each in override["properties"]}
    return Field(config=config, currency=currency)


def css_colour(name: str) -> str:
    """Return the page's colour of a dashboard's ``name``, readable in both themes."""
    return name if re.fullmatch("#[0-9a-f]{6}", name) else f"var(--{name})"


def _matches(matcher: Mapping[str, str], name: str) -> bool:
    if matcher["id"] == "byRegexp":
        return re.search(matcher["options"].strip("/"), name) is not None
    return matcher["options"] == name
