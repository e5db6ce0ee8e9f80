"""What each type of panel shows of Prometheus's answers."""

from math import inf, nan
from typing import Any

import pytest

from srp4ctr.monitoring.dashboards import PANEL_TYPES
from srp4ctr.monitoring.web.answers import Line
from srp4ctr.monitoring.web.drawings import (
    DRAWINGS,
    PALETTE,
    draw,
    line_colours,
    natural,
    states,
)
from srp4ctr.monitoring.web.fields import Field, field_of
from tests.monitoring.web.stub_prometheus import Stub, organized, panel, target, view

LIMITS = {
    "mode": "absolute",
    "steps": [{"color": "green", "value": None}, {"color": "red", "value": 0.9}],
}
WORDS = [{"type": "value", "options": {"1": {"text": "better", "color": "green"}}}]
ONE = Stub({"x": [({"v": "v1"}, [0.5, 0.6, 0.7])]})


def test_every_type_of_the_dashboards_is_drawn_and_no_other() -> None:
    assert DRAWINGS.keys() == PANEL_TYPES


@pytest.mark.parametrize("kind", sorted(PANEL_TYPES - {"table", "xychart", "text"}))
def test_a_panel_without_data_is_not_drawn(kind: str) -> None:
    empty = panel(kind, target("none"), options={"yAxis": {"unit": "s"}})
    assert draw(empty, view(Stub({}))) is None


def test_an_override_changes_the_values_that_it_names() -> None:
    shown = panel("stat", target("x"), defaults={"unit": "s", "thresholds": LIMITS})
    set_unit = [{"id": "unit", "value": "none"}, {"id": "mappings", "value": WORDS}]
    matcher = {"id": "byRegexp", "options": "/ (low|high)$/"}
    shown["fieldConfig"]["overrides"] = [{"matcher": matcher, "properties": set_unit}]
    low, other = field_of(shown, "v1 low"), field_of(shown, "v1")
    assert [low.text(1.0), low.text(3.0), other.text(3.0)] == ["better", "3", "3 s"]
    assert [other.colour(0.5), other.colour(0.9)] == ["var(--green)", "var(--red)"]
    assert low.colour(1.0) == "var(--green)"


def test_a_figure_has_its_colour_its_name_and_its_past() -> None:
    shown = panel(
        "stat",
        target("x", "{{v}}"),
        defaults={"unit": "percentunit", "thresholds": LIMITS},
        options={"textMode": "value_and_name", "colorMode": "background"},
    )
    drawn = draw(shown, view(ONE))
    assert drawn
    assert '<span class="stat-name">v1</span><span class="stat-value">70%</span>' in drawn
    assert 'style="--colour:var(--green)"' in drawn
    assert 'class="spark"' in drawn


def test_a_legend_has_the_last_value_with_its_interval() -> None:
    stub = Stub(
        {
            "x": [({"v": "v1"}, [0.5]), ({"v": "<v2>"}, [0.7])],
            "b": [
                ({"v": "v1", "bound": "low"}, [0.4]),
                ({"v": "v1", "bound": "high"}, [0.6]),
            ],
        }
    )
    shown = panel("timeseries", target("x", "{{v}}"), target("b", "{{bound}}"))
    drawn = draw(shown, view(stub))
    assert drawn
    assert "<span>v1</span><b>0.5</b><span>(0.4 to 0.6)</span>" in drawn
    assert "<span>&lt;v2&gt;</span><b>0.7</b></li>" in drawn
    assert drawn.count("<li>") == 2
    assert "00:00:00\nv1 0.5\n&lt;v2&gt; 0.7" in drawn  # what a pointer reads


def test_a_line_has_its_own_colour_or_the_next_of_the_palette() -> None:
    fixed = Field(config={"color": {"mode": "fixed", "fixedColor": "#1ab3a6"}})
    plain = Field(config={})
    assert line_colours([plain, plain]) == [*PALETTE[:2]]
    assert line_colours([fixed, plain]) == ["#1ab3a6", PALETTE[-1]]


def test_lines_beyond_forty_are_counted() -> None:
    stub = Stub({"x": [({"v": str(place)}, [1.0]) for place in range(43)]})
    drawn = draw(panel("timeseries", target("x", "{{v}}")), view(stub))
    assert drawn
    assert "and 3 more" in drawn


