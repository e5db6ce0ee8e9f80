"""Claims about serving, monitoring and the whole system: its cost, and what it survives."""

from benchmarks.report.claims import Claim, Found, of, share


def container_losses(found: Found) -> str:
    """Return what was lost; failed steps of the run, too."""
    return share(found["lost"], found["events"], "events lost") + _failed(found)


def containers_not_healed(found: Found) -> str:
    """Return after how many of the ends of a container the stack was not whole again."""
    if not found["restarts"]:
        return "not tried in the recorded run"
    not_healed = len(found["not_healed"])
    return share(not_healed, found["restarts"], "not recovered") + _failed(found)


def _failed(found: Found) -> str:
    return f"; failed steps: {len(found['failed'])}" if found["failed"] else ""


SERVING = (
    Claim(
        name="folding",
        sentence="Encoding a user's history once per request needs far fewer FLOPs than "
        "encoding it for each of 100 candidates (histories of 50 behaviours).",
        number=lambda found: f"{of(found, length=50)['flops_ratio']:.0f}×",
    ),
    Claim(
        name="serving",
        sentence="In a running Triton, features from the store included, encoding once "
        "needs less CPU time than encoding per candidate (100 candidates, histories of "
        "200).",
        number=lambda found: f"{found['cost_ratio_tiled']:.0f}×",
    ),
    Claim(
        name="serving",
        sentence="99 % of the requests with 100 candidates and histories of 200 are "
        "answered within this time (one caller).",
        number=lambda found: f"{found['p99_ms']:.1f} ms",
    ),
    Claim(
        name="overload",
        sentence="At twice the load that it can serve, the server still answers most of "
        "its best rate in time.",
        number=lambda found: f"{found['bounded_share_at_twice'] * 100:.0f} %",
    ),
    Claim(
        name="promotion",
        sentence="Promotions, rollbacks, killed promoters and a killed serving process "
        "make no call of the client fail.",
        number=lambda found: share(found["failed"], found["requests"], "calls failed"),
    ),
    Claim(
        name="promotion",
        sentence="No response mixes two model versions, whatever is promoted or killed.",
        number=lambda found: share(found["mixed"], found["requests"], "responses mixed"),
    ),
    Claim(
        name="promotion",
        sentence="A serving process that is killed under load is replaced within three "
        "seconds.",
        number=lambda found: f"{found['replaced_s']} s",
    ),
    Claim(
        name="replicas",
        sentence="Behind a load balancer two servers change bundles in turn, and one "
        "restarts, without a failed call.",
        number=lambda found: share(found["failed"], found["requests"], "calls failed"),
    ),
)

MONITORING = (
    Claim(
        name="monitoring",
        sentence="Live click rate, calibration, normalised entropy and AUC equal an "
        "offline recomputation (the greatest difference, AUC's).",
        number=lambda found: f"{found['max_abs_error']:.6f}",
    ),
    Claim(
        name="monitoring",
        sentence="An alert fires for the version that over-predicts and for the one that "
        "costs too much, and for no other.",
        number=lambda found: (
            share(found["alerts_right"], found["alerts_deserved"], "alerts fired")
            + f", {found['alerts_wrong']} wrong"
        ),
    ),
    Claim(
        name="monitoring",
        sentence="The monitor needs little CPU time for a label.",
        number=lambda found: f"{found['overhead_us_per_event']:.0f} µs",
    ),
)

WHOLE = (
    Claim(
        name="demo",
        typed="make demo",
        sentence="The whole loop runs on real data within minutes, with nothing but "
        "Python, installation included.",
        number=lambda found: f"{found['seconds']} s",
    ),
    Claim(
        name="demo",
        typed="make demo",
        sentence="The model predicts the demo's live clicks (AUC).",
        number=lambda found: f"{found['live_auc']:.3f}",
    ),
    Claim(
        name="demo",
        typed="make demo",
        sentence="99 % of the clicks change the scores of the same request within a "
        "second.",
        number=lambda found: f"{found['click_to_score_p99_s']} s (p99)",
    ),
    Claim(
        name="soak",
        args="--hours 1 --fault-every-s 180",
        sentence="The whole stack at half of its capacity loses no event in an hour with "
        "eighteen faults, promotions and rollbacks.",
        number=lambda found: share(found["lost"], found["events"], "events lost"),
    ),
    Claim(
        name="soak",
        args="--hours 1 --fault-every-s 180",
        sentence="No request fails in that hour.",
        number=lambda found: share(found["failed"], found["requests"], "requests failed"),
    ),
    Claim(
        name="soak",
        args="--hours 1 --fault-every-s 180",
        sentence="99 % of that hour's requests are answered within the objective of "
        "50 ms, on two cores that run everything.",
        number=lambda found: f"{found['p99_ms']} ms (p99)",
    ),
    Claim(
        name="soak",
        args="--hours 1 --fault-every-s 180",
        sentence="No process needs much more memory at the end of that hour than five "
        "minutes after its start (the greatest growth, Kafka's within its heap).",
        number=lambda found: f"{found['rss_growth_mb']} MB",
    ),
    Claim(
        name="containers",
        typed="make containers",
        sentence="The services of `compose.yaml` lose no event through outages of a "
        "minute, scaling, down and up, backup and restore.",
        number=container_losses,
    ),
    Claim(
        name="containers",
        typed="make containers",
        sentence="The stack recovers by itself after each service is killed or its "
        "container restarted.",
        number=containers_not_healed,
    ),
)
