"""Claim: after tastes have changed at once, a refresh every ten minutes learns it soon.

A generated feed: requests at an even rate, five random items each, clicked by what the
item is worth and by whether it is of the user's group. At one instant every item is worth
something else, and clicks become rarer. The product's own refresh goes on from its last
bundle, with labels that mature after ten minutes; its gates decide what serves. Compared
are how often it runs, and how many of the newest requests are held out, which no model has
learned: a tenth of the log, or those with a number of clicks.

Each request is scored by the bundle that served then. Excess is the log loss above that of
the true probabilities. Recovered means that half or less of the shift's excess is left.

    make bench NAME=shift ARGS="--minutes 90"
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import parser_of, say
from benchmarks.harness.figures import table
from srp4ctr.features.bundles import bundle
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.offline import event_tables, point_in_time
from srp4ctr.features.tensors import vocabulary
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import Impression, UserEvent
from srp4ctr.testing.raw_logs import Published, click_on, labels_of, punctual, write_log
from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.dataset import examples, item_attributes
from srp4ctr.training.dataset.batches import Slates
from srp4ctr.training.evaluation import champion, quality
from srp4ctr.training.refresh import reports
from srp4ctr.training.refresh.pipeline import RefreshOptions, refresh
from srp4ctr.training.refresh.reports import RefreshOutcome

USERS, ITEMS, GROUPS, SLATE = 2_000, 300, 10, 5
A_MINUTE, BEFORE_MIN, EVERY_MIN = 60, 600, 10  # requests; minutes before the shift
BASE, FALL, WORTH, LIKED = -3.0, 0.7, 0.8, 1.5  # log-odds of a click, and their spread
START_MS, MINUTE_MS = 1_700_006_400_000, 60_000
SHIFT_MS = START_MS + BEFORE_MIN * MINUTE_MS
RECOVERED = 0.5
ALL_CLICKS = 10**9  # the tenth of the log alone bounds what is held out
STREAMS = StreamConfig(sequence_length=20, label_window_s=600.0)
# Small, so that dozens of refreshes take minutes.
RECIPE = RefreshConfig(
    model=ModelConfig(width=32, num_layers=1, head_width=64),
    pretrain_epochs=2,
    finetune_epochs=1,
    finetune_learning_rate=4e-3,
    batch_requests=256,
)
Floats = NDArray[np.float64]


@dataclass(slots=True, kw_only=True)
class Policy:
    """How often a model is refreshed, and what it has served since when."""

    name: str
    every_min: int = 0
    """0: never."""
    held_out: int = ALL_CLICKS
    """The newest clicks, of a tenth of the log at most."""
    served: list[tuple[int, Path]] = field(default_factory=list)
    refused: int = 0

    def at(self, at_ms: int) -> Path:
        """Return the bundle that served at ``at_ms``."""
        return next(folder for since, folder in reversed(self.served) if since <= at_ms)


def main() -> None:
    """Print the excess by minute and policy, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--minutes", type=int, default=180, help="after the shift")
    options = parser.parse_args()
    if options.minutes < 2 * EVERY_MIN:
        parser.error(f"--minutes is at least {2 * EVERY_MIN}")
    policies = [
        Policy(name="none"),
        Policy(name="hourly, a tenth held out", every_min=60),
        Policy(name="hourly, 500 clicks held out", every_min=60, held_out=500),
        Policy(name="every 10 min, 500 clicks held out", every_min=10, held_out=500),
    ]
    with tempfile.TemporaryDirectory() as name:
        published, truth = feed(BEFORE_MIN + options.minutes)
        log = FeatureConfig(log_dir=f"{name}/log")
        run(policies, published, log, options.minutes)
        rows = excesses(policies, log, truth, options.minutes)
    print(table(rows, {"minute": "minute", **{p.name: f"{p.name}:.4f" for p in policies}}))
    found = [verdict(policy, rows) for policy in policies]
    columns = {
        "refresh": "policy",
        "recovered after min": "recovered_min",
        "excess of the last hour": "last_hour:.4f",
        "refused": "refused",
    }
    print(table(found, columns))
    print(json.dumps({"rows": found, "by_minute": rows}))


def feed(minutes: int) -> tuple[list[Published], Floats]:
    """Return all that is published, by when it is known, and the true probabilities (R, N).

    A request comes every second.
    """
    random = np.random.default_rng(0)
    requests = minutes * A_MINUTE
    users = random.integers(USERS, size=requests)
    items = np.argsort(random.random((requests, ITEMS)), axis=1)[:, :SLATE]
    is_after = (np.arange(requests) >= BEFORE_MIN * A_MINUTE).astype(np.int64)[:, None]
    worth = WORTH * random.standard_normal((2, ITEMS))  # before and after
    is_liked = items % GROUPS == users[:, None] % GROUPS
    logits = BASE - FALL * is_after + LIKED * is_liked + worth[is_after, items]
    truth: Floats = 1.0 / (1.0 + np.exp(-logits))
    clicked = random.random(truth.shape) < truth
    events: list[UserEvent] = []
    for number, (user, slate) in enumerate(zip(users, items, strict=True)):
        shown = impressions(number, int(user), slate.tolist())
        events += shown
        events += [
            click_on(each, each.occurred_at + 1 + place, f"c{number}-{place}")
            for place, each in enumerate(shown)
            if clicked[number, place]
        ]
    window_ms = round(STREAMS.label_window_s * 1000)
    labels = labels_of(punctual(events), window_ms, window_ms, len(events) + 1)
    known = [*punctual(events), *((each, each.matured_at) for each in labels)]
    return sorted(known, key=lambda each: each[1]), truth


