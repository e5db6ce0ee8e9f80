"""What a refresh leaves as it is, when there is none, and what it says after a failure."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from srp4ctr.monitoring.web.app import PageSources
from tests.monitoring.web.browser_page import READY, checked_page
from tests.monitoring.web.conftest import serving

HIDE = "Object.defineProperty(document, 'hidden', {get: () => window.away ?? false})"
BACK = "window.away = false; document.dispatchEvent(new Event('visibilitychange'))"


@pytest.fixture
def address(exporter: str) -> Iterator[str]:
    sources = PageSources(prometheus_url="", exporters={"monitor": exporter})
    with serving(sources) as served:
        yield served


@pytest.fixture
def paused(browser: Browser, address: str) -> Iterator[Page]:
    """The current values, paused: the button resumes them."""
    page = browser.new_page()
    page.goto(f"{address}/values")
    page.wait_for_selector(READY)
    page.get_by_role("button", name="Live").click()
    yield page
    page.close()


def refresh(page: Page) -> None:
    """Refresh the paused page once."""
    page.evaluate("document.querySelector('main').firstChild.id = 'old'")
    page.get_by_role("button", name="Paused").click()
    expect(page.locator("#old")).to_have_count(0)
    page.get_by_role("button", name="Live").click()


def test_a_list_that_was_opened_and_a_filter_stay(paused: Page) -> None:
    paused.get_by_label("Filter by name or help").fill("probe")
    paused.locator("details.silent summary").click()
    expect(paused.locator("tbody:visible")).to_have_count(2)
    refresh(paused)
    expect(paused.locator("details.silent")).to_have_attribute("open", "")
    expect(paused.get_by_label("Filter by name or help")).to_have_value("probe")
    expect(paused.locator("tbody:visible")).to_have_count(2)


def test_a_section_that_was_closed_stays_closed_and_its_heading_focused(
    browser: Browser, prometheus: str
) -> None:
    with (
        serving(PageSources(prometheus_url=prometheus)) as served,
        checked_page(browser) as page,
    ):
        page.goto(served)
        page.wait_for_selector(READY)
        heading = page.locator(".section > summary").first
        page.get_by_role("button", name="Live").click()
        heading.focus()
        page.keyboard.press("Enter")
        page.evaluate("document.querySelector('main').firstChild.id = 'old'")
        page.evaluate("document.querySelector('.live').click()")
        expect(page.locator("#old")).to_have_count(0)
        expect(page.locator(".grid").first).to_be_hidden()
        expect(heading).to_be_focused()


def test_a_hidden_tab_sends_no_request(browser: Browser, address: str) -> None:
    with checked_page(browser) as page:
        page.add_init_script(HIDE)
        page.clock.install()
        page.goto(address)
        page.wait_for_selector(READY)
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.evaluate("window.away = true")
        page.clock.run_for(30_000)
        page.wait_for_timeout(200)
        assert requests == []
        with page.expect_request(f"{address}/"):
            page.evaluate(BACK)


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
        with page.expect_request(f"{address}/"):
            page.get_by_role("button", name="Paused").click()


def test_a_server_that_is_stuck_is_reported(paused: Page) -> None:
    paused.evaluate(
        "() => { const timeout = AbortSignal.timeout.bind(AbortSignal);"
        "AbortSignal.timeout = (ms) => timeout(ms / 100); }"
    )
    paused.route("**/values", lambda route: None)
    paused.get_by_role("button", name="Paused").click()
    expect(paused.locator(".updated")).to_contain_text("server does not answer")


def test_a_server_that_is_away_or_fails_is_reported_and_the_values_stay(
    paused: Page,
) -> None:
    paused.route("**/values", lambda route: route.abort())
    paused.get_by_role("button", name="Paused").click()
    expect(paused.locator(".updated")).to_contain_text("server does not answer")

    def fail(route: Route) -> None:
        route.fulfill(status=500, body="{}")

    paused.route("**/values", fail)
    paused.get_by_role("button", name="Live").click()
    paused.get_by_role("button", name="Paused").click()
    expect(paused.locator(".updated")).to_contain_text("failed with status 500")
    expect(paused.locator('[data-job="monitor"]')).to_be_visible()
