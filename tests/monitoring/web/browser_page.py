"""A page in the browser: what tests of any of its views need."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Error, Page, Response

READY = "main[data-ready=true]"
TOO_WIDE = "() => document.documentElement.scrollWidth - innerWidth"


@contextmanager
def checked_page(browser: Browser, **context: Any) -> Iterator[Page]:
    """Yield a page; fail if it logs to the console or a script breaks.

    What it logs of a refused request says no reason, so that the answer's text follows.
    """
    messages: list[str] = []
    refused: list[Response] = []
    opened = browser.new_context(**context)
    page = opened.new_page()
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("response", lambda each: refused.append(each) if each.status >= 400 else None)
    yield page
    messages += map(_text, refused)
    opened.close()
    assert messages == []


def run(page: Page, module: str, expression: str, given: Any = None) -> Any:
    """Return ``expression`` of ``m``, the module, and ``given``."""
    script = (
        f"async (given) => {{ const m = await import('{module}'); return {expression}; }}"
    )
    return page.evaluate(script, given)


def _text(response: Response) -> str:
    try:
        return response.text()
    except Error as error:  # the page that it was of is gone
        return str(error)
