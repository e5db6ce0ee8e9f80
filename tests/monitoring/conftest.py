"""Builders of the monitoring tests: only the relevant argument is named in a test."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srp4ctr.features.bundles import bundle
from srp4ctr.features.consistency.report import REPORT_FILE
from srp4ctr.monitoring.collector.exporter import MonitorSources
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import Impression
from srp4ctr.streams.state.label_join import ImpressionLabel

# As tritonserver 2.51 writes it.
PAGE = """\
# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="rank_clicks",version="1"} 42
# HELP nv_inference_request_failure Number of failed inference requests, all batch sizes
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="rank_clicks",reason="REJECTED",version="1"} 1
nv_inference_request_failure{model="rank_clicks",reason="OTHER",version="1"} 2
# HELP nv_inference_count Number of inferences performed (does not include cached requests)
# TYPE nv_inference_count counter
nv_inference_count{model="behavior_encoder_v7",version="1"} 42
# HELP nv_cpu_utilization CPU utilization rate [0.0 - 1.0]
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.25
"""
MINUTE_MS = 60_000
START_MS = 1_750_000_000_000
LABEL_WINDOW_MS = 30 * MINUTE_MS


def a_label(item: str = "i1", *, after_ms: int = 0, **changes: Any) -> ImpressionLabel:
    """Return the label of an impression ``after_ms`` after START_MS, not clicked."""
    clicked = changes.get("clicked", False)
    within_window = changes.get("within_window", True)
    shown_ms = START_MS + after_ms
    fields: dict[str, Any] = {
        "request_id": "r1",
        "user_id": "u1",
        "item_id": item,
        "position": 1,
        "score": 0.5,
        "propensity": 1.0,
        "model_version": "v7",
        "impression_at": shown_ms,
        "clicked": False,
        "within_window": True,
        "matured_at": shown_ms + (1000 if clicked else LABEL_WINDOW_MS),
        "revision": (2 if within_window else 1) if clicked else 0,
    }
    return ImpressionLabel(**(fields | changes))


def an_impression(item: str = "i1", *, after_ms: int = 0, **changes: Any) -> Impression:
    """Return the impression that ``a_label`` is of."""
    fields: dict[str, Any] = {
        "event_id": f"e-{item}",
        "request_id": "r1",
        "user_id": "u1",
        "item_id": item,
        "position": 1,
        "occurred_at": START_MS + after_ms,
        "model_version": "v7",
        "score": 0.5,
    }
    return Impression(**(fields | changes))


@pytest.fixture
def triton_pages() -> list[str]:
    """The metrics pages that Triton shows, one after another; the last one stays."""
    return [PAGE]


@pytest.fixture
def triton_url(triton_pages: list[str]) -> Iterator[str]:
    """A server whose every page is Triton's metrics page."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            is_last = len(triton_pages) == 1
            page = triton_pages[0] if is_last else triton_pages.pop(0)
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def sources(tmp_path: Path, triton_url: str) -> MonitorSources:
    folder = tmp_path / "bundles" / "v7"
    folder.mkdir(parents=True)
    card = bundle.BundleManifest(
        version="v7",
        created_at_ms=1,
        window_end_ms=1_750_000_000_000,
        sizes={},
        cost={"encoder_flops": 10.0},
        metrics={"auc": 0.75},
    )
    bundle.write_card(folder, card)
    (tmp_path / "serving.json").write_text(json.dumps({"serving": "v7", "previous": None}))
    return MonitorSources(
        kafka=KafkaConfig(bootstrap="127.0.0.1:9"),
        triton_metrics={"t1:8001": triton_url},
        repository=tmp_path,
        bundles_dir=tmp_path / "bundles",
        label_window_s=1800.0,
        feature_check=tmp_path / REPORT_FILE,
    )
