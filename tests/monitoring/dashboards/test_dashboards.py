"""Dashboards: committed files equal the code's output, and the page can draw them."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from srp4ctr.monitoring.dashboards import (
    COLOURS,
    FOLDER,
    NAMES,
    PANEL_TYPES,
    PROPERTIES,
    TRANSFORMATIONS,
    UNITS,
    thresholds,
)
from srp4ctr.monitoring.dashboards.boards import BOARDS, PAGE, page, text
from srp4ctr.monitoring.dashboards.queries import MONEY
from tests.monitoring.boards import board, named_panels, panels
from tests.monitoring.metric_names import names_in, rules
from tests.structure.source_tree import ROOT, product_files

PROVISIONING = ROOT / "monitoring" / "grafana" / "provisioning"
TARGET_FIELDS = {
    "datasource",
    "editorMode",
    "expr",
    "format",
    "instant",
    "legendFormat",
    "range",
    "refId",
}
DEFAULTS = {
    "unit",
    "decimals",
    "min",
    "max",
    "thresholds",
    "mappings",
    "color",
    "noValue",
    "custom",
}
UNITS_OF = {"seconds": "s", "share": "percentunit", "click_rate": "percentunit"}
# Words in titles that keep their capitals.
CAPITALS = {"GPU", "GPUs", "CTR", "AUC", "PSI", "CPU", "FLOPs", "HTTP"}


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_file_is_what_its_module_makes(name: str) -> None:
    written = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    assert written == text(name), "run `make dashboards`"
    assert written.endswith("}\n")


def test_there_is_one_file_per_dashboard_and_no_other() -> None:
    assert set(BOARDS) == set(NAMES)
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.json" for name in NAMES}


def test_nothing_that_runs_needs_the_code_of_the_dashboards() -> None:
    importers = [
        file.path
        for file in product_files()
        if not file.path.startswith("monitoring/dashboards/")
        and any(
            module.startswith("srp4ctr.monitoring.dashboards.")
            for module in file.imported_modules()
        )
    ]
    assert importers == []


def test_panels_of_a_dashboard_fill_the_grid_without_overlap() -> None:
    for name in NAMES:
        places = [panel["gridPos"] for panel in board(name)["panels"]]
        cells = [
            (x, y)
            for place in places
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        height = max(y for _, y in cells) + 1
        assert len(cells) == len(set(cells)), name
        assert set(cells) == {(x, y) for x in range(24) for y in range(height)}, name


def test_no_panel_is_too_narrow_to_read() -> None:
    assert [where for where, panel in named_panels() if panel["gridPos"]["w"] < 4] == []


def test_panels_have_unique_ids_and_the_version_of_grafana_in_compose() -> None:
    for name in NAMES:
        numbers = [panel["id"] for panel in board(name)["panels"]]
        assert numbers == list(range(1, len(numbers) + 1))
        assert {panel["pluginVersion"] for panel in panels(name)} == {"11.4.0"}
    compose = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    assert "grafana/grafana:11.4.0" in compose


def test_every_panel_has_a_description_of_one_sentence() -> None:
    for where, panel in named_panels():
        sentence = panel["description"]
        assert re.match("[A-Z0-9]", sentence), where
        assert sentence.endswith("."), where
        assert not re.search(r"[.!?]\s", sentence), where


def test_titles_are_in_sentence_case() -> None:
    titles = [panel["title"] for name in NAMES for panel in board(name)["panels"]]
    titles += [board(name)["title"] for name in NAMES]
    for title in titles:
        first, *rest = re.findall(r"[A-Za-z]+", title)
        assert first[0].isupper(), title
        capitals = {word for word in rest if word.lower() != word}
        assert capitals <= CAPITALS, title


def test_every_panel_has_a_unit_that_is_known() -> None:
    for where, panel in named_panels():
        if panel["type"] == "text":
            continue
        config = panel["fieldConfig"]
        units = {config["defaults"]["unit"], panel["options"].get("yAxis", {}).get("unit")}
        units |= {p["value"] for p in _properties(panel) if p["id"] == "unit"}
        assert units - {None} <= UNITS, where


def test_a_metric_in_seconds_or_shares_is_shown_in_that_unit() -> None:
    """A metric's name ends in its unit; a rate or a ratio of it has another one."""
    shown = 0
    for where, panel in named_panels():
        config, axis = panel.get("fieldConfig", {}), panel["options"].get("yAxis", {})
        units = {config.get("defaults", {}).get("unit"), axis.get("unit")}
        for target in () if panel["type"] == "table" else panel.get("targets", ()):
            if re.search(r"/|\b(?:rate|increase)\((?!.*_bucket)", target["expr"]):
                continue
            for name in names_in([target["expr"]]):
                ends = [end for end in UNITS_OF if re.search(f"_{end}(?:_bucket)?$", name)]
                assert all(UNITS_OF[end] in units for end in ends), where
                shown += len(ends)
    assert shown > 30


