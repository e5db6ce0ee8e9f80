"""Thresholds of panels, and value mappings; alerts are in ``monitoring/rules``."""

from collections.abc import Mapping
from typing import Any

Thresholds = dict[str, Any]
GREEN, AMBER, RED = "green", "orange", "red"


def at_most(amber: float, red: float) -> Thresholds:
    """Return green below ``amber``, amber from there, and red from ``red`` on."""
    return _steps(GREEN, (amber, AMBER), (red, RED))


def at_least(red: float, amber: float) -> Thresholds:
    """Return red below ``red``, amber below ``amber``, and green from there on."""
    return _steps(RED, (red, AMBER), (amber, GREEN))


def words(of: Mapping[int, tuple[str, str]]) -> list[dict[str, Any]]:
    """Return mappings from each value in ``of`` to its word and colour."""
    results = {
        str(value): {"text": text, "color": colour, "index": place}
        for place, (value, (text, colour)) in enumerate(of.items())
    }
    return [{"type": "value", "options": results}]


SCORES = words(
    {
        0: ("probabilities", "green"),
        1: ("preferences: sampled negatives, until impressions arrive", "orange"),
    }
)


def _steps(lowest: str, *steps: tuple[float, str]) -> Thresholds:
    found = [{"value": value, "color": colour} for value, colour in steps]
    return {"mode": "absolute", "steps": [{"value": None, "color": lowest}, *found]}


NONE_OF_IT = _steps(GREEN, (1e-9, RED))
TICKETS = _steps(GREEN, (1e-9, AMBER))
ABOVE_ZERO = _steps(RED, (0.0, GREEN))  # a loss, and a gain
LATENCY = at_most(0.05, 0.1)  # 99th percentile, in seconds
# Sum of scores / clicks: 10 % off is too much for bidding.
CALIBRATION = _steps(RED, (0.75, AMBER), (0.9, GREEN), (1.1, AMBER), (1.25, RED))
CALIBRATION_ERROR = at_most(0.03, 0.06)
ENTROPY = at_most(0.99, 1.0)  # normalised: 1 is no better than the mean rate
AUC = at_least(0.5, 0.52)  # 0.5 is random; sorting narrows the scores at a position
ENCODER_RUNS = at_most(1.1, 2)  # per request, as in the alert
DRIFT = at_most(0.1, 0.2)  # the usual limits of a population stability index
EVIDENCE = at_most(4.6, 6.9)  # ln 100 and ln 1000; red as in the alert
BEHIND = at_most(10, 60)  # of live figures, in seconds; red as in the alert
FRESHNESS = at_most(1, 5)  # event → sequence and click → changed score, in seconds
