"""Claim: no event is lost and none counts twice, whatever crashes.

Three stream workers on Apache Kafka and Valkey; everything is killed, frozen or taken away
in turn while events come in, late, twice and out of order, with poison between them. At
the end all that is stored and published is compared with a reference
(``srp4ctr/testing/fault_injection``).

With ``--s3`` the raw log is in a bucket, whose server (versitygw) fails as well.

    make bench NAME=faults ARGS="--rounds 3"
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import parser_of
from srp4ctr.embedded import apache_kafka
from srp4ctr.testing.fault_injection import fault_run
from srp4ctr.testing.fault_injection.faults import BUCKET_FAULTS, MORE_FAULTS
from srp4ctr.testing.fault_injection.traffic import Shape


def main() -> None:
    """Print a table, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="of all faults")
    parser.add_argument("--s3", action="store_true", help="with the raw log in a bucket")
    parser.add_argument("--keep", type=Path, help="a folder for logs and data")
    options = parser.parse_args()
    if missing := apache_kafka.missing_tools():
        sys.exit(f"Apache Kafka needs {', '.join(missing)}")
    faults = [*MORE_FAULTS, *(BUCKET_FAULTS if options.s3 else ())] * options.rounds
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {what}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        place, shape = options.keep or Path(folder), Shape(users=200)
        report = fault_run.run(place, shape, faults, say, in_bucket=options.s3)
    print(report)
    if examples := report.verdict.examples():
        print(examples)
    print(json.dumps(report.summary()))


if __name__ == "__main__":
    main()
