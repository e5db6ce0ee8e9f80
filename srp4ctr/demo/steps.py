"""The demo's steps: each calls a command's function and waits for its end."""

import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, product
from math import inf
from pathlib import Path

from srp4ctr import processes
from srp4ctr.cli.tables.console import Bar
from srp4ctr.demo import movielens
from srp4ctr.demo.replay import ReplayResult
from srp4ctr.demo.sessions import Timeline, history_events, timelines
from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.monitoring.prometheus import read_metrics
from srp4ctr.settings import Settings
from srp4ctr.streams.broker.clients import client_arguments
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.broker.topics import ensure_topics
from srp4ctr.streams.events.codec import RejectedEvent, decode
from srp4ctr.streams.events.file_import import read_lines
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    ITEMS_TOPIC,
    LABELS_TOPIC,
    Click,
    Event,
    Impression,
    ItemUpdate,
    UserUpdate,
)
from srp4ctr.training.config import MIN_REQUESTS

SAMPLED = (
    "The log has too few slates (impressions with request_id): they are sampled\n"
    '  from clicks (training.negatives = "sampled"). A score orders items and is no\n'
    "  calibrated probability, until real impressions arrive. Negatives are\n"
    "  drawn by popularity, which therefore ranks by chance here: the figures below\n"
    "  say whether the loop runs. How good the model is, hit_10 in its report says."
)
_POLL_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoInput:
    """The events that the demo publishes, as history and as live visits."""

    items: tuple[ItemUpdate, ...]
    users: tuple[UserUpdate, ...]
    timelines: tuple[Timeline, ...]
    broken: tuple[bytes, ...]
    """Payloads that are no valid events: published unchanged; the stream rejects them."""

    is_sampled: bool = False
    """The slates are sampled: the history has none."""

    def item_ids(self) -> set[str]:
        """Return the ids of all items that users were shown or used."""
        found = {event.item_id for line in self.timelines for event in line.before}
        for visit in chain.from_iterable(line.visits for line in self.timelines):
            for events in (visit.impressions, visit.clicks, visit.behaviors):
                found.update(event.item_id for event in events)
        return found

    def actions(self) -> set[str]:
        """Return the actions of all behaviours."""
        before = {each.action for line in self.timelines for each in line.before}
        visits = chain.from_iterable(line.visits for line in self.timelines)
        return before | {
            behavior.action for visit in visits for behavior in visit.behaviors
        }


def read_input(path: Path | None, cache: Path, live_share: float) -> DemoInput:
    """Return the events in ``path``, or MovieLens' where it is None."""
    events: list[Event] = []
    broken: list[bytes] = []
    if path is None:
        events = movielens.read(movielens.fetch(cache))
    else:
        now_ms = time.time_ns() // 1_000_000
        for line in read_lines(path):
            event = decode(line.payload, now_ms)
            if isinstance(event, RejectedEvent):
                broken.append(line.payload)
            else:
                events.append(event)
    items = tuple(event for event in events if isinstance(event, ItemUpdate))
    lines = timelines(events, live_share)
    if is_sampled := not _are_enough(lines):
        lines = _sampled(events, lines, live_share)
    return DemoInput(
        items=items,
        users=tuple(event for event in events if isinstance(event, UserUpdate)),
        timelines=tuple(lines),
        broken=tuple(broken),
        is_sampled=is_sampled,
    )


def _sampled(
    events: Sequence[Event], shown: Sequence[Timeline], live_share: float
) -> list[Timeline]:
    """Return the timelines of sampled slates; ``MistakeError`` where they are too few."""
    from srp4ctr.demo.clicks_only import with_slates  # Ibis: a second

    clicks = sum(isinstance(event, Click) for event in events)
    lines = timelines(with_slates(events), live_share) if clicks else []
    if not _are_enough(lines):
        given = sum(len(each.visits) for each in shown)
        more = sum(len(line.visits) for line in lines)
        raise MistakeError(
            f"the demo trains on {MIN_REQUESTS} slates or more (impressions with"
            " request_id) and replays the last ones of users with two or more, and the log"
            f" has {given}; {more} could be sampled from its {clicks:,} clicks"
        )
    return lines


def _are_enough(lines: Sequence[Timeline]) -> bool:
    history = sum(line.num_history for line in lines)
    return history >= MIN_REQUESTS and any(line.live for line in lines)


def start_command(name: str, folder: Path, *words: str) -> processes.Running:
    """Start ``srp4ctr WORDS`` as a process that ends with this one."""
    # Not with -O, which would save 2 s of Feast's import: kafka-python 3.0.12 has side
    # effects in asserts, and then cannot connect to Apache Kafka.
    program = processes.python(name, "-m", "srp4ctr.cli", *words)
    return processes.start(program, folder, tied=True)


