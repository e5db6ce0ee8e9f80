"""Claim: no event is lost and none counts twice, whatever crashes.

Three stream workers on Apache Kafka and Valkey; everything is killed, frozen or taken away
in turn while events come in, late, twice and out of order, with poison between them. At
the end all that is stored and published is compared with a reference.

    make bench NAME=faults ARGS="--rounds 3"
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import parser_of
from benchmarks.fault_injection.scenario import FAULTS, MORE_FAULTS, run
from benchmarks.fault_injection.traffic import Shape
from srp4ctr.embedded import apache_kafka


def main() -> None:
    """Print a table, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="of all faults")
    parser.add_argument("--rate", type=float, default=150.0, help="events per second")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="the faults of the test")
    parser.add_argument("--keep", type=Path, help="a folder for logs and data")
    options = parser.parse_args()
    if missing := apache_kafka.missing_tools():
        sys.exit(f"Apache Kafka needs {', '.join(missing)}")
    shape = Shape(users=options.users, events_per_s=options.rate, seed=options.seed)
    faults = [*(FAULTS if options.short else MORE_FAULTS)] * options.rounds
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {what}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        report = run(options.keep or Path(folder), shape, faults, say)
    print(report.table())
    if examples := report.verdict.examples():
        print(examples)
    print(json.dumps(report.summary()))


if __name__ == "__main__":
    main()
