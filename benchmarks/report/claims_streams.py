"""Claims about the streams, the features and what training reads of them."""

from benchmarks.report.claims import Claim, of, share

STREAMS = (
    Claim(
        name="faults",
        args="--short",
        sentence="No event is lost while stream workers, Apache Kafka and the store are "
        "killed, frozen and restarted under traffic.",
        number=lambda found: share(found["lost"], found["events"], "events lost"),
    ),
    Claim(
        name="ingest",
        args="--broker noida --events 100000",
        sentence="One stream worker processes more than 10,000 events in a second of "
        "CPU time, with histories of 50 behaviours.",
        number=lambda found: f"{found['events_per_core_s']:,} events per CPU second",
    ),
    Claim(
        name="ingest",
        run="ingest on Kafka",
        sentence="A stream worker processes many times more events than a Faust agent "
        "that calls Feast's `push` for each event.",
        number=lambda found: f"{found['events_per_s'] / found['naive_events_per_s']:.0f}×",
    ),
    Claim(
        name="ingest",
        run="ingest on Kafka",
        sentence="At half of a worker's capacity, 99 % of the events can be read from "
        "the store within a second.",
        number=lambda found: f"{found['freshness_p99_ms']} ms (p99)",
    ),
    Claim(
        name="footprints",
        sentence="A stream worker spends about a tenth of a millisecond of CPU time on "
        "an event, exposures and labels included (histories of 50 behaviours).",
        number=lambda found: f"{of(found, length=50)['worker_us_per_event']:.1f} µs",
    ),
    Claim(
        name="point_in_time",
        sentence="100,000 point-in-time correct training examples are built from ten "
        "million events within a minute.",
        number=lambda found: f"{found['seconds']} s",
    ),
    Claim(
        name="counters",
        sentence="On a news site (EB-NeRD) LightGBM with only the items' fresh counters "
        "ranks nearly as well as with all feature columns (gAUC of both).",
        number=lambda found: (
            f"{found['ebnerd_gauc_of_items']:.3f} of {found['ebnerd_gauc']:.3f}"
        ),
    ),
)