def test_a_heatmap_has_the_counts_between_cumulative_buckets() -> None:
    stub = Stub(
        {
            "x": [
                ({"le": "0.1"}, [0.0]),
                ({"le": "0.5"}, [3.0]),
                ({"le": "1"}, [3.0]),
                ({"le": "+Inf"}, [4.0]),
            ]
        }
    )
    shown = panel("heatmap", target("x", "{{le}}"), options={"yAxis": {"unit": "s"}})
    drawn = draw(shown, view(stub))
    assert drawn
    assert drawn.count("<rect") == 2
    assert "opacity:1.00" in drawn  # 3 of at most 3
    assert "opacity:0.43" in drawn  # 1 of 3
    assert "≤ 500 ms" in drawn
    assert "&gt; 1 s" in drawn
    assert "≤ 100 ms" not in drawn  # nothing was observed there


def test_bars_are_shares_of_the_longest() -> None:
    stub = Stub({"x": [({"v": "a"}, [0.2]), ({"v": "b"}, [0.4])]})
    drawn = draw(panel("bargauge", target("x", "{{v}}", instant=True)), view(stub))
    assert drawn
    assert "--share:50%" in drawn
    assert "--share:100%" in drawn


def test_equal_states_are_one_stretch_and_a_gap_ends_it() -> None:
    line = Line(name="", labels={}, times_s=(10, 20, 30, 40, 50), values=(1, 1, None, 1, 0))
    assert states(line, 10) == [(0, 20, 1), (30, 40, 1), (40, 50, 0)]


@pytest.mark.parametrize(
    ("values", "label"), [([1.0] * 11, "now better"), ([1.0, nan], "nothing now")]
)
def test_a_timeline_says_the_state_of_now(values: list[float], label: str) -> None:
    stub = Stub({"x": [({"v": "a"}, values)]})
    defaults = {"mappings": WORDS}
    shown = panel("state-timeline", target("x", "{{v}}"), defaults=defaults)
    drawn = draw(shown, view(stub))
    assert drawn
    assert f'aria-label="{label}"' in drawn


def a_table(kind: str, **options: Any) -> dict[str, Any]:
    return panel(
        kind,
        target("x", refId="A"),
        target("y", refId="B"),
        transformations=organized(v="Version", Value_A="Score", Value_B="Rate"),
        options=options,
    )


def test_a_table_is_sorted_by_numbers_in_names() -> None:
    stub = Stub({"x": [({"v": f"v{n}"}, [n]) for n in (9, 10, 2)], "y": []})
    sort = {"displayName": "Version", "desc": True}
    drawn = draw(a_table("table", sortBy=[sort]), view(stub))
    assert drawn
    places = [drawn.index(f"<span>v{n}</span>") for n in (10, 9, 2)]
    assert places == sorted(places)
    assert drawn.count("<span>–</span>") == 3  # the column without values
    assert natural("v10") > natural("v9") > natural(None)


def test_a_curve_is_drawn_from_left_to_right_with_a_reading_per_row() -> None:
    series = {
        "name": {"fixed": "v1"},
        "x": {"matcher": {"id": "byName", "options": "Score"}},
        "y": {"matcher": {"id": "byName", "options": "Rate"}},
    }
    bins = {"x": [({"v": "1"}, [1.0]), ({"v": "0"}, [0.0])], "y": [({"v": "1"}, [1.0])]}
    bins["y"].append(({"v": "0"}, [0.5]))
    drawn = draw(a_table("xychart", series=[series]), view(Stub(bins)))
    assert drawn
    assert "Score 0\nRate 0.5" in drawn
    assert 'class="line"' in drawn
    assert draw(a_table("xychart", series=[series]), view(Stub({}))) is None


def test_a_note_has_its_bold_and_emphasized_words_and_no_html() -> None:
    content = "A **bold** and *soft* <img src=x>.\n\nMore."
    assert draw(panel("text", options={"content": content}), view(Stub({}))) == (
        '<div class="prose"><p>A <strong>bold</strong> and <em>soft</em> &lt;img src=x&gt;.'
        "</p><p>More.</p></div>"
    )


def test_an_infinite_bound_is_written() -> None:
    assert Field(config={"unit": "s"}).text(inf) == "∞"
