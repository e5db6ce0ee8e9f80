"""The demo on a user's own events: what it prints last, and what it leaves behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end import shop

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
KEYS = (
    *("events", "users", "rejected", "model_version", "auc", "log_loss", "calibration"),
    *("live_auc", "live_calibration", "online_ctr", "popularity_ctr", "random_ctr"),
    *("requests", "failed_requests", "p50_ms", "p99_ms", "encoder_runs_per_request"),
    *("folded_flops", "unfolded_flops", "freshness_p99_s", "wall_s"),
)


def test_the_demo_takes_its_users_own_events_round_the_loop(tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    good = shop.write(mine)
    command = [sys.executable, "-m", "cli", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(
        [*command, "demo", "--events", str(mine)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert tuple(figures) == KEYS
    assert figures["events"] == good + len(shop.BROKEN)
    assert figures["rejected"] == len(shop.BROKEN)
    assert figures["users"] == shop.NUM_USERS
    assert figures["failed_requests"] == 0
    assert figures["requests"] == shop.NUM_USERS * round(shop.SLATES * 0.2)
    # Few of the shop's requests find their history as it was at the one before.
    assert 0.8 <= figures["encoder_runs_per_request"] <= 1.05
    assert figures["unfolded_flops"] > 10 * figures["folded_flops"]
    # The planted taste: 0.9 for the user's colour, 0.1 for others, 0.37 at random.
    assert figures["live_auc"] > 0.6
    assert figures["online_ctr"] > figures["random_ctr"]
    assert list((tmp_path / "data").glob("demo-*")) == []
    assert still_running(tmp_path) == []


def still_running(folder: Path) -> list[str]:
    """Return the command lines of processes that name ``folder``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in line and str(os.getpid()) != process.name:
            found.append(line)
    return found
