"""Settings → the page of ``srp4ctr monitor open``, with its sources and the playground."""

import threading
import webbrowser
from collections.abc import Callable
from contextlib import closing, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from srp4ctr.embedded import stack
from srp4ctr.errors import MistakeError
from srp4ctr.settings import Settings

if TYPE_CHECKING:  # they need the extra "page"
    from srp4ctr.monitoring.web.app import PageSources
    from srp4ctr.monitoring.web.playground import Playground

PACKAGES = ("starlette", "uvicorn")


def open_page(
    settings: Settings, port: int | None, browser: bool, say: Callable[[str], None]
) -> None:
    """Serve the page on ``port`` until Ctrl-C; ``say`` gets its address.

    ``port`` None means the setting ``monitoring.page_port``; ``browser`` opens the page.
    Raises ``MistakeError`` if the port is in use or a package is not installed.
    """
    if missing_packages():
        raise MistakeError(
            f"the page needs {', '.join(PACKAGES)}: pip install 'srp4ctr[page]'"
        )
    from srp4ctr.monitoring.web.app import bind_page
    from srp4ctr.playground.playground import LivePlayground

    with closing(LivePlayground(settings)) as playground:
        shown = sources(settings, playground)
        page = bind_page(shown, settings.monitoring.page_port if port is None else port)
        say(page.address)
        if browser:  # some return only when they are closed: the page must serve meanwhile
            opening = threading.Thread(
                target=webbrowser.open, args=(page.address,), daemon=True
            )
            opening.start()
        with suppress(KeyboardInterrupt):
            page.run()


def sources(settings: Settings, playground: "Playground") -> "PageSources":
    """Return what the page of ``settings`` shows."""
    from srp4ctr.monitoring.web.app import PageSources

    return PageSources(
        prometheus_url=settings.monitoring.prometheus_url,
        exporters=exporters(settings),
        playground=playground,
        currency=settings.monitoring.currency,
    )


def missing_packages() -> list[str]:
    """Return the packages of the page that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def exporters(settings: Settings) -> dict[str, str]:
    """Return the address of each job's metrics, as Prometheus scrapes them."""
    streams, monitoring = settings.streams, settings.monitoring
    found = {
        "monitor": f"http://{monitoring.host}:{monitoring.port}/metrics",
        "stream": f"http://{streams.metrics_host}:{streams.metrics_port}/metrics",
        "triton": settings.triton.metrics_url,
    }
    running = stack.status(settings.embedded).addresses
    if running is not None:  # the settings name no client: there may be many
        found["caller"] = f"http://127.0.0.1:{running.caller_metrics_port}/metrics"
    return found
