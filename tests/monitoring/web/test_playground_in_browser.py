"""The playground in a real Chromium, over a playground whose first ranking fails."""

from collections.abc import Sequence

from playwright.sync_api import Browser, expect

from srp4ctr.errors import OutageError
from srp4ctr.monitoring.web.app import PageSources
from srp4ctr.monitoring.web.playground import Offer, ShownRanking
from tests.monitoring.web.conftest import serving
from tests.monitoring.web.refusing_playground import RANKING, Refusing


class Returning(Refusing):
    """A playground whose Triton is away until it is asked for the third time."""

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
