"""The contents of a report → its data and settings, and the limits of its figures."""

from collections.abc import Iterator
from math import isfinite

from srp4ctr.monitoring.report import number_format as numbers
from srp4ctr.monitoring.report.report_contents import Contents


def facts(contents: Contents) -> Iterator[tuple[str, str]]:
    """Yield the name and value of what the report covers and of the settings used."""
    scope = contents.scope
    yield "Period", f"{scope.period} ({numbers.duration(scope.period.length_s)})"
    share = numbers.percent(min(1.0, scope.covered_share), 0)
    yield "Monitor data", f"{scope.covered}, data for {share} of the time"
    windows = "one window" if scope.num_windows == 1 else f"{scope.num_windows} windows"
    yield (
        "Impressions shown",
        f"{scope.events}, in {windows} of {numbers.duration(scope.window_s)}",
    )
    if isfinite(scope.label_window_s):
        yield (
            "Label window",
            f"{numbers.duration(scope.label_window_s)}: an impression waits this long for "
            "its click before it counts",
        )
    if isfinite(scope.price_per_core_hour):
        yield "Price per core-hour", f"{scope.price_per_core_hour:g} {scope.currency}"
    expected = numbers.decimal(100 * scope.expected_difference, 1)
    yield (
        "Confidence sequence",
        f"anytime-valid (mixture method), narrowest at {expected} percentage points",
    )
    yield "Alert rules", numbers.count(scope.num_alert_rules)


def caveats(contents: Contents) -> Iterator[str]:
    """Yield what the figures leave out, and how reliable they are."""
    yield (
        "Provisional labels are excluded: a click is known at once, a missing click only "
        "when the label window has closed. Impressions that no model ranked are excluded."
    )
    yield (
        "The difference covers all ten-minute slots in which both versions served, up to "
        "two weeks back, and may include impressions from before this period. The tables "
        "cover this period only, whichever version served when."
    )
    yield (
        "Intervals treat impressions as independent. Users return, so the intervals are "
        "slightly too narrow."
    )
    yield (
        "AUC compares impressions of the same window. Each window's figures are as of its "
        "end: later corrections of labels are not included."
    )
    yield (
        "Cost is the CPU time of the scoring processes, without the feature store, the "
        "broker and GPUs. The price of re-encoding per candidate is an estimate: it "
        "assumes that time is proportional to FLOPs."
    )
    if left_out := contents.scope.left_out:
        named = ", ".join(left_out[-5:])
        more = f" and {len(left_out) - 5} others" if len(left_out) > 5 else ""
        yield f"Left out, because they had fewer impressions: {named}{more}."
