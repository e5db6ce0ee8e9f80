"""Claim: tracing costs nothing that can be measured while it is off, and little at 1 %.

What tracing adds to a request (the caller's span, its ``traceparent``, Triton's span and
its four parts) is repeated in a process of its own: off, on for 1 % of the requests and on
for all, in turns. Its CPU time stands against that of a whole request, as the benchmark
``serving`` has it.

Then one click is followed until it has changed a score, in real processes, and drawn span
by span: docs/evidence/trace.svg.

    make bench NAME=tracing
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks import FOLDER, parser_of, say
from benchmarks.harness.figures import table
from benchmarks.harness.trace_collector import CollectedSpan, collecting
from benchmarks.report.evidence_plots import BLACK, BLUE, ORANGE, PURPLE, STYLE
from benchmarks.serving.serving_stack import ServingStack, item_ids, running_stack, user_ids
from srp4ctr import processes, tracing
from srp4ctr.client.rank_client import RankClient
from srp4ctr.embedded import broker, ports
from srp4ctr.setting_names import PREFIX
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.streams.events.schema import Behavior

PICTURE = FOLDER.parent / "docs" / "evidence" / "trace.svg"
FORMS = {"off": None, "1 % traced": 0.01, "all traced": 1.0}
COLUMNS = {
    "tracing": "tracing",
    "µs a request": "microseconds:.2f",
    "of a request's CPU": "share:.3%",
}
LENGTH, WAIT_S, EXPORT_S = 20, 30.0, 2.5
WHOLE = "click → changed score"
OF_REQUEST = """
import sys, time
from srp4ctr import tracing
if len(sys.argv) > 2:
    config = tracing.TracingConfig(endpoint=sys.argv[2], sample=float(sys.argv[3]))
    tracing.start("cost", config)
began = time.process_time()
for _ in range(int(sys.argv[1])):
    with tracing.span("RankClient.rank", requests=1):
        parent = tracing.traceparent()
    with tracing.answering([parent], "rank_clicks"):
        for name in ("read", "assemble", "encode", "score"):
            with tracing.part(name):
                pass
print((time.process_time() - began) / int(sys.argv[1]))
"""


def main() -> None:
    """Print a table, draw the picture, then print one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    request_s = _request_cpu_s()
    seconds: dict[str, list[float]] = {name: [] for name in FORMS}
    with collecting() as collector:
        for _ in range(options.rounds):
            for name, sample in FORMS.items():
                seconds[name].append(_cost_s(options.requests, collector.address, sample))
    rows = [
        {"tracing": name, "microseconds": median(s) * 1e6, "share": median(s) / request_s}
        for name, s in seconds.items()
    ]
    print(table(rows, COLUMNS))
    spans = _click_to_score()
    PICTURE.write_text(_drawn(spans), encoding="utf-8")
    say(
        f"{PICTURE}: {len(spans)} spans of {len({each.service for each in spans})} programs"
    )
    costs = {each["tracing"]: each["microseconds"] for each in rows}
    report = {
        "off_us": costs["off"],
        "one_percent_us": costs["1 % traced"],
        "all_us": costs["all traced"],
        "request_cpu_ms": request_s * 1000,
        "click_to_score_ms": (spans[0].ended_ns - spans[0].began_ns) / 1e6,
        "spans": len(spans),
    }
    print(json.dumps(report))


def _request_cpu_s() -> float:
    """Return the CPU time of a request of 100 candidates, of ``serving``'s result."""
    rows = json.loads((FOLDER / "results" / "serving.json").read_text())["rows"]
    wanted = {"form": "rank_clicks", "length": 200, "candidates": 100, "callers": 1}
    (found,) = (row for row in rows if wanted.items() <= row.items())
    return float(found["cpu_s_per_1000_candidates"]) / 10


def _cost_s(requests: int, address: str, sample: float | None) -> float:
    """Return the CPU seconds that tracing adds to a request, of a process of its own."""
    words = [str(requests)] if sample is None else [str(requests), address, str(sample)]
    command = [sys.executable, "-c", OF_REQUEST, *words]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _click_to_score() -> list[CollectedSpan]:
    """Return the spans from a click until a score has changed; the whole comes first."""
    with collecting() as collector:
        os.environ[tracing.ENDPOINT_VARIABLE] = collector.address
        os.environ[tracing.SAMPLE_VARIABLE] = "1"
        with running_stack(LENGTH, forms=()) as stack, _stream(stack) as kafka:
            tracing.start("application")
            _follow(stack, kafka)
            ends = time.monotonic() + WAIT_S
            while not (collector.named(WHOLE) and len(collector.named("score")) > 1):
                if time.monotonic() > ends:
                    raise TimeoutError(f"no spans of Triton in {WAIT_S:.0f} s")
                time.sleep(0.2)
            time.sleep(EXPORT_S)
    (whole,) = collector.named(WHOLE)
    found = [each for each in collector.spans if each.trace_id == whole.trace_id]
    found.sort(key=lambda each: (each != whole, each.began_ns, -each.ended_ns))
    return found


