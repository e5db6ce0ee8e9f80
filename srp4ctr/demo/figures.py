"""The results of the demo's steps → its figures, one user's ranking, and next commands."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from srp4ctr.cli.tables.results import ranking_table
from srp4ctr.cli.tables.users import Names, sequence_table
from srp4ctr.client.rank_client import RankClient
from srp4ctr.demo.popularity_baseline import POPULARITY, RULES, PairedCtr, paired_ctr
from srp4ctr.demo.replay import ReplayedSlate, ReplayResult
from srp4ctr.demo.steps import DemoInput, monitor_url, page_url, scrape, worker_url
from srp4ctr.demo.tables import (
    DemoFigures,
    LiveDetails,
    percentile_ms,
    popularity_click_rate,
    random_click_rate,
)
from srp4ctr.embedded import stack
from srp4ctr.features.bundles import bundle
from srp4ctr.features.online.store import OnlineViews
from srp4ctr.monitoring.quality.confidence_intervals import Interval
from srp4ctr.ops.feature_store import titles
from srp4ctr.settings import Settings
from srp4ctr.streams.events.schema import Click, Event, action_names, item_key
from srp4ctr.triton_repo.deployment.live_repository import read_serving

NUM_CANDIDATES = 100
_SHOWN = 8
_AT_TOP = "srp4ctr_online_click_rate_at_top"


def figures(
    settings: Settings, replayed: ReplayResult, history: Sequence[Event], published: int
) -> tuple[DemoFigures, LiveDetails]:
    """Return the figures of a run, ``wall_s`` still 0."""
    version = read_serving(Path(settings.triton.repository)).serving or ""
    card = bundle.read(Path(settings.training.bundles_dir) / version)
    monitor, worker = scrape(monitor_url(settings)), scrape(worker_url(settings))
    clicks = Counter(event.item_id for event in history if isinstance(event, Click))
    slates = [slate for slate in replayed.slates if slate.model_version == version]
    fresh, pair = replayed.freshness_s, paired_ctr(slates, clicks)
    users = {event.user_id for event in history if hasattr(event, "user_id")}
    live = _Live(monitor, version)
    return DemoFigures(
        events=published,
        users=len(users),
        rejected=int(_sum(worker, "srp4ctr_events_rejected_total")),
        model_version=version,
        auc=card.metrics["auc"],
        log_loss=card.metrics["log_loss"],
        calibration=card.metrics.get("calibration"),
        live_auc=live.value("srp4ctr_live_auc"),
        live_calibration=live.value("srp4ctr_calibration_ratio"),
        online_ctr=live.value(_AT_TOP) or 0.0,
        popularity_ctr=popularity_click_rate(slates, clicks),
        random_ctr=random_click_rate(slates),
        paired_difference=pair.difference,
        paired_low=pair.low,
        paired_high=pair.high,
        paired_users=pair.users,
        paired_visits=pair.visits,
        requests=len(slates) + len(replayed.failures),
        failed_requests=len(replayed.failures),
        p50_ms=percentile_ms(slates, 50),
        p99_ms=percentile_ms(slates, 99),
        encoder_runs_per_request=monitor["srp4ctr_encoder_runs_per_request"],
        folded_flops=int(card.cost["folded_flops"]),
        unfolded_flops=int(card.cost["unfolded_flops"]),
        freshness_p99_s=float(np.percentile(fresh, 99)) if fresh else None,
        wall_s=0.0,
    ), _details(live, replayed, pair)


def _details(live: "_Live", replayed: ReplayResult, paired: PairedCtr) -> LiveDetails:
    versions = {slate.model_version for slate in replayed.slates}
    rule = next((each for each in RULES if each in versions), POPULARITY)
    return LiveDetails(
        control_rule=rule,
        top_interval=live.interval(_AT_TOP),
        auc_interval=live.interval("srp4ctr_live_auc"),
        log_loss=live.value("srp4ctr_live_log_loss_nats"),
        calibration_interval=live.interval("srp4ctr_calibration_ratio"),
        matured_impressions=int(live.value("srp4ctr_matured_impressions") or 0),
        probes=len(replayed.freshness_s),
        unchanged_probes=replayed.unchanged_probes,
        late_probes=replayed.late_probes,
        control_click_rate=live.value(_AT_TOP, rule),
        control_interval=live.interval(_AT_TOP, rule),
        paired=paired,
    )


class _Live(NamedTuple):
    """The monitor's samples, and the version that they are read of by default."""

    samples: dict[str, float]
    version: str

    def value(self, metric: str, of: str = "") -> float | None:
        return self.samples.get(f"{metric}{{model_version={of or self.version}}}")

    def interval(self, metric: str, of: str = "") -> Interval:
        labels = f"model_version={of or self.version}"
        bounds = (f"{metric}_bound{{bound={each},{labels}}}" for each in ("low", "high"))
        low, high = (self.samples.get(bound, float("nan")) for bound in bounds)
        return Interval(low=low, high=high)


def show_a_user(
    settings: Settings, given: DemoInput, slates: Sequence[ReplayedSlate], console: Console
) -> None:
    """Print one user's latest behaviours by title, and the ranking that they get now."""
    user = max(slates, key=lambda slate: len(slate.clicked)).user_id
    row = OnlineViews(settings.features).read_users([user])[user]
    seen = {element.item_key for element in row.sequence.elements}
    ids = [item.item_id for item in given.items if item_key(item.item_id) not in seen]
    if not ids:  # a file without items: take those shown to others
        ids = sorted({item for slate in slates for item in slate.item_ids})
    random.Random(0).shuffle(ids)
    ids = ids[:NUM_CANDIDATES]
    used = {item_id for item_id in given.item_ids() if item_key(item_id) in seen}
    names = titles(settings.features, seen, used | {*ids})
    actions = action_names(given.actions(), settings.streams.action_codes)
    shown = Names(items=names, actions=actions)
    console.print(sequence_table(f"user {user}", row, shown, last=_SHOWN))
    with RankClient(settings.triton.grpc, tls=settings.triton.tls) as client:
        ranking = client.rank(user, ids, deadline_s=5.0)
    console.print(
        f"[bold]The top {_SHOWN} of {len(ids)} items that user {user} has not seen[/bold]"
    )
    console.print(ranking_table(ranking, names, top=_SHOWN))


def show_next(settings: Settings, keep: bool, console: Console) -> None:
    """Print the addresses of what runs, ready to paste, and commands to type next."""
    if not keep:
        console.print("To keep it running and play with it: make demo ARGS=--keep")
        return
    console.print(f"[bold]the page: {page_url(settings)}[/bold]", highlight=False)
    for line in stack.status(settings.embedded).snippets():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for verb in ("model rank 1 50 181 258", "features show 1", "stack status"):
        console.print(f"srp4ctr {verb}", style="bold", highlight=False, soft_wrap=True)
    console.print("Ctrl-C stops everything")


def _sum(metrics: dict[str, float], name: str) -> float:
    return sum(value for key, value in metrics.items() if key.split("{")[0] == name)
