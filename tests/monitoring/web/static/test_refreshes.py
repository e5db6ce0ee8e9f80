"""What a refresh or a choice leaves as it is: scrolled, opened and focused elements."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from srp4ctr.monitoring.web.app import PageSources
from tests.monitoring.web.browser_page import READY, run
from tests.monitoring.web.conftest import serving


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with serving(PageSources(prometheus_url="")) as address:
        opened = browser.new_page()
        opened.goto(address)
        opened.wait_for_selector(READY)
        yield opened
        opened.close()


def a_field(values: list[Any], **more: Any) -> dict[str, Any]:
    config: dict[str, Any] = {}
    return {"name": "n", "type": "number", "values": values, "config": config} | more


PANELS = """(() => {
  const content = document.createElement("div");
  content.style = "height: 60px; display: flex; flex-direction: column";
  document.body.append(content);
  const draw = () => m[given.name](content, given.panel, given.frames, given.context);
  draw();
  content.firstElementChild.scrollTop = 30;
  draw();
  return content.firstElementChild.scrollTop;
})()"""


@pytest.mark.parametrize("name", ["table", "timeline", "bargauge", "text"])
def test_a_panel_that_is_drawn_again_stays_scrolled(page: Page, name: str) -> None:
    times = [1000 * i for i in range(40)]
    time = {"name": "Time", "type": "time", "values": times, "config": {}}
    rows = [*range(40)]
    frames = [{"fields": [a_field(rows), time]}] * (1 if name == "table" else 40)
    given = {
        "name": name,
        "panel": {"options": {"content": "word\n\n" * 40}},
        "frames": frames,
        "context": {"window": {"start": 0, "length": 40, "step": 1}},
    }
    assert run(page, f"/static/panels/{name}.js", PANELS, given) == 30


@pytest.mark.parametrize(
    ("values", "label"), [([None, 1], "now 1"), ([1, None], "nothing now")]
)
def test_a_state_that_has_ended_is_not_of_now(
    page: Page, values: list[float | None], label: str
) -> None:
    time = {"name": "Time", "type": "time", "values": [1000, 2000], "config": {}}
    script = (
        "(() => { const place = document.createElement('div');"
        "m.timeline(place, {}, given, {window: {start: 0, length: 2, step: 1}});"
        "return place.querySelector('.states').getAttribute('aria-label'); })()"
    )
    found = run(
        page, "/static/panels/timeline.js", script, [{"fields": [a_field(values), time]}]
    )
    assert found == label


def test_metrics_without_values_that_were_opened_stay_open(page: Page) -> None:
    script = """(() => {
      const table = new m.ValuesTable();
      document.body.append(table.element);
      table.pages = given;
      table.show();
      table.element.querySelector("details").open = true;
      table.element.querySelector("summary").focus();
      table.show();
      const { activeElement } = document;
      return [table.element.querySelector("details").open, activeElement.localName];
    })()"""
    metric = {"name": "m", "help": "A metric.", "values": []}
    exporter = {"job": "monitor", "url": "http://x", "problem": "", "metrics": [metric]}
    assert run(page, "/static/values.js", script, [exporter]) == [True, "summary"]


def test_a_box_that_is_checked_keeps_the_focus_and_its_list_open(page: Page) -> None:
    script = """(() => {
      const board = {templating: {list: [{name: "version"}]}};
      const variables = new m.Variables(board, new URLSearchParams(), () => {});
      document.body.append(variables.element);
      variables.all[0].options = ["v1", "v2"];
      variables.show();
      variables.element.querySelector("details").open = true;
      const box = variables.element.querySelectorAll("input")[1];
      box.focus();
      box.click();
      const {activeElement} = document;
      return [activeElement.checked, activeElement.parentElement.textContent,
        variables.element.querySelector("details").open];
    })()"""
    assert run(page, "/static/variables.js", script) == [True, "v1", True]


@pytest.mark.parametrize("name", ["Last 1h", "Switch to the"])
def test_a_button_that_is_pressed_keeps_the_focus(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name=name)).to_be_focused()
