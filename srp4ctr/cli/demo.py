"""``srp4ctr demo``: the whole loop on real data."""

from pathlib import Path
from typing import Annotated

import typer

from srp4ctr.cli.tables.console import out


def demo(
    events_file: Annotated[
        Path | None,
        typer.Option(
            "--events",
            help="Your own events, JSON lines or Parquet. Default: MovieLens-100K.",
        ),
    ] = None,
    broker: Annotated[
        str, typer.Option(help="noida (embedded) or kafka (Apache Kafka, needs Java 17).")
    ] = "noida",
    store: Annotated[
        str, typer.Option(help="single, or cluster (a Redis Cluster of three nodes).")
    ] = "single",
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running until Ctrl-C.")
    ] = False,
    rule: Annotated[
        str,
        typer.Option(
            help="One-line rule of the control group: popularity, touched_last or "
            "touched_most."
        ),
    ] = "popularity",
) -> None:
    """Run the whole loop on real data: publish, fold, train, serve, replay, measure.

    Example:  srp4ctr demo --events mine.jsonl --keep
    """
    from srp4ctr.demo.run import DemoOptions, run

    options = DemoOptions(
        events=events_file, broker=broker, store=store, keep=keep, rule=rule
    )
    run(options, out)