def _follow(stack: ServingStack, kafka: KafkaConfig) -> None:
    """Publish one event of a user, and rank for them until the score has changed."""
    user, items = user_ids()[0], item_ids()[:100]
    with RankClient(stack.address) as client, EventPublisher(kafka) as publisher:
        publisher.publish(_a_click(user, items[6]))  # the worker is ready after it
        publisher.flush()
        _rank_until_changed(client, user, items)
        with tracing.span(WHOLE):
            publisher.publish(_a_click(user, items[7]))
            publisher.flush()
            _rank_until_changed(client, user, items)


def _rank_until_changed(client: RankClient, user: str, items: Sequence[str]) -> None:
    """Rank for ``user`` until a request has read another history than the first one."""
    before, ends = "", time.monotonic() + WAIT_S
    while True:
        version, _, _ = client.rank(user, items).feature_version.partition(",")
        before = before or version
        if version != before:
            return
        if time.monotonic() > ends:
            raise TimeoutError(f"no other score in {WAIT_S:.0f} s")
        time.sleep(0.05)


def _a_click(user: str, item: str) -> Behavior:
    now_ms = time.time_ns() // 1_000_000
    return Behavior(
        event_id=f"e{now_ms}", user_id=user, item_id=item, action="view", occurred_at=now_ms
    )


@contextmanager
def _stream(stack: ServingStack) -> Iterator[KafkaConfig]:
    """Run a broker and a worker that writes into the stack's store."""
    with (
        tempfile.TemporaryDirectory() as name,
        ports.reserved_ports(2) as (kafka_port, metrics_port),
    ):
        folder = Path(name)
        kafka = KafkaConfig(bootstrap=f"{ports.HOST}:{kafka_port}")
        values = {
            "KAFKA__BOOTSTRAP": kafka.bootstrap,
            "STREAMS__SEQUENCE_LENGTH": str(LENGTH),
            "STREAMS__METRICS_PORT": str(metrics_port),
            "FEATURES__REDIS": stack.features.redis,
            "FEATURES__REGISTRY": stack.features.registry,
            "FEATURES__LOG_DIR": str(folder / "events"),
            "EMBEDDED__DATA_DIR": name,
        }
        env = {f"{PREFIX}{key}": value for key, value in values.items()}
        try:
            broker.start_broker(folder, kafka_port, tied=True)
            ensure_topics(kafka)
            program = processes.python(
                "stream", "-m", "srp4ctr.cli", "stream", "run", env=env
            )
            processes.launch(
                program, folder, lambda: ports.is_open(metrics_port), tied=True
            )
            yield kafka
        finally:
            for each in processes.find(folder):
                processes.stop(each, folder)


def _drawn(spans: Sequence[CollectedSpan]) -> str:
    """Return the spans as bars from their start to their end, an SVG."""
    import io

    import matplotlib.style
    from matplotlib.figure import Figure

    began_ns = spans[0].began_ns
    services = sorted({each.service for each in spans})
    colours = dict(zip(services, (BLACK, BLUE, ORANGE, PURPLE), strict=False))
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(8.4, 0.24 * len(spans) + 1.1), layout="constrained")
        axes = figure.subplots()
        for row, each in enumerate(spans):
            start, length = each.began_ns - began_ns, each.ended_ns - each.began_ns
            colour = colours[each.service]
            axes.barh(row, length / 1e6, left=start / 1e6, color=colour, ec=colour)
            text = f" {each.name}, {length / 1e6:.1f} ms"
            axes.text((start + length) / 1e6, row, text, va="center")
        for service, colour in colours.items():
            axes.barh([0], [0], color=colour, label=service.removeprefix("srp4ctr-"))
        axes.set_yticks([])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.35 * (spans[0].ended_ns - began_ns) / 1e6)
        axes.set_xlabel("milliseconds since the click")
        axes.legend(loc="lower left", frameon=False)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


if __name__ == "__main__":
    main()
