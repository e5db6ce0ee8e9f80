"""Labels → Triton's page of metrics; series of a replay → alerts of the project's rules.

What each version's request takes is fixed here: the benchmark checks what the monitor and
the rules make of such a page, not what serving costs. Prometheus' own engine computes the
alerts: ``promtool test rules`` is given the series and expects that none fires; it reports
each that does.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from benchmarks import ROOT
from srp4ctr.streams.state.label_join import ImpressionLabel

RULES = ROOT / "monitoring" / "rules"
EVERY_MINUTES = 10
CPU_US = {"v1": 80, "v2": 80, "v3": 800}  # of a candidate
SECONDS = {"v1": ("0.01", 8_000), "v2": ("0.01", 8_000), "v3": ("0.03", 25_000)}
_FAILED = re.compile(r"alertname: (?P<alert>\w+), time: (?P<time>[0-9hms]+),")
_LABELS = re.compile(r"Labels:\{(?P<labels>[^}]*)\}")
_VERSION = re.compile(r'model_version="(?P<version>[^"]*)"')
_TIME = re.compile(r"(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:\d+s)?")


class TritonPage:
    """What Triton would show by now."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        self._requests: set[tuple[str, str]] = set()

    def count(self, labels: Sequence[ImpressionLabel]) -> None:
        """Count the requests and candidates of ``labels``."""
        for label in labels:
            version = str(label.model_version)
            model = f"click_ranker_{version}"
            self._add("srp4ctr_candidates", model=model)
            self._add("srp4ctr_cpu_us", CPU_US[version], model=model)
            if (label.user_id, label.request_id) in self._requests:
                continue
            self._requests.add((label.user_id, label.request_id))
            under, took_us = SECONDS[version]
            self._add("nv_inference_count", model="rank_clicks")
            self._add("nv_inference_request_success", model="rank_clicks")
            self._add("srp4ctr_part_runs", model=f"behavior_encoder_{version}")
            self._add("srp4ctr_part_runs", model=f"click_head_{version}")
            self._add("srp4ctr_answers", model=model, under=under)
            self._add("srp4ctr_answers_us", took_us, model=model)

    def _add(self, name: str, amount: int = 1, **labels: str) -> None:
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, name, [*labels], registry=self._registry)
        self._gauges[name].labels(**labels).inc(amount)

    @contextmanager
    def shown(self) -> Iterator[str]:
        """Serve the page on 127.0.0.1 and yield its address."""
        server, thread = start_http_server(0, "127.0.0.1", self._registry)
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """An alert, and when it was first seen, in minutes of the replay."""

    alert: str
    model_version: str
    """"" of an alert that is of no version."""
    minute: int


def fired(series: Mapping[str, Sequence[float | None]]) -> list[Fired]:
    """Return the alerts of ``series``, a value per minute; None: nothing was shown.

    Raises ``ValueError`` where promtool is missing.
    """
    promtool = shutil.which("promtool")
    if promtool is None:
        raise ValueError("promtool is not installed (Debian: apt install prometheus)")
    length = max(map(len, series.values()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "replay_test.yml"
        path.write_text(yaml.safe_dump(_test(series, length)))
        result = subprocess.run(
            [promtool, "test", "rules", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
    first: dict[tuple[str, str], int] = {}
    for alert, version, minute in _parsed(result.stdout + result.stderr):
        place = (alert, version)
        first[place] = min(minute, first.get(place, minute))
    return [
        Fired(alert=alert, model_version=version, minute=minute)
        for (alert, version), minute in sorted(first.items())
    ]


def _test(series: Mapping[str, Sequence[float | None]], length: int) -> dict[str, object]:
    inputs = [
        {"series": name, "values": " ".join("_" if v is None else repr(v) for v in values)}
        for name, values in series.items()
    ]
    # Prometheus makes it itself, of each scrape: the replay's monitor answers all the time.
    inputs.append({"series": 'up{job="monitor"}', "values": f"1x{length}"})
    silent = [
        {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": []}
        for alert in _alerts()
        for minute in range(EVERY_MINUTES, length, EVERY_MINUTES)
    ]
    return {
        "rule_files": [str(path) for path in sorted(RULES.glob("*.yml"))],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": inputs, "alert_rule_test": silent}],
    }


def _alerts() -> Iterator[str]:
    for path in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                # Of no severity is the watchdog, which always fires.
                if "alert" in rule and rule["labels"]["severity"] != "none":
                    yield rule["alert"]


def _parsed(output: str) -> Iterator[tuple[str, str, int]]:
    """Yield alert, version and minute of what promtool did not expect."""
    heads = list(_FAILED.finditer(output))
    for place, head in enumerate(heads):
        end = heads[place + 1].start() if place + 1 < len(heads) else len(output)
        at = _TIME.match(head["time"])
        assert at is not None
        minute = int(at["h"] or 0) * 60 + int(at["m"] or 0)
        for found in _LABELS.finditer(output, head.end(), end):
            version = _VERSION.search(found["labels"])
            yield head["alert"], version["version"] if version else "", minute
