"""Each form of serving that the benchmark compares is still served, by a real Triton."""

import json
import subprocess
import sys

from benchmarks.serving.serving_forms import FORMS


def test_each_form_answers() -> None:
    options = ("--quick", "--rounds", "1", "--duration", "0.5", "--callers", "1", "--forms")
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.serving.serving",
            *options,
            "rank_clicks",
            *FORMS,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not ran.returncode, ran.stderr
    rows = json.loads(ran.stdout.splitlines()[-1])["rows"]
    assert {row["form"]: row["requests"] > 0 for row in rows} == {
        name: True for name in ("rank_clicks", *FORMS)
    }
