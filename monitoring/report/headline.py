"""The contents of a report → its headline: is the new model better, and what does it cost?

Each sentence names the number of impressions that its figure is based on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, isnan

from srp4ctr.monitoring.quality.confidence_intervals import ratio
from srp4ctr.monitoring.quality.version_order import is_bundle
from srp4ctr.monitoring.report import number_format as numbers
from srp4ctr.monitoring.report.period import utc_minute
from srp4ctr.monitoring.report.report_contents import (
    Contents,
    Cost,
    ReportScope,
    VersionComparison,
    VersionFigures,
)
from srp4ctr.monitoring.report.version_comparison import (
    MAX_FACTOR,
    sample_size_factor,
)

PRICE_TOLERANCE = 0.01  # prices are not measured more precisely
CALIBRATED = (0.9, 1.1)  # sum of scores / clicks
MAX_PSI = 0.2  # the usual limit of the population stability index
MIN_LABEL_COVERAGE = 0.9
MAX_SILENCE_S = 600.0
SILENT_SHARE = 1e-3  # of the period: the time of the last figure is known to 1e-4 of it
SIZE_TOLERANCE = 0.1  # of the mean number of candidates per request


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """The top of the report."""

    title: str
    tone: str
    """``better``, ``worse`` or ``open``."""
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]


def headline(contents: Contents) -> Headline:
    """Return the report's conclusion."""
    warnings = tuple(_warnings(contents))
    if contents.comparisons:
        comparison = contents.comparisons[0]
        new, old = comparison.version, comparison.reference
        title, tone = {
            1: (f"{new} earns more clicks than {old}", "better"),
            -1: (f"{new} earns fewer clicks than {old}", "worse"),
            0: (f"Not enough data to say whether {new} is better than {old}", "open"),
        }[comparison.direction]
        sentences = tuple(_compared(contents, comparison))
        return Headline(title=title, tone=tone, sentences=sentences, warnings=warnings)
    names = [each.version for each in contents.versions]
    if len(names) == 1:
        title = f"Only {names[0]} served: there is nothing to compare it with"
    else:
        title = f"{_joined_names(names)} were not compared"
    sentences = tuple(_uncompared(contents))
    return Headline(title=title, tone="open", sentences=sentences, warnings=warnings)


def _compared(contents: Contents, comparison: VersionComparison) -> Iterator[str]:
    yield _difference(comparison)
    if comparison.direction == 0:
        yield _still_needed(contents, comparison)
    new, old = contents.of(comparison.version), contents.of(comparison.reference)
    if new is None or old is None:
        absent = comparison.version if new is None else comparison.reference
        yield f"{absent} served nothing in this period: their costs cannot be compared."
        return
    yield _cost(new, old, contents.scope.currency)
    if comparison.direction:
        yield from _tradeoff(comparison, new.cost, old.cost, contents.scope.currency)


def _uncompared(contents: Contents) -> Iterator[str]:
    if len(contents.versions) > 1:
        yield (
            "Their figures are from different hours and cannot be compared, because "
            "traffic differs by the hour as well. A version is compared with the serving "
            "one over the ten-minute slots in which both served, for example as a canary."
        )
    for each in contents.versions:
        rate = each.quality.top_click_rate
        if not isnan(rate.value):
            yield (
                f"At position 1, {numbers.estimate(rate, 1, 100)} % of the "
                f"{numbers.count(each.quality.top_impressions)} impressions of "
                f"{each.version} were clicked; a million candidates cost "
                f"{numbers.money(each.cost.price_per_million, contents.scope.currency)}."
            )


def _difference(comparison: VersionComparison) -> str:
    value, interval = comparison.difference.value, comparison.difference.interval
    start = (
        f"At position 1, the click-through rate (CTR) of {comparison.version} is "
        f"{numbers.decimal(abs(100 * value), 2)} percentage points "
        f"{'above' if value >= 0 else 'below'} that of {comparison.reference}"
    )
    sample = (
        f"n = {numbers.count(comparison.impressions)} impressions of {comparison.counted}"
    )
    if not comparison.has_interval:
        return f"{start}, with too few impressions for a confidence sequence ({sample})."
    bounds = (
        f"{numbers.signed(100 * interval.low, 2)} to "
        f"{numbers.signed(100 * interval.high, 2)}"
    )
    if comparison.direction:
        return (
            f"{start} (anytime-valid 95 % confidence sequence {bounds} percentage points; "
            f"{sample})."
        )
    return (
        f"{start}, but the anytime-valid 95 % confidence sequence, {bounds}, contains 0 "
        f"({sample})."
    )


