"""``srp4ctr stream VERB``: run a worker, or have the past folded anew."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from srp4ctr.cli.tables.dates import instant
from srp4ctr.ops.audit import audit_log
from srp4ctr.settings import Settings, load

app = typer.Typer(help="Events → sequences, counters and labels.", no_args_is_help=True)
out = Console()
err = Console(stderr=True)


@app.command("run")
def run() -> None:
    """Fold events into sequences, counters and labels until stopped (Ctrl-C).

    Example: srp4ctr stream run
    """
    from srp4ctr.embedded.noida_workarounds import prepare_worker
    from srp4ctr.features.store import FeatureStoreSink
    from srp4ctr.ops.waiting import ended_by_sigterm, until_there
    from srp4ctr.streams.app import ensure_topics, group_ids, run_worker

    settings = load()
    with ended_by_sigterm():
        until_there(lambda: ensure_topics(settings.kafka), err.print)
        sink = until_there(lambda: FeatureStoreSink(settings.features), err.print)
    address = f"{settings.streams.metrics_host}:{settings.streams.metrics_port}"
    err.print(f"metrics: http://{address}/metrics  (Ctrl-C stops)")
    prepare_worker(
        Path(settings.local.data_dir), settings.kafka.bootstrap, group_ids(settings.streams)
    )
    log_dir = Path(settings.features.log_dir)
    run_worker(settings.kafka, settings.streams, sink, log_dir)


@app.command("rebuild")
def rebuild(
    since: Annotated[
        str, typer.Option(help="Fold what is known since: 2026-11-01 or …T12:00 (UTC).")
    ] = "1970-01-01",
    wait_s: Annotated[float, typer.Option(help="Wait so long for the workers.")] = 600.0,
) -> None:
    """Fold the past anew into the store, by the running workers, while traffic flows.

    Every user and item that the log names since then gets a row made of nothing but that
    part of the log; reach back as far as a sequence should. Others keep theirs. Items get
    their newest attributes again, from the raw log.

    Example: srp4ctr stream rebuild --since 2026-11-01
    """
    since_ms = _millis(since)  # first: what follows takes seconds to import
    with audit_log(settings := load()).recorded("stream rebuild", since) as outcome:
        outcome.after = _rebuild(settings, since_ms, wait_s)
    out.print(f"rebuilt {outcome.after}, of what is known since {since}")


def _rebuild(settings: Settings, since_ms: int, wait_s: float) -> str:
    """Have all partitions rebuilt, and return how much that was."""
    from srp4ctr.features.store import FeatureStoreSink
    from srp4ctr.streams.operations import request_rebuild, wait_until_read

    offsets = request_rebuild(settings.kafka, since_ms)
    columns = (TextColumn("rebuild"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("partitions"), console=err) as bar:
        task = bar.add_task("rebuild", total=len(offsets))
        done = wait_until_read(
            settings.kafka,
            settings.streams.group_id,
            offsets,
            lambda more: bar.advance(task, more),
            wait_s,
        )
    if done < len(offsets):
        raise ValueError(
            f"{done} of {len(offsets)} partitions are rebuilt after {wait_s:g} s; the rest "
            "follows as soon as workers get to it (is one running? srp4ctr stream run)"
        )
    items = FeatureStoreSink(settings.features).restore_profiles()
    return f"{done} partitions and the attributes of {items:,} items"


def _millis(since: str) -> int:
    parsed = instant(since)
    if parsed > datetime.now(UTC):
        raise ValueError(f"--since {since} is in the future: nothing is known since then")
    return round(parsed.timestamp() * 1000)
