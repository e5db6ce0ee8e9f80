"""Labels → the metrics page that Triton would show after their requests.

What each version's request takes is fixed here: the benchmark checks what the monitor and
the rules make of such a page, not what serving costs.
"""

import http.server
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from srp4ctr.streams.state.label_join import ImpressionLabel

# Of a candidate.
CPU_US = {"v1": 80, "v2": 80, "v3": 800}
SECONDS = {"v1": ("0.01", 8_000), "v2": ("0.01", 8_000), "v3": ("0.03", 25_000)}


class TritonPage:
    """What Triton would show by now."""

    def __init__(self) -> None:
        self._counts = Counter[str]()
        self._requests: set[tuple[str, str]] = set()

    def count(self, labels: Sequence[ImpressionLabel]) -> None:
        """Count the requests and candidates of ``labels``."""
        for label in labels:
            version = str(label.model_version)
            model = f'model="click_ranker_{version}"'
            self._counts[f"srp4ctr_candidates{{{model}}}"] += 1
            self._counts[f"srp4ctr_cpu_us{{{model}}}"] += CPU_US[version]
            if (label.user_id, label.request_id) in self._requests:
                continue
            self._requests.add((label.user_id, label.request_id))
            under, took_us = SECONDS[version]
            for name, count in {
                'nv_inference_count{model="rank_clicks"}': 1,
                'nv_inference_request_success{model="rank_clicks"}': 1,
                f'srp4ctr_part_runs{{model="behavior_encoder_{version}"}}': 1,
                f'srp4ctr_part_runs{{model="click_head_{version}"}}': 1,
                f'srp4ctr_answers{{{model},under="{under}"}}': 1,
                f"srp4ctr_answers_us{{{model}}}": took_us,
            }.items():
                self._counts[name] += count

    def text(self) -> str:
        """Return the page."""
        return "".join(f"{name} {value}\n" for name, value in sorted(self._counts.items()))


@contextmanager
def shown(page: TritonPage) -> Iterator[str]:
    """Serve ``page`` on 127.0.0.1 and yield its address."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page.text().encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()
            thread.join()