def _still_needed(contents: Contents, comparison: VersionComparison) -> str:
    if not comparison.has_interval:
        return "It needs 100 impressions of each version at position 1."
    factor = sample_size_factor(comparison, contents.scope.expected_difference)
    if not isfinite(factor):
        return (
            f"A difference this small needs over {MAX_FACTOR:,.0f} times as many "
            "impressions to be significant: treat the versions as equal."
        )
    more = (factor - 1) * comparison.impressions
    wait = ""
    if found := contents.of(comparison.counted):
        shown_s = found.quality.num_windows * contents.scope.window_s
        wait_s = more * ratio(shown_s, found.quality.top_impressions)
        if isfinite(wait_s):  # none may have matured within this period
            wait = f", which take {numbers.duration(wait_s)} at this rate"
    return (
        f"If the difference stays the same, it becomes significant after about "
        f"{numbers.significant(more, 2)} more impressions of {comparison.counted} at "
        f"position 1{wait}."
    )


def _cost(new: VersionFigures, old: VersionFigures, currency: str) -> str:
    ours, theirs = new.cost.price_per_million, old.cost.price_per_million
    if isnan(ours) or isnan(theirs):
        unknown = new.version if isnan(ours) else old.version
        return f"The cost of {unknown} is unknown: it scored no candidates in this period."
    if abs(ours - theirs) <= PRICE_TOLERANCE * theirs:  # both may be 0
        price = numbers.money(ours, currency)
        return f"A million candidates cost {price} with either version."
    return (
        f"A million candidates cost {numbers.money(ours, currency)} with {new.version} and "
        f"{numbers.money(theirs, currency)} with {old.version}: "
        f"{numbers.significant(ours / theirs, 2)} times as much."
    )


def _tradeoff(
    comparison: VersionComparison, new: Cost, old: Cost, currency: str
) -> Iterator[str]:
    """Yield the clicks gained or lost per unit of money spent or saved."""
    extra = new.price_per_1000_requests - old.price_per_1000_requests
    if abs(extra) < PRICE_TOLERANCE * old.price_per_1000_requests:
        extra = 0.0
    clicks = 1000 * comparison.difference.value
    if isnan(extra):
        return
    per_1000 = f"{numbers.decimal(abs(clicks), 1)} clicks per 1,000 requests"
    if clicks > 0 and extra > 0:
        yield (
            f"It gains {per_1000} for {numbers.money(extra, currency)} more: "
            f"{numbers.significant(clicks / extra, 2)} clicks for each {currency}."
        )
    elif clicks > 0:
        yield f"It gains {per_1000} and costs no more."
    elif extra < 0:
        yield (
            f"It loses {per_1000} and saves {numbers.money(-extra, currency)}: "
            f"{numbers.significant(clicks / extra, 2)} clicks for each {currency} saved."
        )
    else:
        yield f"It loses {per_1000} and saves nothing."


def _warnings(contents: Contents) -> Iterator[str]:
    yield from _ended_early(contents.scope)
    for each in contents.versions:
        if not is_bundle(each.version):
            continue
        quality, psi = each.quality, each.inputs.score_psi
        calibration = quality.calibration
        low, high = calibration.interval.low, calibration.interval.high
        if low > CALIBRATED[1] or high < CALIBRATED[0]:
            yield (
                f"{each.version} {'over' if low > 1 else 'under'}-predicts by "
                f"{numbers.percent(abs(calibration.value - 1), 0)}: the sum of its scores "
                f"is {numbers.estimate(calibration, 2)} times its clicks. Do not bid on "
                "its scores before it is recalibrated."
            )
        if quality.label_coverage < MIN_LABEL_COVERAGE:
            yield (
                f"Only {numbers.percent(quality.label_coverage, 0)} of the impressions of "
                f"{each.version} that should have a label have one: its figures may not "
                "be representative."
            )
        if psi > MAX_PSI:
            yield (
                f"The score distribution of {each.version} has shifted since its "
                f"evaluation (PSI {numbers.decimal(psi, 2)}): its held-out metrics may no "
                "longer apply."
            )
    yield from _unequal_sizes(contents)


def _ended_early(scope: ReportScope) -> Iterator[str]:
    """Yield a warning where the monitor has no figures of the end of the period."""
    silent_s = scope.period.end_s - scope.covered.end_s
    if silent_s > max(MAX_SILENCE_S, SILENT_SHARE * scope.period.length_s):
        yield (
            f"The monitor's data end at {utc_minute(scope.covered.end_s)} UTC, "
            f"{numbers.duration(silent_s)} before the end of this period: no figure "
            "covers what happened afterwards; only the alerts do."
        )


def _unequal_sizes(contents: Contents) -> Iterator[str]:
    """Yield a warning where the versions' requests differ in size."""
    sizes = {each.version: each.cost.candidates_per_request for each in contents.versions}
    known = {version: size for version, size in sizes.items() if isfinite(size)}
    if known and max(known.values()) > (1 + SIZE_TOLERANCE) * min(known.values()):
        each = _joined_names([f"{numbers.significant(s)} ({v})" for v, s in known.items()])
        yield (
            f"Requests differ in their number of candidates, {each}. All candidates of a "
            "request share the cost of encoding the history, so prices per candidate "
            "depend on more than the model."
        )


def _joined_names(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
