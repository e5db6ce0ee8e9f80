"""A page in a real Chromium whose server stops answering."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from srp4ctr.monitoring.web.app import PageSources
from tests.monitoring.web.browser_page import READY
from tests.monitoring.web.conftest import serving

START = "**/api/start"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that was drawn, and is paused."""
    with serving(PageSources(prometheus_url="")) as address:
        opened = browser.new_page()
        opened.goto(address)
        opened.wait_for_selector(READY)
        opened.get_by_role("button", name="Live").click()
        yield opened
        opened.close()


def test_a_server_that_is_stuck_is_reported(page: Page) -> None:
    page.evaluate(
        "() => { const timeout = AbortSignal.timeout.bind(AbortSignal);"
        "AbortSignal.timeout = (ms) => timeout(ms / 100); }"
    )
    page.route(START, lambda route: None)
    page.get_by_role("button", name="Paused").click()
    expect(page.locator(".updated")).to_contain_text("server does not answer")


def test_a_choice_on_a_paused_page_that_fails_is_reported(page: Page) -> None:
    page.route(START, lambda route: route.abort())
    page.get_by_role("button", name="Last 1h").click()
    expect(page.locator(".updated")).to_contain_text("server does not answer")


def test_an_answer_that_is_no_json_is_reported_with_its_status(page: Page) -> None:
    page.route(START, lambda route: route.fulfill(status=502, body="<html>"))
    page.get_by_role("button", name="Last 1h").click()
    expect(page.locator(".updated")).to_have_text("The answer was no JSON (status 502).")
