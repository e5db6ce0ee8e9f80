"""The command with a real Prometheus: its report equals a recount of the labels."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.monitoring.prometheus import Prometheus
from srp4ctr.monitoring.quality.ab_test import AbTest
from srp4ctr.monitoring.quality.quality_sums import QualitySums, SettledImpression
from srp4ctr.monitoring.quality.user_groups import user_group
from srp4ctr.monitoring.report.build import build_contents
from srp4ctr.monitoring.report.number_format import SPACE, count, estimate, percent
from srp4ctr.monitoring.report.page import render_page
from srp4ctr.monitoring.report.period import Period, utc_minute
from srp4ctr.monitoring.report.report_contents import Estimate
from tests.monitoring.conftest import LABEL_WINDOW_MS, MINUTE_MS
from tests.monitoring.report.conftest import Serve, last_minute_ms
from tests.monitoring.report.report_reader import ReadReport, read
from tests.monitoring.report.simulated_traffic import Ranker, Traffic

HOURS = 5
V2_STARTS = 100  # minutes
RANKERS = (
    Ranker(version="v1", top_rate=0.3, per_minute=6),
    Ranker(
        version="v2",
        top_rate=0.55,
        score_factor=1.3,
        cpu_ms=8.0,
        answers_under="0.02",
        per_minute=6,
        starts_minute=V2_STARTS,
    ),
)
FIRED = (
    'ALERTS{{alertname="Srp4ctrCalibrationDrift",alertstate="firing",severity="ticket",'
    'source="labels",model_version="v2"}} 1 {at_s}'
)


@dataclass(frozen=True, slots=True)
class Served:
    """Traffic, and the Prometheus that has its series."""

    traffic: Traffic
    url: str

    @property
    def period(self) -> Period:
        return Period(
            start_s=self.traffic.start_ms / 1000, end_s=self.traffic.end_ms / 1000
        )

    def outcomes(self, until_ms: int, since_ms: int = 0) -> list[SettledImpression]:
        """Return what was shown after ``since_ms`` and by ``until_ms``."""
        return [
            SettledImpression(
                model_version=each.model_version or "",
                request=(each.user_id, each.request_id),
                user_group=user_group(each.user_id),
                position=each.position,
                shown_at=each.impression_at,
                score=each.score,
                is_click=each.clicked,
                is_late_click=False,
            )
            for each in self.traffic.labels
            if since_ms < each.impression_at <= until_ms
        ]


def is_close(found: str, expected: str) -> bool:
    """Return whether the numbers of two texts agree.

    A report adds up windows, whose intervals it takes as independent.
    """
    ours, theirs = (
        [float(each) for each in re.findall(r"\d+\.\d+", text)]
        for text in (found, expected)
    )
    return ours == pytest.approx(theirs, rel=0.05)


@pytest.fixture(scope="module")
def served(serve: Serve) -> Served:
    end_ms = last_minute_ms()
    traffic = Traffic(rankers=RANKERS, end_ms=end_ms, minutes=HOURS * 60, serving="v1")
    fired = (FIRED.format(at_s=end_ms // 1000 - 60 * ago) for ago in range(90, 30, -1))
    return Served(traffic, serve(traffic, tuple(fired)))


@pytest.fixture
def reported(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ReadReport]:
    monkeypatch.setenv("SRP4CTR_MONITORING__PROMETHEUS_URL", served.url)

    def report(*options: str) -> ReadReport:
        path = tmp_path / "report.html"
        done = CliRunner().invoke(app, ["monitor", "report", "-o", str(path), *options])
        if done.exception:
            raise done.exception
        return read(path.read_text(encoding="utf-8"))

    return report


def clock(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()


def test_the_figures_are_those_of_a_recount(
    served: Served, reported: Callable[..., ReadReport]
) -> None:
    seen = reported("--since", f"{HOURS}h", "--until", clock(served.traffic.end_ms))
    # Whole hours, back from the newest impression whose label window has closed.
    newest_ms = served.traffic.end_ms - LABEL_WINDOW_MS
    oldest_ms = newest_ms - HOURS * 60 * MINUTE_MS
    for version in ("v1", "v2"):
        sums = QualitySums()
        for each in served.outcomes(newest_ms, oldest_ms):
            if each.model_version == version:
                sums.update(each, 1)
        exact, figures = sums.quality(version), seen.figures_of(version)
        assert figures["Impressions"] == count(exact.impressions)
        assert figures["Clicks"] == count(exact.clicks)
        assert figures["Impressions at position 1"] == count(exact.top_impressions)
        at_top = Estimate(
            value=exact.top_click_rate, interval=exact.top_click_rate_interval
        )
        assert is_close(figures["CTR at position 1, %"], estimate(at_top, 1, 100))
        calibration = Estimate(
            value=exact.calibration_ratio, interval=exact.calibration_interval
        )
        assert is_close(figures["Calibration"], estimate(calibration, 2))
        assert figures["Normalised entropy"] == f"{exact.normalized_entropy:.3f}"
        auc = float(figures["AUC"].split(" ")[0])  # of each hour's frequent positions
        assert auc == pytest.approx(exact.auc.value, abs=0.03)
        assert figures["Label coverage"] == "100.0 %"
    error = percent(exact.calibration_ratio - 1, 0).replace(SPACE, " ")
    assert f"v2 over-predicts by {error}" in seen.text
    said = re.search(r"is ([\d.]+ \([^)]*\)) times its clicks", seen.text)
    assert said
    assert is_close(said[1], estimate(calibration, 2))


def test_costs_are_those_of_the_counters(reported: Callable[..., ReadReport]) -> None:
    seen = reported("--since", f"{HOURS}h")
    one, other = seen.figures_of("v1"), seen.figures_of("v2")
    assert one["CPU time per 1,000 candidates"] == "40.0 ms"
    assert other["CPU time per 1,000 candidates"] == "80.0 ms"
    assert one["Price per million candidates"] == "0.000500 USD"  # 40 s at 0.045 an hour
    assert other["Price per million candidates"] == "0.00100 USD"
    # By the cost card: 100 candidates of 6 MFLOP, for 5 × 0.75 + 0.1 + 1.
    assert one["Re-encoding per candidate"] == "0.0619 USD"
    assert one["Encoder runs per request"] == "0.75"
    assert (one["Candidates per request"], one["Score PSI"]) == ("100", "0.040")
    assert one["Unseen items"] == "3.0 % (2.0 % in training)"
    assert 7.5 <= float(one["Latency p99"].removesuffix(" ms")) <= 10
    assert 15 <= float(other["Latency p99"].removesuffix(" ms")) <= 20


def test_the_headline_is_that_of_the_comparison(
    served: Served, reported: Callable[..., ReadReport]
) -> None:
    comparison = AbTest()
    for each in served.outcomes(served.traffic.end_ms - LABEL_WINDOW_MS):
        comparison.update(each, 1)
    (exact,) = comparison.differences("v1")
    text = reported("--since", f"{HOURS}h").text
    assert exact.verdict == 1
    assert "v2 earns more clicks than v1" in text
    assert f"is {100 * exact.click_rate:.2f} percentage points above" in text
    low, high = 100 * exact.interval.low, 100 * exact.interval.high
    assert f"95 % confidence sequence +{low:.2f} to +{high:.2f}" in text
    assert f"n = {exact.impressions:,} impressions of v2" in text
    assert "2.0 times as much" in text


def test_every_chart_is_there_and_the_alert_that_fired(
    reported: Callable[..., ReadReport],
) -> None:
    seen = reported("--since", f"{HOURS}h")
    assert len([tag for tag, _ in seen.tags if tag == "svg"]) == 7
    assert "Label window 30 min: an impression waits" in seen.text
    (alert,) = (row for row in seen.rows if "Severity" in row)
    assert (alert[""], alert["Labels"], alert["Severity"]) == (
        "Calibration drift",
        "v2",
        "ticket",
    )
    assert alert["Total"] in ("1 h", "1.1 h")  # it may have fired a minute longer


def test_before_the_second_version_there_is_nothing_to_compare(
    served: Served, reported: Callable[..., ReadReport]
) -> None:
    until = clock(served.traffic.start_ms + (V2_STARTS - 5) * MINUTE_MS)
    seen = reported("--since", "90m", "--until", until)
    assert "Only v1 served: there is nothing to compare it with" in seen.text
    assert seen.figures_of("v1")["Impressions"] != "0"
    assert seen.figures_of("v2") == {}


def test_a_time_without_figures_says_what_to_do(
    served: Served, reported: Callable[..., ReadReport]
) -> None:
    with pytest.raises(OutageError, match="has nothing of the monitor from 2"):
        reported("--since", "1h", "--until", clock(served.traffic.start_ms - 3_600_000))


def test_a_time_in_which_nothing_was_ranked_is_said_to_be_empty(serve: Serve) -> None:
    silent = Traffic(rankers=(), end_ms=last_minute_ms(), minutes=20, serving="v1")
    there = Served(silent, serve(silent, ()))
    with pytest.raises(OutageError, match="no model served"):
        build_contents(Prometheus(there.url), there.period, 0.02)


def test_an_alert_after_the_monitor_ended_is_still_firing(serve: Serve) -> None:
    until_s = last_minute_ms() // 1000
    ended = Traffic(
        rankers=RANKERS[:1],
        end_ms=1000 * (until_s - 3600),
        minutes=2 * LABEL_WINDOW_MS // MINUTE_MS,
        serving="v1",
    )
    fired = (FIRED.format(at_s=until_s - 60 * ago) for ago in range(40, -1, -1))
    url = serve(ended, tuple(fired))
    # A clock is finer than the milliseconds that Prometheus answers with.
    period = Period(start_s=ended.start_ms / 1000, end_s=until_s + 0.0004)
    contents = build_contents(Prometheus(url), period, 0.02)
    seen = read(render_page(contents, period.end_s))
    (alert,) = (row for row in seen.rows if "Severity" in row)
    assert alert[""] == "Calibration drift"
    assert alert["Fired (UTC)"].endswith("still firing")
    end = utc_minute(contents.scope.covered.end_s)
    assert f"The monitor's data end at {end} UTC" in seen.text


def test_prometheus_error_message_is_raised(served: Served) -> None:
    with pytest.raises(MistakeError, match="parse error"):
        Prometheus(served.url).at("sum(", 0.0)
