"""Runs workers and the intake, rebuilds the store, rewinds, and restores a lost Kafka.

Faust is imported when a process needs it: it costs seconds.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import REGISTRY

from srp4ctr import listening
from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.ops.audit import audit_log
from srp4ctr.ops.certificate_watch import watching
from srp4ctr.processes import ended_by_sigterm
from srp4ctr.retries import retry_during_outage
from srp4ctr.settings import Settings

_log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
"""Gets the number of partitions finished since the last call, and of all partitions."""


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Run a worker until SIGTERM or Ctrl-C; ``say`` gets the address of the metrics.

    Waits for a broker that does not answer yet.
    """
    from srp4ctr.embedded import ports
    from srp4ctr.embedded.broker import prepare_worker
    from srp4ctr.features.online.store import FeatureStoreSink
    from srp4ctr.streams.worker.app import ensure_topics, group_ids, run_worker

    with ended_by_sigterm():
        retry_during_outage(lambda: ensure_topics(settings.kafka), say)
        sink = FeatureStoreSink(settings.features)
    address = f"{settings.streams.metrics_host}:{settings.streams.metrics_port}"
    # Before members are evicted: a second worker by mistake must not end the first one.
    listening.bound(
        settings.streams.metrics_host,
        settings.streams.metrics_port,
        ": another worker? streams.metrics_port names another port",
    ).close()
    say(f"metrics: http://{address}/metrics  (Ctrl-C stops)")
    groups = group_ids(settings.streams)
    bootstrap = settings.kafka.bootstrap
    if bootstrap.startswith(f"{ports.HOST}:"):  # else it is no embedded one
        prepare_worker(Path(settings.embedded.data_dir), bootstrap, groups)
    features = settings.features
    folder = Path(features.log_dir)
    with watching(settings) as certificates:
        REGISTRY.register(certificates)
        try:
            run_worker(settings.kafka, settings.streams, sink, features.raw_log, folder)
        finally:
            REGISTRY.unregister(certificates)


def serve_intake(settings: Settings, say: Callable[[str], None]) -> None:
    """Take events by HTTP until SIGTERM or Ctrl-C; ``say`` gets the addresses.

    Where no token file is set, one in the data folder is used, and made at first.
    """
    from srp4ctr.streams.events.pseudonymization import read_pseudonyms
    from srp4ctr.streams.intake.server import serve
    from srp4ctr.streams.intake.tokens import make_token_file, read_tokens

    config = settings.intake
    given = config.token_file or str(Path(settings.embedded.data_dir) / "intake_token")
    token_file = Path(given)
    if not config.token_file and make_token_file(token_file):
        say(f"token: made {token_file}, readable by you only")
    else:
        say(f"token: {token_file}")
    pseudonyms = read_pseudonyms(settings.streams.pseudonym_key_file)
    serve(config, settings.kafka, read_tokens(token_file), pseudonyms, say)


def rebuild(settings: Settings, since: datetime, wait_s: float, progress: Progress) -> str:
    """Have the running workers rebuild all partitions; return what they rebuilt.

    Raises ``MistakeError`` where ``since`` is in the future, and ``OutageError`` after
    ``wait_s`` seconds.
    """
    if since > datetime.now(UTC):
        raise MistakeError(
            f"--since {since:%Y-%m-%dT%H:%M} is in the future: no event is that new"
        )
    with audit_log(settings).audited("stream rebuild", since.isoformat()) as operation:
        operation.after = _rebuild(
            settings, round(since.timestamp() * 1000), wait_s, progress
        )
    return operation.after