def publish_history(given: DemoInput, settings: Settings, bar: Bar) -> list[Event]:
    """Publish attributes, then the events before the live visits; return all of them."""
    now_ms = time.time_ns() // 1_000_000
    past: Iterable[Event] = chain.from_iterable(
        history_events(timeline, now_ms) for timeline in given.timelines
    )
    if given.is_sampled:
        past = (event for event in past if not isinstance(event, Impression))
    attributes: tuple[Event, ...] = (*given.items, *given.users)
    history = [*attributes, *sorted(past, key=lambda event: event.occurred_at)]
    ensure_topics(settings.kafka)  # the worker may still be starting
    bar.set(0, len(history) + len(given.broken))
    with EventPublisher(settings.kafka) as publisher:
        for number, event in enumerate(history, start=1):
            publisher.publish(event, backfill=True)
            if number % 1000 == 0:
                bar.set(number)
        for payload in given.broken:
            publisher.publish_raw(payload)
    bar.note(f"{publisher.published:,} events")
    return history


def wait_until_processed(
    settings: Settings, labels: int, worker: processes.Running, bar: Bar
) -> None:
    """Return when ``worker`` has read all topics and ``labels`` have been published.

    Raises ``ProcessError`` if the worker has ended.
    """
    streams = settings.streams
    while True:
        processes.check_alive(worker)
        read, written = _progress(settings, streams.group_id, [BEHAVIOR_EVENTS_TOPIC])
        logged = [BEHAVIOR_EVENTS_TOPIC, ITEMS_TOPIC, LABELS_TOPIC]
        log_read, log_written = _progress(settings, streams.log_group_id, logged)
        _, published = _progress(settings, streams.log_group_id, [LABELS_TOPIC])
        bar.set(read + log_read, written + log_written)
        bar.note(f"{published:,} of {labels:,} labels")
        if read == written and log_read == log_written and published >= labels:
            return
        time.sleep(_POLL_S)


def wait_until_matured(settings: Settings, shown: int) -> None:
    """Return when the monitor counts ``shown`` ranked impressions as matured.

    Raises ``OutageError`` after a minute.
    """
    url = monitor_url(settings)
    deadline = time.monotonic() + 60.0
    matured = 0.0
    while time.monotonic() < deadline:
        matured = sum(
            value
            for name, value in scrape(url).items()
            if name.startswith("srp4ctr_matured_impressions") and "unranked" not in name
        )
        if matured >= shown:
            return
        time.sleep(_POLL_S)
    raise OutageError(f"{matured:.0f} of {shown} impressions matured in a minute")


def monitor_url(settings: Settings) -> str:
    """Return where the monitor shows its metrics."""
    return f"http://{settings.monitoring.host}:{settings.monitoring.port}/metrics"


def worker_url(settings: Settings) -> str:
    """Return where the stream worker shows its metrics."""
    return f"http://{settings.streams.metrics_host}:{settings.streams.metrics_port}/metrics"


def stream_lag(settings: Settings, worker: processes.Running) -> float:
    """Return how many records ``worker`` is behind; infinity where it does not say.

    Raises ``ProcessError`` if it has ended.
    """
    processes.check_alive(worker)
    try:
        return scrape(worker_url(settings)).get("srp4ctr_stream_lag_records", 0.0)
    except OutageError:
        return inf


def pace(replayed: ReplayResult) -> str:
    """Return a sentence on visits that waited for the stream."""
    rate = len(replayed.slates) / replayed.seconds
    return (
        f"{replayed.held_visits:,} visits waited for the stream to catch up:"
        f" this machine's pace is {rate:.0f} a second"
    )


def page_url(settings: Settings) -> str:
    """Return where the page with the dashboards and the playground is."""
    return f"http://127.0.0.1:{settings.monitoring.page_port}"


def scrape(url: str) -> dict[str, float]:
    """Return the samples at ``url``; labels join the name: ``name{a=b,c=d}``."""
    return {
        sample.name + _labels(sample.labels): sample.value
        for family in read_metrics(url)
        for sample in family.samples
    }


def impressions(events: Iterable[Event]) -> int:
    """Return how many distinct impressions ``events`` hold."""
    shown = (event for event in events if isinstance(event, Impression))
    return len({(each.user_id, each.request_id, each.item_id) for each in shown})


def _labels(labels: dict[str, str]) -> str:
    inside = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
    return f"{{{inside}}}" if inside else ""


def _progress(settings: Settings, group: str, topics: Sequence[str]) -> tuple[int, int]:
    """Return how far ``group`` has committed in ``topics``, and how far they go."""
    from kafka import KafkaConsumer, TopicPartition

    numbers = range(settings.kafka.partitions)
    partitions = [TopicPartition(*each) for each in product(topics, numbers)]
    arguments = client_arguments(settings.kafka)
    with closing(KafkaConsumer(**arguments, group_id=group, enable_auto_commit=False)) as c:
        committed = sum(c.committed(partition) or 0 for partition in partitions)
        return committed, sum(c.end_offsets(partitions).values())
