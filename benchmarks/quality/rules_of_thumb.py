"""Claim: no rule of thumb ranks better than a model that the product trains by itself.

Real logs in the order of time, written and cut by the product's own code; the newest fifth
is judged. Each one-line rule that a log allows stands beside the model of a default
refresh, with paired 95 % intervals over users. Hotels are also ranked without the order in
which they were shown, which a model may not have. News are clicks only: the whole catalogue
is ranked.

    SRP4CTR_DATA=../shared/data make bench NAME=rules_of_thumb
    make bench NAME=rules_of_thumb ARGS="--data hotels movielens --quick"
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import parser_of
from benchmarks.harness.figures import table
from benchmarks.quality.clicks import click_sources
from benchmarks.quality.clicks.click_sources import Source
from benchmarks.quality.one_line_rules import comparisons, globo, trivago
from benchmarks.quality.one_line_rules.comparisons import CTR, GAUC, Figure, of_hits
from benchmarks.quality.one_line_rules.log_cutting import Cut, LoggedSet, cut
from benchmarks.quality.one_line_rules.training_runs import judged, judged_clicks
from srp4ctr.features.config import NumberConfig
from srp4ctr.testing import ebnerd
from srp4ctr.training.evaluation import rules
from srp4ctr.training.evaluation.full_catalogue import DEPTHS, CatalogueRanks

WORK = Path.home() / ".cache" / "srp4ctr" / "rules_of_thumb"
HOURS = 31.25
HOTELS, WITHOUT_ORDER, NEWS = "hotels", "hotels-without-order", "news"
OF_THE_ORDER = ("shown_order", "callers_order", "touched_then_order")
QUICK = {"pretrain_epochs": 2, "finetune_epochs": 1}
QUICK_EVENTS = 60_000
COLUMNS = {
    "figure": "value:.4f",
    "model less rule": "less:+.4f",
    "95 % over users": "interval",
}


def main() -> None:
    """Print each rule and the model by data set, then one JSON object."""
    options = _options()
    found: dict[str, list[Figure]] = {}
    for name in options.data:
        logged = _changed(SETS[name], options)
        try:
            cut_log = cut(logged, options.work)
        except (ValueError, ConnectionError) as error:
            raise SystemExit(f"{name}: {error}") from error
        found[name] = measure(logged, cut_log)
        _print(name, found[name])
    print(json.dumps(summary(found)))


def measure(logged: LoggedSet, cut_log: Cut) -> list[Figure]:
    """Return the figures of each rule beside those of models of all seeds."""
    configs = [logged.config(cut_log.folder, seed) for seed in range(logged.seeds)]
    if cut_log.dataset.negatives == "sampled":
        return hits([judged_clicks(cut_log, config) for config in configs])
    models = [judged(cut_log, config) for config in configs]
    judge, inputs = cut_log.dataset.parts.judge, cut_log.dataset.rule_inputs
    columns = cut_log.dataset.vocabulary.candidate_columns.layout.names
    numbers = rules.numbers_of(judge, columns)
    assert inputs is not None
    scores = {
        rule.name: rule.scores[judge.shown]
        for rule in rules.rules_of(judge, inputs, numbers)
        if logged.name != WITHOUT_ORDER or rule.name not in OF_THE_ORDER
    }
    return comparisons.figures(models, scores)


def hits(seeds: Sequence[CatalogueRanks]) -> list[Figure]:
    """Return Hit@K of each rule beside that of ``recommend``, over the whole catalogue."""
    rows = []
    for depth in DEPTHS:
        models = [(seed.model < depth).astype(np.float64) for seed in seeds]
        for rule, places in seeds[0].rules.items():
            of_rule = (places < depth).astype(np.float64)
            rows.append(of_hits(f"Hit@{depth}", rule, models, of_rule, seeds[0].users))
    return rows


def summary(found: Mapping[str, Sequence[Figure]]) -> dict[str, float | None]:
    """Return the benchmark's figures; None for a data set that was left out."""

    def of(name: str, metric: str, side: str) -> float | None:
        if name not in found:
            return None
        return round(float(getattr(comparisons.best(found[name], metric), side)), 4)

    margins = [
        comparisons.best(rows, metric).difference.high
        for rows in found.values()
        for metric in {row.metric for row in rows}
    ]
    return {
        "hotel_gauc": of(HOTELS, GAUC, "model"),
        "hotel_ctr1": of(HOTELS, CTR, "model"),
        "hotel_rule_gauc": of(HOTELS, GAUC, "value"),
        "hotel_rule_ctr1": of(HOTELS, CTR, "value"),
        "hotel_gauc_without_order": of(WITHOUT_ORDER, GAUC, "model"),
        "hotel_ctr1_without_order": of(WITHOUT_ORDER, CTR, "model"),
        "hotel_rule_gauc_without_order": of(WITHOUT_ORDER, GAUC, "value"),
        "hotel_rule_ctr1_without_order": of(WITHOUT_ORDER, CTR, "value"),
        "news_hit10": of(NEWS, "Hit@10", "model"),
        "news_rule_hit10": of(NEWS, "Hit@10", "value"),
        "worst_margin": round(min(margins), 4),
    }