def _rebuild(settings: Settings, since_ms: int, wait_s: float, progress: Progress) -> str:
    from srp4ctr.features.online.store import FeatureStoreSink
    from srp4ctr.streams.broker.commands import request_rebuild, wait_until_read
    from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC
    from srp4ctr.streams.raw_log.delta_tables import skipped_offsets

    skipped = skipped_offsets(settings.features.raw_log, BEHAVIOR_EVENTS_TOPIC)
    if lacks := sum(skipped.values()):
        _log.warning(
            "the raw log lacks %s records that Kafka dropped before they were logged: the "
            "rebuilt rows lack them, too",
            f"{lacks:,}",
        )
    offsets = request_rebuild(settings.kafka, since_ms)
    num_read = wait_until_read(
        settings.kafka,
        settings.streams.group_id,
        offsets,
        lambda more: progress(more, len(offsets)),
        wait_s,
    )
    if num_read < len(offsets):
        raise OutageError(
            f"{num_read} of {len(offsets)} partitions are rebuilt after {wait_s:g} s; "
            "workers rebuild the rest as soon as they run (srp4ctr stream run)"
        )
    items = FeatureStoreSink(settings.features).restore_profiles()
    return f"{num_read} partitions and the attributes of {items:,} items"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewound:
    """Where workers read a partition again: from ``after`` instead of ``before``."""

    partition: int
    before: int
    after: int


def rewind(settings: Settings, to: Mapping[int, int], *, dry_run: bool) -> list[Rewound]:
    """Let stopped workers read again from the store's offsets, or those of ``to``.

    Returns the partitions that go back. Raises ``MistakeError`` where the store knows no
    offset, for an offset that is not committed yet, or as ``commands.rewind``.
    """
    from srp4ctr.streams.broker.commands import rewind as rewind_group
    from srp4ctr.streams.broker.topics import committed_offsets
    from srp4ctr.streams.events.schema import BEHAVIOR_EVENTS_TOPIC

    group = settings.streams.group_id
    committed = committed_offsets(settings.kafka, group, BEHAVIOR_EVENTS_TOPIC)
    offsets = to or _stored_offsets(settings, committed)
    for partition, at in offsets.items():
        if not 0 <= at <= committed.get(partition, -1):
            raise MistakeError(
                f"--to {partition}={at}: group {group} has committed "
                f"{committed.get(partition, 'nothing')} of partition {partition}, and a "
                "rewind goes back only"
            )
    back = [
        Rewound(partition=partition, before=committed[partition], after=at)
        for partition, at in sorted(offsets.items())
        if at < committed[partition]
    ]
    if back and not dry_run:
        places = {each.partition: each.after for each in back}
        shown = ", ".join(f"{partition}={at}" for partition, at in places.items())
        with audit_log(settings).audited("stream rewind", shown):
            rewind_group(settings.kafka, group, places)
    return back


def _stored_offsets(settings: Settings, committed: Mapping[int, int]) -> dict[int, int]:
    """Return the store's offsets of the partitions that are ``committed``, none later."""
    from srp4ctr.features.online.store import FeatureStoreSink

    stored = FeatureStoreSink(settings.features).stored_offsets()
    if lacks := sorted(p for p, at in committed.items() if at and p not in stored):
        raise MistakeError(
            f"the store has no offset of partition {lacks[0]}, as an empty one: run "
            "`srp4ctr stream rebuild` with the workers running, or name offsets with --to"
        )
    return {p: min(at, stored.get(p, at)) for p, at in committed.items()}


def restore(settings: Settings, log: str, progress: Callable[[int], None]) -> str:
    """Publish the raw log at ``log`` into a new, empty Kafka; return how many events.

    Raises ``MistakeError`` where that is the log that workers write, or as
    ``worker.restore``.
    """
    from srp4ctr.streams.worker.restore import restore as restore_log

    if Path(log).resolve() == Path(settings.features.raw_log).resolve():
        raise MistakeError(
            f"{log} is features.log_uri or log_dir: move it away first, or set another "
            "one; workers begin a new one"
        )
    with audit_log(settings).audited("events restore", log) as operation:
        done = restore_log(settings.kafka, log, progress)
        operation.after = ", ".join(f"{done[topic]:,} {topic}" for topic in sorted(done))
    return operation.after
