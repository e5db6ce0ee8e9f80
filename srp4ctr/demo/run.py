"""The demo: the whole loop on real data, with the functions of the commands.

history → sequences and labels → a trained, promoted model → live visits → figures.
Nothing outside this folder depends on it: short label windows and the time limit of
training are settings, and the metrics are those of any stack.
"""

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_client import start_http_server
from rich.console import Console

from srp4ctr import processes
from srp4ctr.cli.tables.console import Bar, Steps
from srp4ctr.cli.tables.models import rules_table
from srp4ctr.client.rank_client import RankClient
from srp4ctr.demo import movielens
from srp4ctr.demo import steps as demo_steps
from srp4ctr.demo.popularity_baseline import POPULARITY, ControlGroup
from srp4ctr.demo.replay import Replay, ReplayResult, SlateRanking
from srp4ctr.demo.steps import DemoInput, page_url
from srp4ctr.demo.tables import show
from srp4ctr.embedded import broker, stack
from srp4ctr.embedded.addresses import Addresses
from srp4ctr.embedded.config import EmbeddedConfig
from srp4ctr.errors import Srp4ctrError
from srp4ctr.features.bundles.rule_results import RuleResult
from srp4ctr.ops.refresh_job import refresh_and_record, serve_if_ready
from srp4ctr.setting_names import PREFIX, variable_of
from srp4ctr.settings import Settings, load
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    LABELS_TOPIC,
    Event,
    UserEvent,
)
from srp4ctr.training.refresh.reports import RefreshReport

