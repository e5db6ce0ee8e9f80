"""The file needs no network, runs no script, and shows the contents that it was given."""

import re
from dataclasses import replace

from srp4ctr.monitoring.report.charts import charts
from srp4ctr.monitoring.report.page import render_page, styles
from srp4ctr.monitoring.report.report_contents import (
    ChartLine,
    Cost,
    FiredAlert,
    Inputs,
    Quality,
)
from tests.monitoring.report.report_reader import read
from tests.monitoring.report.sample_contents import (
    DAY,
    START_S,
    a_comparison,
    a_scope,
    a_version,
    some_contents,
)

EVIL = '<script>alert("v2")</script><img src=x onerror=y>'
ALERT = FiredAlert(
    name="Srp4ctrCalibrationDrift",
    severity="ticket",
    labels={"model_version": "v2"},
    first_s=START_S,
    last_s=START_S + 3600,
    firing_s=3600.0,
)


def test_it_fetches_nothing_and_runs_no_script() -> None:
    html = render_page(some_contents(), START_S)
    seen = read(html)
    assert not re.search(r"(?i)https?:|//\w|@import|url\((?!#)", html)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in seen.tags}
    fetching = {"src", "href", "srcset", "data", "action"}
    assert not [tag for tag, found in seen.tags if fetching & set(found)]
    assert not [n for _, found in seen.tags for n in found if n.startswith("on")]
    policy = next(
        found["content"]
        for _, found in seen.tags
        if found.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_a_label_is_escaped() -> None:
    line = ChartLine(versions=(EVIL,), points=((START_S, 0.3), (START_S + 600, 0.31)))
    alert = replace(ALERT, name=EVIL, severity=EVIL, labels={EVIL: EVIL})
    html = render_page(
        some_contents(
            scope=a_scope(currency=EVIL, left_out=(EVIL,)),
            versions=(a_version("v1"), a_version(EVIL)),
            comparisons=(
                a_comparison(version=EVIL, counted=EVIL),
                a_comparison(reference=EVIL),
            ),
            lines={"top_click_rate": (line,)},
            alerts=(alert,),
        ),
        START_S,
    )
    seen = read(html)
    assert EVIL.replace('"', "&quot;") not in html
    assert not {"script", "img"} & {tag for tag, _ in seen.tags}
    assert EVIL in "".join(seen.texts)


def test_each_version_has_its_row_in_each_table() -> None:
    seen = read(render_page(some_contents(), START_S))
    figures = seen.figures_of("v2")
    assert figures["Impressions"] == "10,000"
    assert figures["CTR at position 1, %"] == "30.0 (28.0 to 32.0)"
    assert figures["Calibration"] == "1.02 (0.97 to 1.07)"
    assert figures["Price per million candidates"] == "1.00 USD"
    assert figures["Re-encoding per candidate"] == "20.0 USD"
    assert figures["CPU time per 1,000 candidates"] == "3.60 s"
    assert figures["Encoder runs per request"] == "0.75"
    assert figures["Latency p99"] == "12.3 ms"
    assert figures["Score PSI"] == "0.050"
    assert seen.figures_of("v1")[""] == "v1 serving"


def test_what_is_not_known_is_a_dash() -> None:
    nothing = a_version("v2", quality=Quality(), cost=Cost(), inputs=Inputs())
    html = render_page(some_contents(versions=(a_version("v1"), nothing)), START_S)
    figures = read(html).figures_of("v2")
    for column in (
        "CTR at position 1, %",
        "AUC",
        "Price per million candidates",
        "Score PSI",
    ):
        assert figures[column] == "–"
    assert "nan" not in read(html).text.lower()


def test_every_pair_has_a_row_if_there_are_several() -> None:
    pairs = (a_comparison(), a_comparison(-0.1, -0.2, -0.05, version="v3", counted="v1"))
    rows = read(render_page(some_contents(comparisons=pairs), START_S)).rows
    found = [row for row in rows if "Result" in row]
    assert [(r[""], r["Compared with"], r["Result"]) for r in found] == [
        ("v2", "v1", "better"),
        ("v3", "v1", "worse"),
    ]
    assert found[0]["Difference, percentage points"] == "2.00 (1.00 to 3.00)"


def test_an_alert_has_a_row_with_a_readable_title() -> None:
    (row,) = (
        row
        for row in read(render_page(some_contents(alerts=(ALERT,)), START_S)).rows
        if "Severity" in row
    )
    assert (row[""], row["Labels"], row["Total"]) == ("Calibration drift", "v2", "1 h")
    assert row["Fired (UTC)"] == "2025-06-15 15:06 to 2025-06-15 16:06"


def test_an_alert_that_fires_at_the_end_still_does() -> None:
    still = replace(ALERT, last_s=DAY.end_s)
    html = render_page(some_contents(alerts=(still,)), START_S)
    assert "since 2025-06-15 15:06, still firing" in read(html).text


def test_no_alert_and_no_alert_rules_are_distinguished() -> None:
    assert "None of 5 alerts fired." in read(render_page(some_contents(), START_S)).text
    without_rules = some_contents(scope=a_scope(num_alert_rules=0))
    assert "No alert could fire" in read(render_page(without_rules, START_S)).text


def test_a_version_keeps_its_colour_and_none_shares_it() -> None:
    versions = tuple(a_version(name) for name in ("nightly", "v3", "v8"))
    assert styles(some_contents(versions=versions)) == {
        "nightly": "s0",
        "v3": "s2",
        "v8": "s1",  # v3 has the third
    }
    assert styles(some_contents(versions=versions[1:2])) == {"v3": "s2"}


def test_each_chart_has_a_name_and_a_description_of_its_own() -> None:
    seen = read(render_page(some_contents(), START_S))
    drawn = [found for tag, found in seen.tags if tag == "svg"]
    ids = [found["id"] for _, found in seen.tags if "id" in found]
    assert len(drawn) == len(list(charts(some_contents()))) == 2
    assert len(set(ids)) == len(ids)
    for each in drawn:
        assert set(str(each["aria-labelledby"]).split()) <= set(ids)
