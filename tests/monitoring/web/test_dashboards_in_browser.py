"""The dashboards in a real Chromium, drawn from a real Prometheus."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from srp4ctr.monitoring.dashboards import load_boards
from srp4ctr.monitoring.web.app import PageSources
from tests.monitoring.web import sample_board
from tests.monitoring.web.browser_page import READY, TOO_WIDE, checked_page
from tests.monitoring.web.conftest import serving

WIDTHS = {"desktop": 1280, "phone": 390}
STATES = """() => Object.fromEntries([...document.querySelectorAll(".panel")].map(
  (panel) => [panel.dataset.title, panel.dataset.state]))"""
CONTRAST = Path(__file__).with_name("contrast.js").read_text()


@pytest.fixture(scope="module")
def address(
    prometheus: str, exporter: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = sample_board.write(tmp_path_factory.mktemp("boards"))
    exporters = {"monitor": exporter}
    sources = PageSources(prometheus_url=prometheus, exporters=exporters, dashboards=folder)
    with serving(sources) as served:
        yield served


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_panel_of_each_kind_draws(
    browser: Browser, address: str, width: str, theme: str
) -> None:
    size = {"width": WIDTHS[width], "height": 900}
    with checked_page(browser, viewport=size, color_scheme=theme) as page:
        page.goto(address)
        page.wait_for_selector(READY)
        states = page.evaluate(STATES)
        assert states.pop("Nothing yet") == "empty"
        assert set(states.values()) == {"drawn"}, states
        assert page.evaluate(TOO_WIDE) <= 0
        ratio, text = page.evaluate(CONTRAST)
        assert ratio >= 4.5, text
        # What is drawn is there to be seen.
        for plot in page.locator(".plot").all():
            box = plot.locator("svg.main-svg").first.bounding_box()
            assert box
            assert box["height"] > 80
            assert box["width"] > 150


def panel(page: Page, title: str) -> Locator:
    return page.locator(f'[data-title="{title}"]')


def test_the_content_of_panels(browser: Browser, address: str) -> None:
    with checked_page(browser) as page:
        page.goto(address)
        page.wait_for_selector(READY)
        expect(page.get_by_role("heading", name="A sample")).to_be_visible()
        expect(panel(page, "Verdict")).to_contain_text("better")
        expect(panel(page, "Nothing yet")).to_contain_text(
            "No data yet: srp4ctr_probe_failures_total has no value so far. Probes that"
        )
        rows = panel(page, "Versions").locator("tbody tr")
        expect(rows).to_have_count(2)
        expect(rows.first).to_contain_text("v2")
        expect(rows.first).to_contain_text("better")
        expect(panel(page, "Sources").locator(".state").first).to_have_text("up")
        expect(panel(page, "Lines with their bounds").locator(".legend li")).to_have_count(
            2
        )
        expect(
            panel(page, "Lines with their bounds").locator(".legend li").first
        ).to_contain_text(" to ")
        expect(
            panel(page, "Request duration").locator("image, .heatmaplayer")
        ).not_to_have_count(0)
        tip = page.locator(".tip").first
        expect(tip).not_to_be_visible()
        page.locator(".about").first.focus()
        page.keyboard.press("Tab")
        page.keyboard.press("Shift+Tab")
        expect(tip).to_be_visible()
        expect(tip).to_have_text("How often the first item is clicked.")


def test_a_picked_version_goes_into_queries_titles_and_the_address(
    browser: Browser, address: str
) -> None:
    with checked_page(browser) as page:
        page.goto(address)
        page.wait_for_selector(READY)
        stats = page.locator('[data-title="Click rate of $version"] .stat')
        expect(stats).to_have_count(2)
        page.locator("details.variable summary").click()
        page.get_by_role("checkbox", name="v2").check()
        expect(stats).to_have_count(1)
        expect(page.get_by_role("heading", name="Click rate of v2")).to_be_visible()
        assert "var-version=v2" in page.url
        page.reload()
        expect(stats).to_have_count(1)


def test_a_range_is_queried_and_kept_on_the_next_page(
    browser: Browser, address: str
) -> None:
    with checked_page(browser) as page:
        page.goto(address)
        page.wait_for_selector(READY)
        with page.expect_request(lambda request: "query_range" in request.url) as sent:
            page.get_by_role("button", name="Last 1h").click()
        parameters = dict(
            part.split("=") for part in sent.value.url.partition("?")[2].split("&")
        )
        assert float(parameters["end"]) - float(parameters["start"]) == 3600
        page.get_by_role("link", name="Current values").first.click()
        expect(page.get_by_role("heading", name="Current values")).to_be_visible()
        page.go_back()
        pressed = page.get_by_role("button", name="Last 1h")
        expect(pressed).to_have_attribute("aria-pressed", "true")


def test_the_theme_that_was_switched_to_is_remembered(
    browser: Browser, address: str
) -> None:
    with checked_page(browser, color_scheme="light") as page:
        ground = "() => getComputedStyle(document.body).backgroundColor"
        page.goto(address)
        page.wait_for_selector(READY)
        before = page.evaluate(ground)
        page.get_by_role("button", name="Switch to the dark theme").click()
        after = page.evaluate(ground)
        assert before != after
        page.reload()
        assert page.evaluate(ground) == after


def test_a_hidden_tab_sends_no_request(browser: Browser, address: str) -> None:
    with checked_page(browser) as page:
        page.add_init_script(
            "Object.defineProperty(document, 'hidden', {get: () => window.away ?? false})"
        )
        page.clock.install()
        page.goto(address)
        page.wait_for_selector(READY)
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.evaluate("window.away = true")
        page.clock.run_for(30_000)
        page.wait_for_timeout(200)
        assert requests == []
        page.evaluate(
            "window.away = false; document.dispatchEvent(new Event('visibilitychange'))"
        )
        expect(page.locator(".updated")).to_be_visible()
        page.wait_for_timeout(500)
        assert any("query" in url for url in requests)


def test_a_paused_page_sends_no_request_until_it_is_live_again(
    browser: Browser, address: str
) -> None:
    with checked_page(browser) as page:
        page.clock.install()
        page.goto(address)
        page.wait_for_selector(READY)
        page.get_by_role("button", name="Live").click()
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.clock.run_for(30_000)
        page.wait_for_timeout(200)
        assert requests == []
        with page.expect_request(lambda request: "query" in request.url):
            page.get_by_role("button", name="Paused").click()


@pytest.mark.parametrize("width", WIDTHS)
def test_without_prometheus_it_says_how_to_get_it_and_shows_current_values(
    browser: Browser, exporter: str, width: str
) -> None:
    exporters = {"monitor": exporter, "stream": "http://127.0.0.1:9/metrics"}
    sources = PageSources(prometheus_url="", exporters=exporters)
    size = {"width": WIDTHS[width], "height": 900}
    with serving(sources) as served, checked_page(browser, viewport=size) as page:
        page.goto(served)
        page.wait_for_selector(READY)
        expect(page.locator(".notice")).to_contain_text("sudo apt install prometheus")
        monitor = page.locator('[data-job="monitor"]')
        expect(monitor).to_contain_text("srp4ctr_verdict")
        expect(page.locator('[data-job="stream"]')).to_contain_text("does not answer")
        page.get_by_label("Filter the metrics").fill("verdict")
        expect(monitor.locator("tbody tr")).to_have_count(1)
        assert page.evaluate(TOO_WIDE) <= 0


@pytest.mark.parametrize("width", WIDTHS)
def test_each_dashboard_of_the_project_loads(
    browser: Browser, prometheus: str, exporter: str, width: str
) -> None:
    sources = PageSources(prometheus_url=prometheus, exporters={"monitor": exporter})
    size = {"width": WIDTHS[width], "height": 900}
    with serving(sources) as served, checked_page(browser, viewport=size) as page:
        for name in load_boards():
            page.goto(f"{served}/d/{name}")
            page.wait_for_selector(READY)
            states = page.evaluate(STATES)
            assert states
            assert page.locator("[data-state=error]").all_inner_texts() == []
            assert page.evaluate(TOO_WIDE) <= 0


def test_prices_are_in_the_currency_of_the_settings(
    browser: Browser, prometheus: str
) -> None:
    sources = PageSources(prometheus_url=prometheus, currency="EUR")
    with serving(sources) as served, checked_page(browser) as page:
        page.goto(f"{served}/d/inference_cost")
        page.wait_for_selector(READY)
        expect(panel(page, "Price per core-hour")).to_contain_text("0.040 EUR")
        assert "$" not in page.locator("main").inner_text()
