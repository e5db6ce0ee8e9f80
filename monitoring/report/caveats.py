"""The contents of a report → what was watched, which alerts fired, what to keep in mind."""

import re
from collections.abc import Iterator
from math import isfinite

from srp4ctr.monitoring.report import number_format as numbers
from srp4ctr.monitoring.report.period import Period, minute
from srp4ctr.monitoring.report.report_contents import AlertSpell, Contents


def facts(contents: Contents) -> Iterator[tuple[str, str]]:
    """Yield what was watched, when, and by which settings."""
    grounds = contents.grounds
    yield "Period", f"{grounds.period} ({numbers.duration(grounds.period.length_s)})"
    share = numbers.percent(min(1.0, grounds.heard_share), 0)
    yield "Monitor heard", f"{grounds.heard}, {share} of the time"
    windows = "one window" if grounds.num_windows == 1 else f"{grounds.num_windows} windows"
    yield (
        "Impressions shown",
        f"{grounds.events}, in {windows} of {numbers.duration(grounds.window_s)}",
    )
    if isfinite(grounds.label_window_s):
        yield (
            "Label window",
            f"{numbers.duration(grounds.label_window_s)}: so long an impression waits for "
            "its click before it counts",
        )
    if isfinite(grounds.price_per_core_hour):
        price = f"{grounds.price_per_core_hour:g} {grounds.currency}"
        yield "Price of a core-hour", price
    expected = numbers.decimal(100 * grounds.expected_difference, 1)
    yield (
        "Interval of the difference",
        f"an always-valid one (mixture test), narrowest at {expected} percentage points",
    )
    yield "Alert rules watched", numbers.count(grounds.num_alert_rules)


def small_print(contents: Contents) -> Iterator[str]:
    """Yield what the figures leave out, and how far to trust them."""
    yield (
        "Provisional labels are left out: a click tells at once, a missing one only when "
        "the label window has closed. So are impressions that no model ranked."
    )
    yield (
        "The difference is of all ten minutes in which both versions served, up to two "
        "weeks back, and may rest on more than this period; the tables are of this period "
        "alone, whichever version served when."
    )
    yield (
        "Intervals take impressions as independent. Users come again, so that they are a "
        "little narrow."
    )
    yield (
        "An AUC compares impressions of the same window. Each window's figures are as they "
        "were known at its end; a label corrected later is not in them."
    )
    yield (
        "Cost is the CPU time of the processes that score: not of the feature store, the "
        "broker, or a GPU. Unfolded cost is an estimate, as if time went with FLOPs."
    )
    if left_out := contents.grounds.left_out:
        named = ", ".join(left_out[-5:])
        more = f" and {len(left_out) - 5} others" if len(left_out) > 5 else ""
        yield f"Left out, with fewer impressions than those shown: {named}{more}."


def alert_row(spell: AlertSpell, heard: Period) -> tuple[str, ...]:
    """Return an alert as a row: what, of what, how grave, from when to when, how long."""
    about = ", ".join(
        value if name == "model_version" else f"{name} {value}"
        for name, value in sorted(spell.labels.items())
    )
    first, last = minute(spell.first_s), minute(spell.last_s)
    is_over = spell.last_s < heard.end_s
    return (
        alert_words(spell.name),
        about or "–",
        spell.severity or "–",
        f"{first} to {last}" if is_over else f"since {first}, still firing",
        numbers.duration(spell.firing_s),
    )


def alert_words(name: str) -> str:
    """Return ``Srp4ctrCalibrationIsOff`` as ``Calibration is off``."""
    words = re.findall(r"[A-Z]?[^A-Z]+|[A-Z]+(?![^A-Z])", name.removeprefix("Srp4ctr"))
    return " ".join(words).lower().capitalize()