LIVE_SHARE = 0.2  # of each user's slates
REPLAY_SECONDS = 45.0
NUM_STEPS = 8
NUM_RULES = 4  # the best one-line rules, in the tables at the end
# Labels must mature within the demo, which takes about four minutes.
SETTINGS = {
    "STREAMS__LABEL_WINDOW_S": "6",
    "STREAMS__CORRECTION_WINDOW_S": "600",
    "MONITORING__PROBE_INTERVAL_S": "10",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """The demo's options on the command line."""

    events: Path | None
    """None: MovieLens-100K."""
    broker: str
    store: str
    keep: bool
    rule: str = POPULARITY
    """What ranks for the control group: one of ``popularity_baseline.RULES``."""


@dataclass(slots=True, kw_only=True)
class DemoResult:
    """The results of the steps, from which the figures are computed."""

    given: DemoInput
    history: list[Event]
    replayed: ReplayResult
    published: int
    rules: tuple[RuleResult, ...]


def run(options: DemoOptions, console: Console) -> None:
    """Run the demo and print its figures; the last line is one JSON object.

    All of its processes stop at the end, on Ctrl-C and on failure; with ``keep`` they run
    until Ctrl-C. Raises ``StepError`` with the failed step, the reason, and what to do.
    """
    started = time.monotonic()
    signal.signal(signal.SIGTERM, _interrupt)
    base = Path(load().embedded.data_dir).resolve()
    folder = base / f"demo-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    _set_environment(folder, options)
    config = load().embedded
    ControlGroup([], options.rule)  # before the work, if it is none
    steps = Steps(console, total=NUM_STEPS, logs=str(folder / "logs"))
    finished = False
    try:
        result = _loop(options, steps, config, base / "cache")
        _show(result, console, started, options.keep)
        finished = True
        if options.keep:
            _wait_for_interrupt()
    except KeyboardInterrupt:
        finished = True
        raise
    finally:
        stack.down(config)
        if finished:  # after a failure the logs stay
            shutil.rmtree(folder, ignore_errors=True)


def _loop(
    options: DemoOptions, steps: Steps, config: EmbeddedConfig, cache: Path
) -> DemoResult:
    """Run every step once."""
    try_stack = "see the log; free ports and 2 GB of memory are needed"
    with steps.step("Start broker, feature store and Triton", try_stack) as bar:
        addresses = stack.up(config, tied=True, note=bar.note)
    _drop_other_addresses(addresses)
    start_http_server(addresses.caller_metrics_port, "127.0.0.1")  # RankClient's latency
    folder = Path((settings := load()).embedded.data_dir)
    with steps.step("Register features, start stream worker and monitor", try_stack):
        worker = _start_services(settings, folder)
    steps.console.print(f"  [dim]the page: {page_url(settings)}[/dim]", highlight=False)
    given = _read(options.events, steps, cache)
    with steps.step("Publish the history to Kafka") as bar:
        history = demo_steps.publish_history(given, settings, bar)
    impressions = demo_steps.impressions(history)
    with steps.step("Fold it into features and labels", _see_worker(folder)) as bar:
        demo_steps.wait_until_processed(settings, impressions, worker, bar)
    with steps.step("Pre-train, fine-tune, export, promote SRP4CTR") as bar:
        rules = _refresh(settings, given.is_sampled, bar)
    if options.broker == "noida":  # all consumers have read the records, the log has them
        bootstrap = f"127.0.0.1:{addresses.kafka_port}"
        broker.delete_records(bootstrap, (BEHAVIOR_EVENTS_TOPIC, LABELS_TOPIC))
    with steps.step("Replay live visits: rank, publish clicks") as bar:
        control = ControlGroup(history, options.rule)
        replayed, published = _replay(settings, given, control, worker, bar)
    if replayed.held_visits:
        steps.console.print(f"  {demo_steps.pace(replayed)}", highlight=False)
    published += len(history) + len(given.broken)
    with steps.step("Wait until the last labels have matured", _see_worker(folder)) as bar:
        shown = sum(len(slate.item_ids) for slate in replayed.slates)
        demo_steps.wait_until_processed(settings, impressions + shown, worker, bar)
        demo_steps.wait_until_matured(settings, shown)
    return DemoResult(
        given=given, history=history, replayed=replayed, published=published, rules=rules
    )


def _read(file: Path | None, steps: Steps, cache: Path) -> DemoInput:
    name = file.name if file else "MovieLens-100K"
    with steps.step(f"Read {name}", "srp4ctr events check FILE counts its events by type"):
        demo_input = demo_steps.read_input(file, cache, LIVE_SHARE)
    if file is None:
        steps.console.print(f"  [dim]{movielens.TERMS}[/dim]", highlight=False)
        steps.console.print(f"  {movielens.WHAT_IT_IS}", highlight=False)
    if demo_input.is_sampled:
        steps.console.print(f"  {demo_steps.SAMPLED}", highlight=False)
    return demo_input


def _start_services(settings: Settings, folder: Path) -> processes.Running:
    """Start monitor, page and worker without waiting for them; return the worker."""
    from srp4ctr.features.online.feast_store import apply  # Feast: 3 s

    demo_steps.start_command("monitor", folder, "monitor", "run")
    demo_steps.start_command("page", folder, "monitor", "open", "--no-browser")
    apply(settings.features)
    return demo_steps.start_command("stream", folder, "stream", "run")


def _refresh(settings: Settings, is_sampled: bool, bar: Bar) -> tuple[RuleResult, ...]:
    """Train and promote a bundle; return the one-line rules that it was held to."""
    from srp4ctr.training.refresh.pipeline import RefreshOptions, refreshed  # torch: 3 s

    def show_progress(step: str, done: int, total: int, note: str = "") -> None:
        bar.set(done, total)
        bar.note(f"{step}  {note}")

    options = RefreshOptions(for_promotion=True, progress=show_progress)
    training = settings.training
    if is_sampled:
        training = replace(training, negatives="sampled")
    parts = (training, settings.features, settings.streams)

    def refresh() -> RefreshReport:
        with refreshed(*parts, options) as report:
            return serve_if_ready(settings, report, show_progress)

    report = refresh_and_record(refresh, Path(settings.training.bundles_dir))
    if not report.promoted:
        raise Srp4ctrError(f"{report.version} was refused: {'; '.join(report.refusals)}")
    bar.note(report.version)
    return report.rules


def _replay(
    settings: Settings,
    given: DemoInput,
    control: ControlGroup,
    worker: processes.Running,
    bar: Bar,
) -> tuple[ReplayResult, int]:
    with (
        EventPublisher(settings.kafka) as publisher,
        RankClient(settings.triton.grpc, tls=settings.triton.tls) as client,
    ):

        def rank(
            user: str, items: Sequence[str], now_ms: int, request_id: str
        ) -> SlateRanking:
            if control.has(user):
                return control.rank(user, items)
            return client.rank(
                user,
                items,
                request_time_ms=now_ms,
                request_id=request_id or None,
                deadline_s=5.0,
            )

        def publish(event: UserEvent) -> None:
            control.observe(event)
            publisher.publish(event)

        replay = Replay(
            rank=rank,
            publish=publish,
            seconds=REPLAY_SECONDS,
            behind=lambda: demo_steps.stream_lag(settings, worker),
            on_progress=bar.set,
        )
        result = replay.run(given.timelines)
    bar.note(f"{len(result.slates):,} requests")
    return result, publisher.published


def _show(result: DemoResult, console: Console, started: float, keep: bool) -> None:
    from srp4ctr.demo import figures as demo_figures

    settings, slates = load(), result.replayed.slates
    figures, live = demo_figures.figures(
        settings, result.replayed, result.history, result.published
    )
    show(console, figures, live)
    if result.rules:
        console.print(rules_table(result.rules[:NUM_RULES]))
    demo_figures.show_a_user(settings, result.given, slates, console)
    for failure, count in Counter(result.replayed.failures).most_common(3):
        console.print(f"[red]{count} requests failed: {failure}[/red]")
    demo_figures.show_next(settings, keep, console)
    figures = replace(figures, wall_s=time.monotonic() - started)
    console.print(figures.to_json(), markup=False, highlight=False, soft_wrap=True)


def _set_environment(folder: Path, options: DemoOptions) -> None:
    """Set the demo's settings for this process and its children."""
    given = {"data_dir": str(folder), "broker": options.broker, "store": options.store}
    for name, value in given.items():
        os.environ[variable_of(("embedded", name))] = value
    for name, value in SETTINGS.items():
        os.environ.setdefault(PREFIX + name, value)  # the user's own variables win


def _drop_other_addresses(addresses: Addresses) -> None:
    """Remove variables that name another broker, store or Triton than the demo's own."""
    for section, values in addresses.settings().items():
        for name in values:
            os.environ.pop(variable_of((section, name)), None)


def _see_worker(folder: Path) -> str:
    return f"see {folder / 'logs' / 'stream.log'}"


def _wait_for_interrupt() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        return


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