def test_a_price_names_the_setting_of_its_currency_and_has_no_sign() -> None:
    priced = [(where, each) for where, each in named_panels() if MONEY in json.dumps(each)]
    assert len(priced) == 10
    for where, panel in priced:
        assert "monitoring.currency" in panel["description"], where
    assert "currencyUSD" not in json.dumps([board(name) for name in NAMES])


def test_thresholds_rise_and_have_a_green_range() -> None:
    judged = [
        (where, panel["fieldConfig"]["defaults"]["thresholds"])
        for where, panel in named_panels()
        if "thresholds" in panel.get("fieldConfig", {}).get("defaults", {})
    ]
    assert len(judged) > 30
    for where, limits in judged:
        values = [step["value"] for step in limits["steps"][1:]]
        assert limits["steps"][0]["value"] is None, where
        assert values == sorted(values), where
        assert "green" in {step["color"] for step in limits["steps"]}, where


@pytest.mark.parametrize(
    ("limits", "alert"),
    [
        (thresholds.CALIBRATION, "Srp4ctrCalibrationDrift"),
        (thresholds.ENCODER_RUNS, "Srp4ctrEncoderReuseLow"),
        (thresholds.DRIFT, "Srp4ctrScoreDrift"),
        (thresholds.EVIDENCE, "Srp4ctrSampleRatioMismatch"),
        (thresholds.BEHIND, "Srp4ctrFiguresOutOfDate"),
    ],
)
def test_a_panel_changes_its_colour_where_its_alert_fires(
    limits: Mapping[str, Any], alert: str
) -> None:
    numbers = re.findall(r"[<>] (\d[\d.]*)", rules("alert")[alert]["expr"])
    fires = {float(number) for number in numbers} - {0.0}
    assert fires
    assert fires <= {step["value"] for step in limits["steps"]}


def test_only_what_a_page_can_draw_is_used() -> None:
    for where, panel in named_panels():
        assert panel["type"] in PANEL_TYPES, where
        assert {t["id"] for t in panel.get("transformations", [])} <= TRANSFORMATIONS, where
        config = panel.get("fieldConfig", {"defaults": {}, "overrides": []})
        assert config["defaults"].keys() <= DEFAULTS, where
        assert {each["id"] for each in _properties(panel)} <= PROPERTIES, where
        matchers = {each["matcher"]["id"] for each in config.get("overrides", [])}
        assert matchers <= {"byName", "byRegexp"}, where
        for target in panel.get("targets", []):
            assert target.keys() <= TARGET_FIELDS, where
            assert target["instant"] != target["range"], where
            assert target.get("format", "table") in ("table", "heatmap"), where
            assert "$__" not in target["expr"].replace("$__range", ""), where


def test_headings_are_never_collapsed() -> None:
    for name in NAMES:
        rows = [panel for panel in board(name)["panels"] if panel["type"] == "row"]
        assert [row for row in rows if row["collapsed"] or row["panels"]] == [], name
        assert len(rows) >= 4, name


