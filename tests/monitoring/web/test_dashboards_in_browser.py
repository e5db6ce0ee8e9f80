"""The dashboards in a real Chromium, drawn from a real Prometheus."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from srp4ctr.monitoring.dashboards import load_boards
from srp4ctr.monitoring.prometheus import Prometheus
from srp4ctr.monitoring.web.app import PageSources
from srp4ctr.monitoring.web.page import report
from srp4ctr.monitoring.web.period import parse_period
from tests.monitoring.web.browser_page import READY, TOO_WIDE, checked_page
from tests.monitoring.web.conftest import serving

WIDTHS = {"desktop": 1280, "phone": 390}
CONTRAST = Path(__file__).with_name("contrast.js").read_text()


@pytest.fixture(scope="module")
def address(prometheus: str, exporter: str) -> Iterator[str]:
    sources = PageSources(
        prometheus_url=prometheus, exporters={"monitor": exporter}, currency="EUR"
    )
    with serving(sources) as served:
        yield served


def panel(page: Page, title: str) -> Locator:
    return page.locator(f'[data-title="{title}"]')


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_each_dashboard_is_drawn(
    browser: Browser, address: str, width: str, theme: str
) -> None:
    size = {"width": WIDTHS[width], "height": 900}
    with checked_page(browser, viewport=size, color_scheme=theme) as page:
        for name in load_boards():
            page.goto(f"{address}/d/{name}")
            page.wait_for_selector(READY)
            assert page.locator("[data-state=error]").all_inner_texts() == []
            assert page.locator("[data-state=drawn]").count()
            assert page.evaluate(TOO_WIDE) <= 0
            ratio, text = page.evaluate(CONTRAST)
            assert ratio >= 4.5, text
            for area in page.locator(".area").all():
                box = area.bounding_box()
                assert box
                assert box["height"] > 50
                assert box["width"] > 100


def test_the_content_of_panels(browser: Browser, address: str) -> None:
    with checked_page(browser) as page:
        page.goto(f"{address}/d/model_comparison")
        expect(page.get_by_role("heading", name="Model comparison")).to_be_visible()
        expect(panel(page, "Verdict against the serving version")).to_contain_text("better")
        rows = panel(page, "Versions at a glance").locator("tbody tr")
        expect(rows).to_have_count(2)
        expect(rows.first).to_contain_text("v2")
        expect(panel(page, "Users of the canary")).to_contain_text("no canary")
        legend = panel(page, "CTR at position 1").locator(".legend li")
        expect(legend).to_have_count(2)
        expect(legend.first).to_contain_text(" to ")
        page.goto(f"{address}/d/overview")
        expect(panel(page, "Sources").locator(".state").first).to_have_text("up")


def test_a_pointer_on_a_plot_reads_its_values_which_stay(
    browser: Browser, address: str
) -> None:
    with checked_page(browser) as page:
        page.clock.install()
        page.goto(f"{address}/d/model_comparison?range=5m")
        page.wait_for_selector(READY)
        readings = panel(page, "CTR at position 1").locator(".readings span")
        readings.last.hover()
        shown = readings.last.locator("b")
        expect(shown).to_be_visible()
        expect(shown).to_contain_text("v2 ")
        was = shown.inner_text()
        page.clock.run_for(6000)
        page.wait_for_timeout(1000)
        assert shown.inner_text() == was


def test_a_description_is_shown_where_it_is_focused(browser: Browser, address: str) -> None:
    with checked_page(browser) as page:
        page.goto(address)
        tip = panel(page, "Serving version").locator(".tip")
        expect(tip).not_to_be_visible()
        panel(page, "Serving version").locator(".about").focus()
        page.keyboard.press("Tab")
        page.keyboard.press("Shift+Tab")
        expect(tip).to_have_text("The bundle that answers requests now.")
        expect(tip).to_be_visible()


def test_a_picked_version_goes_into_queries_and_the_address(
    browser: Browser, address: str
) -> None:
    with checked_page(browser) as page:
        page.goto(f"{address}/d/model_comparison")
        page.wait_for_selector(READY)
        rows = panel(page, "Versions at a glance").locator("tbody tr")
        expect(rows).to_have_count(2)
        page.locator("details.variable summary").click()
        page.get_by_role("link", name="v2", exact=True).click()
        expect(rows).to_have_count(1)
        assert "version=v2" in page.url
        expect(
            page.get_by_role("link", name="v1", exact=True)
        ).to_be_visible()  # still open
        page.reload()
        expect(rows).to_have_count(1)
        page.go_back()
        expect(rows).to_have_count(2)


def test_a_range_is_kept_on_the_next_dashboard(browser: Browser, address: str) -> None:
    with checked_page(browser) as page:
        page.goto(address)
        page.wait_for_selector(READY)
        page.get_by_role("link", name="Last 1h").click()
        pressed = page.locator(".ranges [aria-current]")
        expect(pressed).to_have_text("1h")
        page.get_by_role("link", name="Training").first.click()
        expect(page.get_by_role("heading", name="Training")).to_be_visible()
        expect(pressed).to_have_text("1h")
        page.get_by_role("link", name="Current values").first.click()
        expect(page.get_by_role("heading", name="Current values")).to_be_visible()
        page.go_back()
        expect(pressed).to_have_text("1h")


def test_the_theme_that_was_switched_to_is_remembered(
    browser: Browser, address: str
) -> None:
    with checked_page(browser, color_scheme="light") as page:
        ground = "() => getComputedStyle(document.body).backgroundColor"
        page.goto(address)
        before = page.evaluate(ground)
        page.get_by_role("button", name="Switch to the dark theme").click()
        after = page.evaluate(ground)
        assert before != after
        page.reload()
        assert page.evaluate(ground) == after


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
        page.get_by_label("Filter by name or help").fill("verdict")
        expect(monitor.locator("tbody:visible")).to_have_count(1)
        assert page.evaluate(TOO_WIDE) <= 0


def test_prices_are_in_the_currency_of_the_settings(browser: Browser, address: str) -> None:
    with checked_page(browser) as page:
        page.goto(f"{address}/d/inference_cost")
        expect(panel(page, "Price per core-hour")).to_contain_text("0.040 EUR")
        assert "$" not in page.locator("main").inner_text()


def test_a_file_opens_without_a_server_or_a_script(
    browser: Browser, prometheus: str, tmp_path: Path
) -> None:
    period = parse_period("5m", None, time.time())
    text = report(Prometheus(prometheus), period, "EUR", load_boards())
    file = tmp_path / "report.html"
    file.write_text(text, encoding="utf-8")
    for width in WIDTHS.values():
        size = {"width": width, "height": 900}
        with checked_page(browser, viewport=size, java_script_enabled=False) as page:
            page.goto(file.as_uri())
            expect(page.get_by_role("heading", name="Model comparison")).to_be_visible()
            page.get_by_role("link", name="Training").click()
            expect(panel(page, "Newest bundles")).to_be_visible()
