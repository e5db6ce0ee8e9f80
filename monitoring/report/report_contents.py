"""The figures of a report, from which the page is rendered; NaN is an unknown figure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan

from srp4ctr.monitoring.quality.confidence_intervals import UNKNOWN, Interval, ratio
from srp4ctr.monitoring.report.period import Period


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float = nan
    interval: Interval = UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """The quality of a version, by its matured impressions."""

    num_windows: int = 0
    """Windows in which it was shown."""
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
    label_coverage: float = nan
    curve: tuple[tuple[float, float], ...] = ()
    """Mean score and click rate of each bin, the lowest scores first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a version's requests cost over the whole period."""

    requests: float = nan
    candidates: float = nan
    encoder_runs: float = nan
    cpu_s: float = nan
    flops: float = nan
    reencoded_flops: float = nan
    price_per_core_hour: float = nan
    p50_s: float = nan
    p99_s: float = nan

    @property
    def price(self) -> float:
        """The price of the CPU time."""
        return self.cpu_s / 3600 * self.price_per_core_hour

    @property
    def price_per_million(self) -> float:
        """The price of a million candidates."""
        return ratio(self.price * 1e6, self.candidates)

    @property
    def reencoded_price_per_million(self) -> float:
        """An estimate: it assumes that time is proportional to FLOPs."""
        return self.price_per_million * ratio(self.reencoded_flops, self.flops)

    @property
    def price_per_1000_requests(self) -> float:
        """The price of a thousand requests of the size that they had."""
        return ratio(self.price * 1000, self.requests)

    @property
    def cpu_s_per_1000_candidates(self) -> float:
        """CPU seconds per thousand candidates."""
        return ratio(self.cpu_s * 1000, self.candidates)

    @property
    def encoder_runs_per_request(self) -> float:
        """Below 1 where cached states of unchanged histories were used."""
        return ratio(self.encoder_runs, self.requests)

    @property
    def candidates_per_request(self) -> float:
        """The mean number of candidates."""
        return ratio(self.candidates, self.requests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A version's live inputs compared with those of its training, as last known."""

    score_psi: float = nan
    unseen_items: float = nan
    """Share of shown items that are not in its training data."""
    unseen_items_in_training: float = nan
    cold_users: float = nan
    """Share of requests of users without a history."""
    cold_users_in_training: float = nan


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFigures:
    """The figures of one version."""

    version: str
    is_serving: bool
    """At the period's end."""
    quality: Quality
    cost: Cost
    inputs: Inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionComparison:
    """CTR at position 1 of ``version`` less that of ``reference``, while both served."""

    version: str
    """The newer of the two, whichever of them serves."""
    reference: str
    difference: Estimate
    """With an anytime-valid confidence sequence."""
    impressions: int
    """Of version ``counted`` only; the monitor exports no count of the other."""
    counted: str

    @property
    def direction(self) -> int:
        """1: significantly better, -1: significantly worse, 0: not significant."""
        interval = self.difference.interval
        return (interval.low > 0) - (interval.high < 0)

    @property
    def has_interval(self) -> bool:
        """Whether there were enough impressions for one."""
        interval = self.difference.interval
        return interval.low > -1.0 and interval.high < 1.0


Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartLine:
    """One line over time: Unix seconds and values, with bounds where it has any."""

    versions: tuple[str, ...]
    """The version; for a difference, its baseline too."""
    points: Points
    low: Points = ()
    high: Points = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FiredAlert:
    """An alert that fired: its labels, when it first and last fired, and for how long."""

    name: str
    severity: str
    labels: Mapping[str, str]
    first_s: float
    last_s: float
    firing_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportScope:
    """The period, its data and the settings used."""

    period: Period
    covered: Period
    """From the monitor's first figures in the period to its last."""
    covered_share: float
    """Share of ``covered`` for which there are figures."""
    events: Period
    """When the impressions behind the quality figures were shown."""
    num_windows: int
    window_s: float
    label_window_s: float
    expected_difference: float
    currency: str
    price_per_core_hour: float
    num_alert_rules: int
    left_out: tuple[str, ...] = ()
    """Versions that are not shown because they had fewer impressions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """One report."""

    scope: ReportScope
    versions: tuple[VersionFigures, ...]
    """The oldest first."""
    comparisons: tuple[VersionComparison, ...]
    """The newest version's first."""
    lines: Mapping[str, tuple[ChartLine, ...]] = field(default_factory=dict)
    """By the names of ``promql.lines``."""
    alerts: tuple[FiredAlert, ...] = ()

    def of(self, version: str) -> VersionFigures | None:
        """Return the figures of ``version``, if it is in the report."""
        return next((each for each in self.versions if each.version == version), None)
