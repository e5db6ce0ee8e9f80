"""The contents of a report → its headline: is the new model better, and what does it cost?

Sentences for somebody who decides on it, so that each says what its figure rests on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, isnan

from srp4ctr.monitoring.report import number_format as numbers
from srp4ctr.monitoring.report.report_contents import (
    Contents,
    Contrast,
    Cost,
    VersionFigures,
    ratio,
)
from srp4ctr.monitoring.report.version_comparison import (
    MOST_TIMES,
    is_bundle,
    sample_size_factor,
)

SAME = 0.01  # prices are not measured closer than a hundredth
# Beyond these a figure deserves a word of its own.
HONEST = (0.9, 1.1)  # of scores over clicks: what nobody bids on is a tenth off
MOVED = 0.2  # of a population stability index
COVERED = 0.9
OTHER_WORK = 0.1  # of candidates a request


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """What stands at the top."""

    title: str
    tone: str
    """``better``, ``worse`` or ``open``."""
    sentences: tuple[str, ...]
    cautions: tuple[str, ...]


def headline(contents: Contents) -> Headline:
    """Return what the report amounts to."""
    cautions = tuple(_cautions(contents))
    if contents.contrasts:
        contrast = contents.contrasts[0]
        version, reference = contrast.version, contrast.reference
        title, tone = {
            1: (f"{version} earns more clicks than {reference}", "better"),
            -1: (f"{version} earns fewer clicks than {reference}", "worse"),
            0: (f"Whether {version} is better than {reference} is not known yet", "open"),
        }[contrast.verdict]
        return Headline(
            title=title,
            tone=tone,
            sentences=tuple(_compared(contents, contrast)),
            cautions=cautions,
        )
    names_of = [each.version for each in contents.versions]
    if len(names_of) == 1:
        title = f"Only {names_of[0]} served: there is nothing to compare it with"
    else:
        title = f"{_listed(names_of)} were not compared"
    return Headline(
        title=title,
        tone="open",
        sentences=tuple(_uncompared(contents)),
        cautions=cautions,
    )


def _compared(contents: Contents, contrast: Contrast) -> Iterator[str]:
    yield _difference(contrast)
    if contrast.verdict == 0:
        yield _still_needed(contents, contrast)
    new, old = contents.of(contrast.version), contents.of(contrast.reference)
    if new is None or old is None:
        absent = contrast.version if new is None else contrast.reference
        yield f"{absent} served nothing in this time, so their costs cannot be compared."
        return
    yield _cost(new, old, contents.grounds.currency)
    if contrast.verdict:
        yield from _bargain(contrast, new.cost, old.cost, contents.grounds.currency)


def _uncompared(contents: Contents) -> Iterator[str]:
    if len(contents.versions) > 1:
        yield (
            "Their figures are of different hours, and no comparison: what moves clicks in "
            "the evening moves them too. A version is compared with the serving one over "
            "the ten minutes in which both served, for instance as a canary."
        )
    for each in contents.versions:
        rate = each.quality.top_click_rate
        if not isnan(rate.value):
            yield (
                f"At position 1, {numbers.estimate(rate, 1, 100)} % of the "
                f"{numbers.count(each.quality.top_impressions)} impressions of "
                f"{each.version} were clicked; a million candidates cost "
                f"{numbers.money(each.cost.price_per_million, contents.grounds.currency)}."
            )


def _difference(contrast: Contrast) -> str:
    value, interval = contrast.difference.value, contrast.difference.interval
    points = numbers.decimal(abs(100 * value), 2)
    where = "above" if value >= 0 else "below"
    rests_on = (
        f"n = {numbers.count(contrast.impressions)} impressions of {contrast.counted}"
    )
    start = (
        f"At position 1, the click-through rate (CTR) of {contrast.version} is {points} "
        f"percentage points {where} that of {contrast.reference}"
    )
    if not contrast.has_interval:
        return f"{start} so far, of too few impressions to say more ({rests_on})."
    bounds = (
        f"{numbers.signed(100 * interval.low, 2)} to "
        f"{numbers.signed(100 * interval.high, 2)}"
    )
    if contrast.verdict:
        return (
            f"{start} (95 % interval {bounds}, which holds however often one looks; "
            f"{rests_on})."
        )
    return (
        f"{start} so far, but the 95 % interval, {bounds}, still contains 0 ({rests_on})."
    )


def _still_needed(contents: Contents, contrast: Contrast) -> str:
    if not contrast.has_interval:
        return "An interval needs 100 impressions of each version at position 1."
    times = sample_size_factor(contrast, contents.grounds.expected_difference)
    if not isfinite(times):
        return (
            f"As small as it is, over {MOST_TIMES:,.0f} times as many impressions would be "
            "needed to tell it from 0: for all that matters, they are equal."
        )
    more = (times - 1) * contrast.impressions
    wait = ""
    if found := contents.of(contrast.counted):
        shown_s = found.quality.num_windows * contents.grounds.window_s
        wait_s = more * ratio(shown_s, found.quality.top_impressions)
        wait = f", which take {numbers.duration(wait_s)} at this rate"
    return (
        f"If the difference stays as it is, about {numbers.significant(more, 2)} more "
        f"impressions of {contrast.counted} at position 1 will tell it from 0{wait}."
    )


def _cost(new: VersionFigures, old: VersionFigures, currency: str) -> str:
    ours, theirs = new.cost.price_per_million, old.cost.price_per_million
    if isnan(ours) or isnan(theirs):
        unknown = new.version if isnan(ours) else old.version
        return f"What {unknown} costs is not known: it scored no candidates in this time."
    if abs(ours / theirs - 1) < SAME:
        price = numbers.money(ours, currency)
        return f"A million candidates cost {price} with either."
    return (
        f"A million candidates cost {numbers.money(ours, currency)} with {new.version} and "
        f"{numbers.money(theirs, currency)} with {old.version}: "
        f"{numbers.significant(ours / theirs, 2)} times as much."
    )


def _bargain(contrast: Contrast, new: Cost, old: Cost, currency: str) -> Iterator[str]:
    """Yield what is gained for what it costs more, or lost for what it costs less."""
    extra = new.price_per_1000_requests - old.price_per_1000_requests
    if abs(extra) < SAME * old.price_per_1000_requests:
        extra = 0.0
    clicks = 1000 * contrast.difference.value
    if isnan(extra):
        return
    of_1000 = f"{numbers.decimal(abs(clicks), 1)} clicks in 1,000 requests"
    if clicks > 0 and extra > 0:
        yield (
            f"It gains {of_1000}, for {numbers.money(extra, currency)} more: "
            f"{numbers.significant(clicks / extra, 2)} clicks for each {currency}."
        )
    elif clicks > 0:
        yield f"It gains {of_1000}, and costs no more."
    elif extra < 0:
        yield (
            f"It loses {of_1000}, and saves {numbers.money(-extra, currency)}: "
            f"{numbers.significant(clicks / extra, 2)} clicks for each {currency} saved."
        )
    else:
        yield f"It loses {of_1000}, and saves nothing."


def _cautions(contents: Contents) -> Iterator[str]:
    bundles = [each for each in contents.versions if is_bundle(each.version)]
    for each in bundles:
        quality = each.quality
        calibration = quality.calibration
        low, high = calibration.interval.low, calibration.interval.high
        if low > HONEST[1] or high < HONEST[0]:
            yield (
                f"{each.version} promises {numbers.estimate(calibration, 2)} times the "
                "clicks that come: do not bid on its scores before it is calibrated anew."
            )
        if quality.coverage < COVERED:
            yield (
                f"Of {each.version}'s impressions only "
                f"{numbers.percent(quality.coverage, 0)} have a label that should: its "
                "figures are of a part that may be unlike the rest."
            )
        if each.inputs.score_psi > MOVED:
            yield (
                f"Scores of {each.version} are spread otherwise than when it was judged "
                f"(PSI {numbers.decimal(each.inputs.score_psi, 2)}): its held-out figures "
                "say little of it."
            )
    yield from _other_work(contents)


def _other_work(contents: Contents) -> Iterator[str]:
    """Yield that prices are not of the same work, where the requests differ in size."""
    sizes = {each.version: each.cost.candidates_per_request for each in contents.versions}
    known = {version: size for version, size in sizes.items() if isfinite(size)}
    if known and max(known.values()) > (1 + OTHER_WORK) * min(known.values()):
        each = _listed([f"{numbers.significant(s)} ({v})" for v, s in known.items()])
        yield (
            f"Requests differ in their number of candidates, {each}: a history's cost is "
            "shared by all candidates of a request, so that prices of a candidate do not "
            "compare the models alone."
        )


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