@pytest.mark.parametrize(
    ("kind", "may_differ"),
    [
        ("stat", {"textMode", "colorMode"}),
        ("timeseries", {"thresholdsStyle"}),
        ("bargauge", set()),
        ("state-timeline", set()),
    ],
)
def test_panels_of_a_type_are_alike(kind: str, may_differ: set[str]) -> None:
    looks = [
        {**panel["options"], **panel["fieldConfig"]["defaults"].get("custom", {})}
        for _, panel in named_panels()
        if panel["type"] == kind
    ]
    fixed = [{k: v for k, v in look.items() if k not in may_differ} for look in looks]
    assert len(fixed) >= 3
    assert [look for look in fixed if look != fixed[0]] == []


def test_colours_are_named_ones_or_hexadecimal() -> None:
    for where, panel in named_panels():
        colours = set(_colours(panel.get("fieldConfig", {})))
        hexadecimal = {colour for colour in colours if re.fullmatch("#[0-9a-f]{6}", colour)}
        assert colours - hexadecimal <= COLOURS, where


def test_legends_are_short() -> None:
    for where, panel in named_panels():
        for target in panel.get("targets", []):
            fixed = re.sub(r"\{\{.*?\}\}", "", target.get("legendFormat", ""))
            assert len(fixed) <= 24, where


def test_a_figure_stays_one_figure_when_another_version_is_promoted() -> None:
    """A range query has one series per version; a stat would show the retired one."""
    for where, panel in named_panels():
        for target in panel["targets"] if panel["type"] in ("stat", "bargauge") else ():
            assert target["instant"] or "{{" not in target.get("legendFormat", ""), where
            assert target["instant"] or re.match(
                r"(sum|max|min|count|histogram_quantile) ?\(", target["expr"]
            ), where


def test_columns_of_a_curve_are_columns_of_its_table() -> None:
    curves = [panel for _, panel in named_panels() if panel["type"] == "xychart"]
    assert curves
    for panel in curves:
        (organize,) = [t for t in panel["transformations"] if t["id"] == "organize"]
        columns = set(organize["options"]["renameByName"].values())
        for series in panel["options"]["series"]:
            assert {series[axis]["matcher"]["options"] for axis in "xy"} <= columns


def test_dashboards_are_linked_with_each_other() -> None:
    boards = [board(name) for name in NAMES]
    assert len({board["uid"] for board in boards}) == len(NAMES)
    for each in boards:
        (link,) = each["links"]
        assert (link["type"], link["asDropdown"]) == ("dashboards", False)
        assert link["keepTime"]
        assert link["includeVars"]
        assert link["tags"] == each["tags"] == ["srp4ctr"]


def test_the_variable_is_there_where_it_is_used() -> None:
    for name in NAMES:
        variables = board(name).get("templating", {}).get("list", [])
        is_used = any(
            "$model_version" in target["expr"]
            for panel in panels(name)
            for target in panel.get("targets", [])
        )
        assert [variable["name"] for variable in variables] == ["model_version"] * is_used
        assert all(variable["multi"] and variable["includeAll"] for variable in variables)


def test_the_source_is_the_one_that_is_provisioned() -> None:
    path = PROVISIONING / "datasources" / "prometheus.yml"
    (source,) = yaml.safe_load(path.read_text(encoding="utf-8"))["datasources"]
    expected = {"type": source["type"], "uid": source["uid"]}
    used = [p["datasource"] for _, p in named_panels() if p["type"] != "text"]
    used += [t["datasource"] for _, p in named_panels() for t in p.get("targets", [])]
    assert len(used) > 100
    assert [each for each in used if each != expected] == []


def _properties(panel: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for override in panel.get("fieldConfig", {}).get("overrides", []):
        yield from override["properties"]


def _colours(part: object) -> Iterator[str]:
    """Yield every colour that is named somewhere in a panel's field configuration."""
    if isinstance(part, list):
        for each in part:
            yield from _colours(each)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key in ("color", "fixedColor") and isinstance(value, str):
                yield value
            else:
                yield from _colours(value)


def test_the_page_of_all_panels_is_what_the_dashboards_say() -> None:
    written = PAGE.read_text("utf-8")
    assert written == page(), "run `make dashboards`"
    for _, panel in named_panels():
        assert f"| {panel['title']} | " in written
