"""A page in the browser: what tests of any of its views need."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page

READY = "main[data-ready=true]"
TOO_WIDE = "() => document.documentElement.scrollWidth - innerWidth"


@contextmanager
def checked_page(browser: Browser, **context: Any) -> Iterator[Page]:
    """Yield a page; fail if it logs to the console or a script breaks."""
    messages: list[str] = []
    opened = browser.new_context(**context)
    page = opened.new_page()
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    yield page
    opened.close()
    assert messages == []
