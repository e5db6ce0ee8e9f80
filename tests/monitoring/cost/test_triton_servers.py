"""Several Tritons: which one is away, hangs, fails or drifts; totals never fall."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from srp4ctr.features.bundles.drift_reference import Bins, Reference
from srp4ctr.monitoring.cost import triton_counters
from srp4ctr.monitoring.cost.cost_figures import Buckets, Figure, server_figures
from srp4ctr.monitoring.cost.triton_counters import RUNS, CounterKey, ServingTotals
from srp4ctr.monitoring.cost.triton_servers import TritonServers

WINDOW_S = 3600.0


@dataclass
class Pages:
    """A web server with a metrics page per path; a path without one answers with 503."""

    port: int = 0
    texts: dict[str, str] = field(default_factory=dict)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"


@pytest.fixture
def pages() -> Iterator[Pages]:
    shown = Pages()

    class MetricsPage(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = shown.texts.get(self.path.removeprefix("/"))
            self.send_response(503 if text is None else 200)
            self.end_headers()
            self.wfile.write((text or "").encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), MetricsPage)
    shown.port = server.server_port
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield shown
    server.shutdown()
    server.server_close()
    thread.join()


def a_page(calls: int, failures: int = 0, **more: int) -> str:
    """Return the page of a server that has answered ``calls``; ``more`` are its own."""
    lines = [
        f'nv_inference_request_success{{model="rank_clicks"}} {calls}',
        f'nv_inference_request_failure{{model="rank_clicks",reason="OTHER"}} {failures}',
        *(f'srp4ctr_{name}{{model="click_ranker_v7"}} {n}' for name, n in more.items()),
    ]
    return "\n".join(lines) + "\n"


def figures_of(
    servers: TritonServers, references: Mapping[str, Reference] | None = None
) -> dict[tuple[str, ...], float]:
    """Return each figure by its metric, without its prefix, and its labels."""
    return {
        (figure.metric.removeprefix("srp4ctr_server_"), *figure.labels): figure.value
        for server in servers.servers(references or {})
        for figure in server_figures(server)
        if isinstance(figure, Figure)
    }


def test_each_server_has_its_own_figures_and_the_total_has_all(pages: Pages) -> None:
    servers = TritonServers({n: pages.url(n) for n in "abc"}, WINDOW_S)
    for turn in (0, 1):
        pages.texts["a"] = a_page(10 + 100 * turn, cpu_us=2_000_000 * turn)
        pages.texts["b"] = a_page(20, failures=30 * turn, candidates=50 * turn)
        servers.poll()
    found = figures_of(servers)
    assert {name: found["up", name] for name in "abc"} == {"a": 1, "b": 1, "c": 0}
    assert found["requests_total", "a", "success"] == 100
    assert found["requests_total", "a", "failure"] == 0
    assert found["requests_total", "b", "success"] == 0
    assert found["requests_total", "b", "failure"] == 30
    assert found["cpu_seconds_total", "a"] == 2.0
    assert found["candidates_total", "b"] == 50
    by_step = servers.totals.by_step(triton_counters.SUCCESSES)
    assert by_step == {"rank_clicks": 100}
    assert servers.totals.by_step(triton_counters.FAILURES) == {"rank_clicks": 30}


def test_totals_never_fall_while_a_server_is_away_or_restarts(pages: Pages) -> None:
    servers = TritonServers({n: pages.url(n) for n in "ab"}, WINDOW_S)
    calls = "requests_total"
    shown = (
        (0, 1000, 0, 0),
        (10, 1050, 10, 50),
        (20, None, 20, 50),  # away
        (30, 7, 30, 57),  # another process, whose counters began at 0
        (None, 9, 30, 59),
    )
    for a, b, of_a, of_b in shown:
        for name, value in (("a", a), ("b", b)):
            pages.texts.pop(name, None)
            if value is not None:
                pages.texts[name] = a_page(value)
        servers.poll()
        found = figures_of(servers)
        assert (found[calls, "a", "success"], found[calls, "b", "success"]) == (of_a, of_b)
        total = servers.totals.by_step(triton_counters.SUCCESSES)["rank_clicks"]
        assert total == of_a + of_b


def test_a_server_that_answers_late_brings_no_earlier_calls(pages: Pages) -> None:
    servers = TritonServers({n: pages.url(n) for n in "ab"}, WINDOW_S)
    pages.texts["a"] = a_page(5)
    servers.poll()
    pages.texts["b"] = a_page(1_000_000)
    servers.poll()
    assert figures_of(servers)["requests_total", "b", "success"] == 0
    pages.texts["b"] = a_page(1_000_003)
    servers.poll()
    assert figures_of(servers)["requests_total", "b", "success"] == 3


def test_a_server_without_the_model_is_up_and_not_ready(pages: Pages) -> None:
    servers = TritonServers({n: pages.url(n) for n in "abc"}, WINDOW_S)
    pages.texts["a"] = a_page(0)
    pages.texts["b"] = "nv_cpu_utilization 0.25\n"
    servers.poll()
    found = figures_of(servers)
    assert [(found["up", n], found["ready", n]) for n in "abc"] == [(1, 1), (1, 0), (0, 0)]
    del pages.texts["a"]  # not ready either, once it is away
    servers.poll()
    assert figures_of(servers)["ready", "a"] == 0


def test_a_server_that_hangs_delays_no_other_and_is_down(pages: Pages) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # accepts, and is silent
        urls = {"a": pages.url("a"), "b": f"http://127.0.0.1:{hanging.getsockname()[1]}/"}
        servers = TritonServers(urls, WINDOW_S)
        began, polls = time.monotonic(), 0
        while time.monotonic() - began < 6.0:
            pages.texts["a"] = a_page(polls)
            servers.poll()
            polls += 1
            assert figures_of(servers)["requests_total", "a", "success"] == polls - 1
        found = figures_of(servers)
        assert (found["up", "a"], found["up", "b"]) == (1, 0)
        # It costs one second once; read in turn, each poll would take two.
        assert polls > 20


def test_a_page_that_never_ends_is_no_answer(pages: Pages) -> None:
    pages.texts["a"] = a_page(1)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as endless:

        def trickle() -> None:
            connection, _ = endless.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
                while not stop.wait(0.2):
                    connection.sendall(b"#")

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        urls = {"a": pages.url("a"), "b": f"http://127.0.0.1:{endless.getsockname()[1]}/"}
        servers = TritonServers(urls, WINDOW_S)
        end_s = time.monotonic() + 3.0
        while time.monotonic() < end_s:
            servers.poll()
        found = figures_of(servers)
        stop.set()
        thread.join()
    assert (found["up", "a"], found["up", "b"]) == (1, 0)


def test_drift_is_of_each_server(pages: Pages) -> None:
    bins = Bins(edges=(0.5,), shares=(0.5, 0.5))
    references = {"v7": Reference(shown=1, bins={"score": bins, "age": bins})}
    servers = TritonServers({n: pages.url(n) for n in "ab"}, WINDOW_S)
    for turn in (0, 1):
        for name, high in (("a", 1000), ("b", 10)):
            cells = {"score/0": 1000, "score/1": high, "age/0": 900, "age/1": 900}
            pages.texts[name] = "".join(
                f'srp4ctr_feature_bin{{model="click_ranker_v7",cell="{cell}"}} {n * turn}\n'
                for cell, n in cells.items()
            )
        servers.poll()
    found = figures_of(servers, references)
    assert found["score_psi", "a", "v7"] == pytest.approx(0, abs=0.01)
    assert found["score_psi", "b", "v7"] > 1
    assert found["feature_psi", "b", "v7", "age"] == pytest.approx(0, abs=0.01)


def test_latency_is_a_histogram_of_each_server(pages: Pages) -> None:
    servers = TritonServers({n: pages.url(n) for n in "ab"}, WINDOW_S)
    for turn in (0, 1):
        for name, under in (("a", "0.001"), ("b", "1")):
            pages.texts[name] = (
                f'srp4ctr_answers{{model="click_ranker_v7",under="{under}"}} {9 * turn}\n'
                f'srp4ctr_answers_us{{model="click_ranker_v7"}} {9_000 * turn}\n'
            )
        servers.poll()
    found = {
        figure.labels: (dict(figure.counts), figure.total)
        for server in servers.servers({})
        for figure in server_figures(server)
        if isinstance(figure, Buckets)
    }
    assert found == {("a",): ({"0.001": 9}, 0.009), ("b",): ({"1": 9}, 0.009)}


def test_a_retired_version_stays_in_its_server_s_sums() -> None:
    totals = ServingTotals()

    def key(server: str, version: str) -> CounterKey:
        return CounterKey(RUNS, f"click_head_{version}", server=server)

    totals.add({key("a", "v1"): 5, key("b", "v1"): 7})
    for _ in range(triton_counters.RETIRES_AFTER):
        totals.add({key("a", "v2"): 1, key("b", "v2"): 2})
    assert totals.by_version(RUNS) == {"v2": 3}
    sums = {name: own.by_step(RUNS) for name, own in totals.by_server().items()}
    assert sums == {"a": {"click_head": 6}, "b": {"click_head": 9}}


def test_a_version_of_an_absent_server_is_not_retired() -> None:
    totals = ServingTotals()
    key = CounterKey(RUNS, "click_head_v1", server="b")
    totals.add({key: 7})
    for _ in range(triton_counters.RETIRES_AFTER + 1):
        totals.add({}, absent={"b"})
    totals.add({key: 9})
    assert totals.by_version(RUNS) == {"v1": 9}
