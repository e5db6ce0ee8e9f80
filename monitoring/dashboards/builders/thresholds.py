"""Thresholds of panels, and value mappings; alerts are in ``monitoring/rules``."""

from collections.abc import Mapping

from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models.dashboard import (
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)

GREEN, AMBER, RED = "green", "orange", "red"


def at_most(amber: float, red: float) -> ThresholdsConfig:
    """Return green below ``amber``, amber from there, and red from ``red`` on."""
    return _steps(GREEN, (amber, AMBER), (red, RED))


def at_least(red: float, amber: float) -> ThresholdsConfig:
    """Return red below ``red``, amber below ``amber``, and green from there on."""
    return _steps(RED, (red, AMBER), (amber, GREEN))


def around(low: float, high: float, *, slack: float) -> ThresholdsConfig:
    """Return green between ``low`` and ``high``, amber ``slack`` farther, then red."""
    return _steps(
        RED, (low - slack, AMBER), (low, GREEN), (high, AMBER), (high + slack, RED)
    )


def none_of_it() -> ThresholdsConfig:
    """Return green for zero only, and red above."""
    return _steps(GREEN, (1e-9, RED))


def tickets() -> ThresholdsConfig:
    """Return green for zero only, and amber above."""
    return _steps(GREEN, (1e-9, AMBER))


def above_zero() -> ThresholdsConfig:
    """Return red for a loss and green for a gain."""
    return _steps(RED, (0.0, GREEN))


def latency() -> ThresholdsConfig:
    """Return limits of the 99th percentile of latency, in seconds."""
    return at_most(0.05, 0.1)


def calibration() -> ThresholdsConfig:
    """Return limits of the sum of scores / clicks: 10 % off is too much for bidding."""
    return around(0.9, 1.1, slack=0.15)


def calibration_error() -> ThresholdsConfig:
    """Return limits of the expected calibration error."""
    return at_most(0.03, 0.06)


def entropy() -> ThresholdsConfig:
    """Return limits of normalised entropy: 1 is no better than the mean rate."""
    return at_most(0.99, 1.0)


def auc() -> ThresholdsConfig:
    """Return limits of the AUC: 0.5 is random."""
    return at_least(0.5, 0.55)


def encoder_runs() -> ThresholdsConfig:
    """Return limits of encoder runs per request, as in the alert."""
    return at_most(1.1, 2)


def drift() -> ThresholdsConfig:
    """Return the usual limits of a population stability index."""
    return at_most(0.1, 0.2)


def freshness() -> ThresholdsConfig:
    """Return limits of event → sequence and click → changed score, in seconds."""
    return at_most(1, 5)


def words(of: Mapping[int, tuple[str, str]]) -> list[ValueMapping]:
    """Return mappings from each value in ``of`` to its word and colour."""
    results = {
        str(value): ValueMappingResult(text=text, color=colour, index=place)
        for place, (value, (text, colour)) in enumerate(of.items())
    }
    return [ValueMap(options=results)]


def _steps(lowest: str, *steps: tuple[float, str]) -> ThresholdsConfig:
    found = [Threshold(value=None, color=lowest)]
    found += [Threshold(value=round(value, 9), color=colour) for value, colour in steps]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(found)
