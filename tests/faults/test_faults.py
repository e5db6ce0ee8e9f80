"""Everything is killed in turn, on Apache Kafka: nothing is lost and nothing counts twice.

The run is a process of its own, because kafka-python leaves sockets behind when its
broker goes away.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from srp4ctr.embedded import apache_kafka
from srp4ctr.testing.fault_injection.faults import FAULTS

# Seven faults, each with minutes to recover on a busy machine.
pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(1800)]
RUN = """
import json, sys
from pathlib import Path
from srp4ctr.testing.fault_injection.fault_run import run
from srp4ctr.testing.fault_injection.faults import FAULTS
from srp4ctr.testing.fault_injection.traffic import Shape

def say(what):
    print(what, file=sys.stderr, flush=True)

report = run(Path(sys.argv[1]), Shape(users=200), FAULTS, say)
print(report, report.verdict.examples(), sep="\\n")
print(json.dumps(report.summary()))
"""


@pytest.fixture(autouse=True)
def apache_kafka_runs() -> None:
    """Skip where Apache Kafka cannot run; in CI it must."""
    if missing := apache_kafka.missing_tools():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must run the faults: install {', '.join(missing)}")
        pytest.skip(f"Apache Kafka needs {', '.join(missing)}")


def test_after_every_fault_the_outcome_is_the_references(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    *table, last = result.stdout.splitlines()
    with capfd.disabled():
        sys.stdout.write("\n".join(["", *table, ""]))
    summary = json.loads(last)
    assert summary["faults"] == len(FAULTS)
    assert summary["events"] > 20_000
    assert summary["poison"] > 100
    wrong = {name: n for name, n in summary.items() if n and name.startswith("wrong")}
    assert (summary["lost"], wrong) == (0, {}), result.stdout
