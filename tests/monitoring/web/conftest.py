"""The page over real HTTP, a real Prometheus with a real exporter, a real Chromium."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from srp4ctr import processes
from srp4ctr.embedded import ports
from srp4ctr.embedded import prometheus as local_prometheus
from srp4ctr.monitoring.prometheus import Prometheus
from srp4ctr.monitoring.web.app import PageSources, bind_page
from tests.monitoring.web import contract_exporter

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def exporter() -> Iterator[str]:
    """The address of a running exporter."""
    with ports.reserved_ports(1) as (port,), contract_exporter.running(port):
        yield f"http://127.0.0.1:{port}/metrics"


@pytest.fixture(scope="session")
def prometheus(exporter: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that has scraped the exporter for some seconds."""
    binary = local_prometheus.find_prometheus()
    if binary is None:
        pytest.skip("Prometheus is not installed (Debian: prometheus)")
    folder = tmp_path_factory.mktemp("prometheus")
    targets = {"monitor": int(exporter.rpartition(":")[2].removesuffix("/metrics"))}
    with ports.reserved_ports(1) as (port,):
        running = local_prometheus.start(binary, targets, port, folder, tied=True)
        try:
            _wait_for_rates(f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            processes.stop(running, folder)


def _wait_for_rates(url: str) -> None:
    deadline = time.monotonic() + 60
    query = "rate(srp4ctr_request_duration_seconds_bucket[1m])"
    while not Prometheus(url).at(query, time.time()):
        assert time.monotonic() < deadline, "Prometheus scraped nothing"
        time.sleep(0.2)


@contextmanager
def serving(sources: PageSources) -> Iterator[str]:
    """Serve the page on a port of its own while the block runs; yields its address."""
    page = bind_page(sources, 0)
    thread = threading.Thread(target=page.run)
    thread.start()
    try:
        yield page.address
    finally:
        page.stop()
        thread.join()


# Not a session's: Playwright keeps a loop running in this thread, and others run their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium of the system's."""
    binary = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if binary is None:
        pytest.skip("no Chromium is installed (Debian: chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=str(Path(binary)), args=["--no-sandbox"]
        )
        yield chromium
        chromium.close()
