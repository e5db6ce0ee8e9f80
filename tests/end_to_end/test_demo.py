"""The demo on a user's own events: what it prints last."""

import json

import pytest

from srp4ctr.demo.popularity_baseline import ControlGroup
from tests.end_to_end import shop
from tests.end_to_end.conftest import RunningDemo

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
KEYS = (
    "events",
    "users",
    "rejected",
    "model_version",
    "auc",
    "log_loss",
    "calibration",
    "live_auc",
    "live_calibration",
    "online_ctr",
    "popularity_ctr",
    "random_ctr",
    "paired_difference",
    "paired_low",
    "paired_high",
    "paired_users",
    "paired_visits",
    "requests",
    "failed_requests",
    "p50_ms",
    "p99_ms",
    "encoder_runs_per_request",
    "folded_flops",
    "unfolded_flops",
    "freshness_p99_s",
    "wall_s",
)


def test_the_demo_takes_its_users_own_events_round_the_loop(demo: RunningDemo) -> None:
    figures = json.loads(demo.output.splitlines()[-1])
    assert tuple(figures) == KEYS
    assert figures["events"] == demo.good_events + len(shop.BROKEN)
    assert figures["rejected"] == len(shop.BROKEN)
    assert figures["users"] == shop.NUM_USERS
    assert figures["failed_requests"] == 0
    users = {f"user-{number}" for number in range(shop.NUM_USERS)}
    ranked = [user for user in users if not ControlGroup([]).has(user)]
    assert 0 < len(ranked) < len(users)
    assert figures["requests"] == len(ranked) * round(shop.SLATES * 0.2)
    # One a request, and those of a promotion's golden requests. The Python step, which
    # answers some, finds the probe's histories encoded until their behaviour is folded.
    assert 0.5 <= figures["encoder_runs_per_request"] <= 1.2
    assert figures["unfolded_flops"] > 10 * figures["folded_flops"]
    assert figures["live_auc"] is None  # no position has a hundred clicks
    # The planted taste: 0.9 for the user's colour, 0.1 for others, 0.37 at random.
    assert figures["online_ctr"] > figures["random_ctr"]
    assert figures["paired_low"] < figures["paired_difference"] < figures["paired_high"]
    assert figures["paired_users"] == len(ranked)
    assert figures["paired_visits"] == figures["requests"]
    assert f"{len(ranked)} users, {figures['requests']} visits" in demo.output
