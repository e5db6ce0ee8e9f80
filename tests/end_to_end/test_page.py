"""The page of a running demo: all panels have data, a click changes the next ranking."""

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import APIResponse, Browser, Page, Route, expect

from srp4ctr.monitoring.dashboards import load_boards
from tests.end_to_end.conftest import RunningDemo
from tests.monitoring.web.browser_page import READY, TOO_WIDE, checked_page
from tests.monitoring.web.conftest import browser  # noqa: F401  # a fixture

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
WIDTHS = (1280, 390)
# A panel whose dashboard says why it is empty may be: a comparison needs two versions.
EMPTY = ".panel:not([data-state=drawn]):not([data-may-be-empty])"


@pytest.fixture
def address(demo: RunningDemo) -> str:
    """The page of a demo that has gone round the loop and is left running."""
    match = re.search(r"the page: (http://127\.0\.0\.1:\d+)", demo.output)
    assert match, demo.output
    # Printed as soon as the page is there, and again at the end.
    assert demo.output.count(f"the page: {match[1]}") == 2
    return match[1]


@pytest.fixture
def playground(browser: Browser, address: str) -> Iterator[Page]:  # noqa: F811
    size = {"width": 1280, "height": 900}
    with checked_page(browser, viewport=size, reduced_motion="reduce") as page:
        page.goto(f"{address}/playground?user=user-1")
        ranked = expect(page.locator(".answer"), "a first ranking, or why there is none")
        ranked.to_contain_text("Latency", timeout=120_000)
        expect(page.locator(".items li")).not_to_have_count(0)
        expect(page.locator(".history li")).not_to_have_count(0, timeout=60_000)
        yield page


def test_a_click_changes_the_history_and_the_next_ranking(playground: Page) -> None:
    scores = playground.locator(".items .score").all_inner_texts()
    clicked = playground.locator(".items button").nth(9)
    title = clicked.locator("b").inner_text()
    assert title not in playground.locator(".history b").all_inner_texts()
    clicked.click()
    outcome = playground.locator(".outcome[data-state=done]")
    expect(outcome).to_contain_text(title, timeout=60_000)
    waited = re.match(r"([\d,.]+) (ms|s)", outcome.inner_text())
    assert waited, outcome.inner_text()
    newest = playground.locator(".history li").first
    expect(newest).to_contain_text(title)
    expect(newest).to_contain_text("click")
    expect(newest).to_have_class("new")
    assert playground.locator(".items .score").all_inner_texts() != scores
    expect(playground.locator(".items .score small")).to_have_count(len(scores))


def test_a_history_that_is_read_late_does_not_replace_a_newer_one(playground: Page) -> None:
    late: list[tuple[Route, APIResponse]] = []
    reads = "**/api/playground/user?*"
    playground.route(reads, lambda route: late.append((route, route.fetch())))
    playground.reload()
    ranked = playground.locator(".items button").nth(8)
    title = ranked.locator("b").inner_text(timeout=60_000)
    assert title not in playground.locator(".history").inner_text()
    ranked.click()
    newest = playground.locator(".history li").first
    expect(newest).to_contain_text(title, timeout=60_000)
    [(route, read_before)] = late
    with playground.expect_response(reads):
        route.fulfill(response=read_before)
    playground.unroute(reads)
    playground.wait_for_timeout(500)
    expect(newest).to_contain_text(title)


def test_a_moved_item_shows_by_how_many_places(playground: Page) -> None:
    before = playground.locator(".items li").evaluate_all(
        "all => all.map(e => e.dataset.item)"
    )
    for _ in range(5):  # a click that moves nothing is news as well, but no test
        playground.locator(".items button").last.click()
        expect(playground.locator(".answer")).to_have_attribute(
            "aria-busy", "false", timeout=60_000
        )
        if playground.locator(".moved").count():
            break
        before = playground.locator(".items li").evaluate_all(
            "all => all.map(e => e.dataset.item)"
        )
    assert playground.locator(".moved").count()
    after = playground.locator(".items li").evaluate_all(
        "all => all.map(e => e.dataset.item)"
    )
    for place, item in enumerate(after):
        moves = playground.locator(f'[data-item="{item}"] .moves').inner_text()
        up = before.index(item) - place
        arrow = "▲" if up > 0 else "▼"
        assert moves.startswith(arrow if up else ""), (item, up, moves)
        assert moves.endswith(str(abs(up)) if up else ""), (item, up, moves)


def test_a_ranking_says_which_model_how_long_and_what_it_cost(playground: Page) -> None:
    facts = playground.locator(".facts").inner_text()
    assert re.search(r"Model\s+v1\s+Status\s+ok\s+Latency\s+[\d.]+ ms", facts), facts
    cost = playground.locator(".cost").inner_text()
    assert re.search(r"1 encoder run, [\d.]+ \wFLOP", cost), cost
    number = playground.locator(".items li").count()
    assert re.search(rf"{number} encoder runs, [\d.]+ \wFLOP", cost), cost


def test_an_unknown_user_and_an_unknown_item_are_marked(playground: Page) -> None:
    playground.get_by_label("User", exact=True).fill("nobody")
    playground.get_by_role("button", name="Show").click()
    expect(playground.locator(".history")).to_contain_text("no behaviour of user 'nobody'")
    expect(playground.locator(".answer .notice")).to_contain_text("nothing of this user")
    playground.get_by_text("My own candidates").click()
    playground.get_by_label("Ids of your own candidates").fill("item-1, never-seen")
    playground.get_by_role("button", name="Rank these").click()
    expect(playground.locator(".items li")).to_have_count(2)
    unknown = playground.locator('[data-item="never-seen"]')
    expect(unknown).to_contain_text("unknown to the model")


def test_recent_users_are_offered_and_picked(playground: Page) -> None:
    # By name: which users are the newest depends on what other tests did.
    other = playground.locator(".chips button[aria-pressed=false]").first
    name = other.inner_text()
    chip = playground.locator(".chips").get_by_role("button", name=name, exact=True)
    chip.click()
    expect(playground.get_by_label("User", exact=True)).to_have_value(name)
    expect(chip).to_have_attribute("aria-pressed", "true")
    assert f"user={quote(name)}" in playground.url


@pytest.mark.parametrize("width", WIDTHS)
def test_every_panel_has_data_after_the_demo(
    browser: Browser,  # noqa: F811
    address: str,
    width: int,
) -> None:
    size = {"width": width, "height": 900}
    with checked_page(browser, viewport=size) as page:
        page.goto(address)
        page.wait_for_selector(READY)
        if page.locator(".notice").count():
            pytest.skip("Prometheus is not installed (Debian: prometheus)")
        for name in load_boards():
            page.goto(f"{address}/d/{name}?range=15m")
            page.wait_for_selector(READY, timeout=60_000)
            assert page.locator(EMPTY).all_inner_texts() == [], name
            assert page.evaluate(TOO_WIDE) <= 0


@pytest.mark.parametrize("width", WIDTHS)
def test_the_other_pages_fit_a_phone_and_a_desk(
    browser: Browser,  # noqa: F811
    address: str,
    width: int,
) -> None:
    with checked_page(browser, viewport={"width": width, "height": 900}) as page:
        for path in ("/playground", "/values"):
            page.goto(address + path)
            page.wait_for_selector(READY, timeout=60_000)
            assert page.evaluate(TOO_WIDE) <= 0
        expect(page.locator("[data-job=caller]")).to_contain_text("srp4ctr_rank_request")
