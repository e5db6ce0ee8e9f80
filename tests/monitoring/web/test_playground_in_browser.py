"""The playground in a real Chromium, over playgrounds that fail or are slow."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from playwright.sync_api import Browser, Page, expect

from srp4ctr.errors import OutageError
from srp4ctr.monitoring.web.app import PageSources
from srp4ctr.monitoring.web.playground import (
    ClickEffect,
    Offer,
    ShownRanking,
    ShownUser,
)
from tests.monitoring.web.conftest import serving
from tests.monitoring.web.refusing_playground import RANKING, Refusing


class Returning(Refusing):
    """A playground whose Triton is away until the third call."""

    def __init__(self) -> None:
        self.requests = 0

    def offer(self) -> Offer:
        return Offer(users=["u1"], can_rank=True, advice="")

    def rank(
        self, user_id: str, item_ids: Sequence[str], count: int, draw: int
    ) -> ShownRanking:
        self.requests += 1
        if self.requests < 3:
            raise OutageError("Triton gives no ranking.")
        return RANKING


def test_a_page_that_was_opened_in_an_outage_ranks_after_it(browser: Browser) -> None:
    playground = Returning()
    sources = PageSources(prometheus_url="", playground=playground)
    with serving(sources) as address:
        page = browser.new_page()
        page.goto(f"{address}/playground")
        expect(page.locator(".outcome")).to_contain_text("Triton gives no ranking.")
        expect(page.locator(".items li")).to_have_count(1, timeout=60_000)
        expect(page.locator(".outcome")).to_be_hidden()
        assert playground.requests == 3
        page.close()


class Slow(Refusing):
    """A playground whose clicks wait until ``go_on``; each user has an item of a name."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.is_away = False
        self.counts: list[int] = []

    def offer(self) -> Offer:
        return Offer(users=["u1", "u2"], can_rank=True, advice="")

    def rank(
        self, user_id: str, item_ids: Sequence[str], count: int, draw: int
    ) -> ShownRanking:
        if self.is_away:
            raise OutageError("Triton gives no ranking.")
        self.counts.append(count)
        ranked = RANKING.items[0]
        item = replace(ranked.item, title=f"Item for {user_id}")
        return replace(RANKING, request_id=user_id, items=[replace(ranked, item=item)])

    def click(self, request_id: str, item_id: str) -> ClickEffect:
        assert self.go_on.wait(60)
        return ClickEffect(
            changed_after_ms=None,
            advice="",
            user=ShownUser(user_id=request_id, attributes={}, behaviors=(), advice=""),
            ranking=replace(RANKING, request_id=request_id),
        )


@contextmanager
def clicking(browser: Browser, playground: Slow) -> Iterator[Page]:
    """Yield the page while a click on the first user's item waits."""
    sources = PageSources(prometheus_url="", playground=playground)
    with serving(sources) as address:
        page = browser.new_page()
        page.goto(f"{address}/playground?user=u1")
        page.get_by_role("button", name="Item for u1").click()
        expect(page.locator(".outcome")).to_contain_text("click published")
        yield page
        playground.go_on.set()
        page.close()


def test_a_user_who_is_picked_while_a_click_runs_is_ranked_after_it(
    browser: Browser,
) -> None:
    playground = Slow()
    with clicking(browser, playground) as page:
        page.get_by_role("button", name="u2", exact=True).click()
        playground.go_on.set()
        expect(page.locator(".items li")).to_contain_text("Item for u2")


def test_a_count_that_is_chosen_while_a_click_runs_is_ranked_after_it(
    browser: Browser,
) -> None:
    playground = Slow()
    with clicking(browser, playground) as page:
        page.get_by_label("How many candidates").select_option("50")
        playground.go_on.set()
        expect(page.locator(".items li")).to_contain_text("Item for u1")
        page.wait_for_function("() => !document.querySelector('[aria-busy=true]')")
        assert playground.counts == [20, 50]


def test_where_a_user_cannot_be_ranked_no_other_ones_items_stay(browser: Browser) -> None:
    playground = Slow()
    with clicking(browser, playground) as page:
        playground.is_away = True
        page.get_by_role("button", name="u2", exact=True).click()
        playground.go_on.set()
        expect(page.locator(".outcome")).to_contain_text("Triton gives no ranking.")
        expect(page.locator(".items li")).to_have_count(0)