def _print(name: str, rows: Sequence[Figure]) -> None:
    for metric in sorted({row.metric for row in rows}):
        print(
            table(comparisons.shown(rows, metric), {f"{name}, {metric}": "who", **COLUMNS})
        )


def hotels(*, with_order: bool) -> Source:
    """Return the half of Trivago; without the order the log has only the prices."""
    events = trivago.events(ebnerd.DATA, with_order=with_order)
    return Source(name=HOTELS, events=events)


def news() -> Source:
    """Return the first hours of Globo's clicks, of all readers."""
    clicks = globo.table(ebnerd.DATA, HOURS)
    updates = globo.item_updates(ebnerd.DATA, clicks)
    return Source(name=NEWS, events=globo.events(clicks), updates=updates)


def hotel_set(name: str, *, with_order: bool) -> LoggedSet:
    """Return the hotels, whose prices, and order if there is one, are sent as numbers."""
    numbers = (trivago.PRICE, trivago.ORDER) if with_order else (trivago.PRICE,)
    codes = {action: 32 + place for place, action in enumerate(trivago.ACTIONS.values())}
    return LoggedSet(
        name=name,
        read=partial(hotels, with_order=with_order),
        features={
            "candidate_numbers": tuple(NumberConfig(name=number) for number in numbers),
            "action_codes": codes,
        },
        streams={"action_codes": codes},
        seeds=3,
    )


SETS = {
    each.name: each
    for each in (
        hotel_set(HOTELS, with_order=True),
        hotel_set(WITHOUT_ORDER, with_order=False),
        LoggedSet(
            name=NEWS, read=news, recipe={"negatives": "sampled"}, held_out_share=0.4
        ),
        LoggedSet(name="movielens", read=click_sources.of_movielens, seeds=3),
        LoggedSet(name="ebnerd", read=click_sources.of_ebnerd),
        LoggedSet(name="kuairand", read=click_sources.of_kuairand),
    )
}


def _changed(logged: LoggedSet, options: argparse.Namespace) -> LoggedSet:
    """Return ``logged`` with the seeds of ``options``; quick, a part of it."""
    if not options.quick:
        return replace(logged, seeds=options.seeds or logged.seeds)
    return replace(
        logged,
        folder=f"{logged.name}-quick",
        read=lambda: logged.read().part(QUICK_EVENTS),
        recipe={**logged.recipe, **QUICK},
        seeds=options.seeds or 1,
    )


def _options() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--data", nargs="+", choices=list(SETS), default=list(SETS))
    add("--work", type=Path, default=WORK, help="the folder of logs, examples and scores")
    add("--seeds", type=int, default=0, help="of each data set; default: 3 where small")
    add("--quick", action="store_true", help="some users, one seed, few epochs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
