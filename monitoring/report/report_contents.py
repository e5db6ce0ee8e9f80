"""All that a report says, as numbers: what the page is drawn from.

NaN stands for what is not known.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isnan, nan

from srp4ctr.monitoring.quality.confidence_intervals import UNKNOWN, Interval
from srp4ctr.monitoring.report.period import Period


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float = nan
    interval: Interval = UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What a version's settled impressions say of it."""

    num_windows: int = 0
    """In which it was shown."""
    impressions: int = 0
    clicks: int = 0
    top_impressions: int = 0
    """At position 1."""
    click_rate: float = nan
    top_click_rate: Estimate = Estimate()
    normalized_entropy: float = nan
    auc: Estimate = Estimate()
    calibration: Estimate = Estimate()
    calibration_error: float = nan
    """Expected calibration error, of ten bins."""
    coverage: float = nan
    curve: tuple[tuple[float, float], ...] = ()
    """Mean score and click rate of each bin, the lowest scores first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a version's requests took, over the whole period."""

    requests: float = nan
    candidates: float = nan
    encoder_runs: float = nan
    cpu_s: float = nan
    flops: float = nan
    unfolded_flops: float = nan
    price_per_core_hour: float = nan
    p50_s: float = nan
    p99_s: float = nan

    @property
    def price(self) -> float:
        """Of the CPU time."""
        return self.cpu_s / 3600 * self.price_per_core_hour

    @property
    def price_per_million(self) -> float:
        """Of a million candidates."""
        return ratio(self.price * 1e6, self.candidates)

    @property
    def unfolded_price_per_million(self) -> float:
        """As if time went with the FLOPs: an estimate."""
        return self.price_per_million * ratio(self.unfolded_flops, self.flops)

    @property
    def price_per_1000_requests(self) -> float:
        """Of a thousand requests, as many candidates as they had."""
        return ratio(self.price * 1000, self.requests)

    @property
    def cpu_s_per_1000_candidates(self) -> float:
        """CPU time, in seconds."""
        return ratio(self.cpu_s * 1000, self.candidates)

    @property
    def encoder_runs_per_request(self) -> float:
        """Below 1 where the states of histories that have not changed were kept."""
        return ratio(self.encoder_runs, self.requests)

    @property
    def candidates_per_request(self) -> float:
        """How many items a request asks about."""
        return ratio(self.candidates, self.requests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a version met, beside what it learnt from; the newest that is known."""

    score_psi: float = nan
    unseen_items: float = nan
    """Share of the items shown that its training never saw."""
    unseen_items_in_training: float = nan
    cold_users: float = nan
    """Share of the requests of users without a history."""
    cold_users_in_training: float = nan


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFigures:
    """All that speaks for and against a version."""

    version: str
    is_serving: bool
    """At the period's end."""
    quality: Quality
    cost: Cost
    inputs: Inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """CTR at position 1 of ``version`` less that of ``reference``, while both served."""

    version: str
    """The newer of the two, whichever of them serves."""
    reference: str
    difference: Estimate
    """Its interval holds however often one looks."""
    impressions: int
    """Of ``counted`` alone; the other's are not told."""
    counted: str

    @property
    def verdict(self) -> int:
        """1: better, -1: worse, 0: not known."""
        interval = self.difference.interval
        return (interval.low > 0) - (interval.high < 0)

    @property
    def has_interval(self) -> bool:
        """Whether there were impressions enough for one."""
        interval = self.difference.interval
        return interval.low > -1.0 and interval.high < 1.0


Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One line over time: Unix seconds and values, with bounds where it has any."""

    versions: tuple[str, ...]
    """The version; for a difference, its baseline too."""
    points: Points
    low: Points = ()
    high: Points = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSpell:
    """An alert that fired: of what, when first and last, and how long in all."""

    name: str
    severity: str
    labels: Mapping[str, str]
    first_s: float
    last_s: float
    firing_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """What was watched, when, and by which settings."""

    period: Period
    heard: Period
    """From the monitor's first figures in the period to its last."""
    heard_share: float
    """Of the time in between."""
    events: Period
    """When the impressions were shown that the quality figures are of."""
    num_windows: int
    window_s: float
    label_window_s: float
    expected_difference: float
    currency: str
    price_per_core_hour: float
    num_alert_rules: int
    left_out: tuple[str, ...] = ()
    """Versions with fewer impressions than those shown, where there are too many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """One report."""

    grounds: Grounds
    versions: tuple[VersionFigures, ...]
    """The oldest first."""
    contrasts: tuple[Contrast, ...]
    """The newest version's first."""
    courses: Mapping[str, tuple[Course, ...]] = field(default_factory=dict)
    """By the names of ``questions.courses``."""
    alerts: tuple[AlertSpell, ...] = ()

    def of(self, version: str) -> VersionFigures | None:
        """Return the figures of ``version``, if it is in the report."""
        return next((each for each in self.versions if each.version == version), None)


def ratio(part: float, whole: float) -> float:
    """Return ``part / whole``; NaN where there is nothing to divide by."""
    return part / whole if whole and not isnan(whole) else nan