def impressions(number: int, user: int, items: Sequence[int]) -> list[Impression]:
    """Return what request ``number`` showed to ``user``."""
    return [
        Impression(
            event_id=f"i{number}-{place}",
            request_id=f"r{number}",
            user_id=f"u{user}",
            item_id=f"item{item}",
            position=place,
            occurred_at=START_MS + number * MINUTE_MS // A_MINUTE,
        )
        for place, item in enumerate(items)
    ]


def run(
    policies: Sequence[Policy],
    published: Sequence[Published],
    log: FeatureConfig,
    minutes: int,
) -> None:
    """Let time pass from the shift on: the log grows, and models are refreshed."""
    known_ms = np.array([known for _, known in published])
    written = 0
    for minute in range(0, minutes + 1, EVERY_MIN):
        now_ms = SHIFT_MS + minute * MINUTE_MS
        end = int(np.searchsorted(known_ms, now_ms))
        write_log(Path(log.log_dir), published[written:end], start=written)
        written = end
        if minute == 0:
            begin(policies, log)
            continue
        for policy in policies:
            if policy.every_min and minute % policy.every_min == 0:
                say(f"minute {minute}: {policy.name}")
                refreshed(policy, log, now_ms)


def begin(policies: Sequence[Policy], log: FeatureConfig) -> None:
    """Train the model that serves when the shift comes, once for all ``policies``."""
    say("the first model")
    root = Path(log.log_dir).parent
    first = Policy(name="first", held_out=500)
    refreshed(first, log, START_MS)
    for policy in policies:
        shutil.copytree(bundles_of(first, root), bundles_of(policy, root))
        policy.served = [(START_MS, bundles_of(policy, root) / first.served[0][1].name)]


def bundles_of(policy: Policy, root: Path) -> Path:
    """Return where the bundles of ``policy`` are."""
    return root / policy.name.replace(" ", "-").replace(",", "")


def refreshed(policy: Policy, log: FeatureConfig, now_ms: int) -> None:
    """Refresh the model of ``policy``; note what serves from ``now_ms`` on."""
    config = replace(
        RECIPE,
        bundles_dir=str(bundles_of(policy, Path(log.log_dir).parent)),
        held_out_clicks=policy.held_out,
    )
    serving = policy.served[-1][1] if policy.served else None
    options = RefreshOptions(for_promotion=True, serving=serving)
    report = refresh(config, log, STREAMS, options)
    if report.outcome is RefreshOutcome.READY:
        report = reports.with_promotion(report, ())
        reports.write(report)
        policy.served.append((now_ms, report.folder))
    policy.refused += not report.promoted
    for reason in report.refusals:
        say(f"  {reason}")


def excesses(
    policies: Sequence[Policy], log: FeatureConfig, truth: Floats, minutes: int
) -> list[dict[str, Any]]:
    """Return each policy's excess by ten minutes, from half an hour before the shift."""
    rows = []
    with event_tables.opened(Path(log.log_dir)) as events:
        tables = point_in_time.request_tables(
            events, STREAMS.sequence_length, log.sequence_ttl_days, STREAMS.exposure_length
        )
        for minute in range(-30, minutes - EVERY_MIN, EVERY_MIN):
            first = (BEFORE_MIN + minute) * A_MINUTE
            last = first + EVERY_MIN * A_MINUTE
            part = tables.read(first, last)
            row: dict[str, Any] = {"minute": minute}
            for policy in policies:
                folder = policy.at(SHIFT_MS + minute * MINUTE_MS)
                words = vocabulary.load(folder / bundle.VOCABULARY_FILE)
                attributes = item_attributes.of_profiles({}, words)
                slates = examples.slates(part, words, attributes, SLATE)
                row[policy.name] = excess(folder, slates, truth[first:last])
            rows.append(row)
    return rows


def excess(folder: Path, slates: Slates, truth: Floats) -> float:
    """Return by how much the log loss of the bundle in ``folder`` is above the truth's."""
    scored = champion.score(folder, slates)
    best = quality.log_loss(scored.clicked, truth[slates.shown])
    return round(quality.log_loss(scored.clicked, scored.probabilities) - best, 5)


def verdict(policy: Policy, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return after how many minutes the excess stays within half of the shift's."""
    before = np.mean([row[policy.name] for row in rows if row["minute"] < 0])
    after = [row for row in rows if row["minute"] >= 0]
    limit = before + RECOVERED * (after[0][policy.name] - before)
    recovered = EVERY_MIN + max(r["minute"] for r in after if r[policy.name] > limit)
    last = [row[policy.name] for row in after[-60 // EVERY_MIN :]]
    return {
        "policy": policy.name,
        "recovered_min": recovered if recovered <= after[-1]["minute"] else None,
        "last_hour": round(float(np.mean(last)), 5),
        "refused": policy.refused,
    }


if __name__ == "__main__":
    main()
