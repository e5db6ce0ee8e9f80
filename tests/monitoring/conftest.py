"""Builders of the monitoring tests: only the relevant argument is named in a test."""

from typing import Any

from streams.events import Impression
from streams.labels import ImpressionLabel

MINUTE_MS = 60_000
START_MS = 1_750_000_000_000
LABEL_WINDOW_MS = 30 * MINUTE_MS


def a_label(item: str = "i1", *, after_ms: int = 0, **changes: Any) -> ImpressionLabel:
    """Return the label of an impression ``after_ms`` after START_MS, not clicked."""
    clicked = changes.get("clicked", False)
    within_window = changes.get("within_window", True)
    shown_ms = START_MS + after_ms
    fields: dict[str, Any] = {
        "request_id": "r1",
        "user_id": "u1",
        "item_id": item,
        "position": 1,
        "score": 0.5,
        "propensity": 1.0,
        "model_version": "v7",
        "impression_at": shown_ms,
        "clicked": False,
        "within_window": True,
        "matured_at": shown_ms + (1000 if clicked else LABEL_WINDOW_MS),
        "revision": (2 if within_window else 1) if clicked else 0,
    }
    return ImpressionLabel(**(fields | changes))


def an_impression(item: str = "i1", *, after_ms: int = 0, **changes: Any) -> Impression:
    """Return the impression that ``a_label`` is of."""
    fields: dict[str, Any] = {
        "event_id": f"e-{item}",
        "request_id": "r1",
        "user_id": "u1",
        "item_id": item,
        "position": 1,
        "occurred_at": START_MS + after_ms,
        "model_version": "v7",
        "score": 0.5,
    }
    return Impression(**(fields | changes))
