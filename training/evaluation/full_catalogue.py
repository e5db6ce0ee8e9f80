"""Bundle → Hit@K of ``recommend`` over the whole catalogue, next to rules of popularity.

In: a trained model, what pre-training retrieves with, and held-out clicks on items that
were new to their users. For each click the items that were known at that instant are
ranked as serving ranks them: candidates of the sources of ``recommend``, then the head. A
click is a hit if its item is among the first K. Rules of popularity rank the same items.

Shapes: Q clicks, I items, N candidates of a click, V items that retrieval knows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from srp4ctr.features.bundles.gates import finite
from srp4ctr.features.bundles.rule_results import HIT, Contrast, RuleResult, best_first
from srp4ctr.features.candidates import (
    LEAST_CLICKS,
    MAX_POPULAR,
    NEW_MS,
    POPULAR_LIVES,
    POPULAR_SHARES,
    Shares,
    blended,
)
from srp4ctr.features.offline.item_replay import ItemReplay, best
from srp4ctr.features.tensors import transforms
from srp4ctr.features.tensors.arrays import ActivityArrays, CandidateArrays
from srp4ctr.features.tensors.caller_numbers import list_columns, missing_numbers
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.training.dataset.batches import HISTORY_NAMES, torch_rows
from srp4ctr.training.dataset.cache import Catalogue, TrainingSet
from srp4ctr.training.dataset.catalogue_clicks import WINDOWS_MS, CatalogueClicks
from srp4ctr.training.evaluation.evaluate import Evaluation
from srp4ctr.training.evaluation.quality import mean_difference
from srp4ctr.training.export.retrieval import Pretrained, Retriever, item_vectors
from srp4ctr.training.model.srp4ctr import SRP4CTR

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]
DEPTHS = (5, 10, 20)
_CLICKS_AT_ONCE = 32
MISSED = np.iinfo(np.int64).max
GATED = 10  # of ``DEPTHS``: of ``HIT``, what the gate holds the model to
_MEANINGS = {
    "popular_2h": "clicks of the last two hours",
    "popular_24h": "clicks of the last day",
    "popular_all": "clicks of all time",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Expectations:
    """What retrieval multiplies: the states of Q histories, and the V items."""

    states: NDArray[np.float32]  # (Q, D + 1)
    vectors: NDArray[np.float32]  # (V, D + 1)
    counts: Int64s  # (V,), of events in training


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """The candidates (Q, N) of the clicks, and their counters then; key 0 pads."""

    keys: Int64s
    activity: ActivityArrays
    ranks: Mapping[str, Int64s]
    """(Q,) by rule: how the rule ranks the clicked item."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CatalogueRanks:
    """Where (Q,) each ranking has the clicked item, 0 at the top; ``MISSED``: nowhere."""

    model: Int64s
    rules: Mapping[str, Int64s]
    users: NDArray[np.str_]


@torch.no_grad()
def expectations(
    pretrained: Pretrained, catalogue: Catalogue, clicks: CatalogueClicks
) -> Expectations:
    """Return what ``recommend`` multiplies for each of ``clicks``."""
    retriever = Retriever(pretrained.model).eval()
    states = []
    for start in range(0, len(clicks), _CLICKS_AT_ONCE):
        rows = np.arange(start, min(start + _CLICKS_AT_ONCE, len(clicks)))
        tensors = torch_rows(clicks.slates.tensors, rows, torch.device("cpu"))
        states.append(retriever(*(tensors[name] for name in HISTORY_NAMES)).numpy())
    return Expectations(
        states=np.concatenate(states),
        vectors=item_vectors(pretrained, catalogue.attribute_rows),
        counts=catalogue.counts,
    )


class CandidateFinder:
    """Finds the candidates of one click after another, as ``recommend`` does.

    Items without an event are left out: no judged click is on one.
    """

    def __init__(
        self, clicks: CatalogueClicks, vocabulary: Vocabulary, expected: Expectations | None
    ) -> None:
        self._clicks, self._expected = clicks, expected
        self.replay = ItemReplay(clicks.counted, WINDOWS_MS)
        keys = self.replay.item_keys
        self.is_known = vocabulary.is_known(vocabulary.item_rows(keys))
        self._known_keys = vocabulary.item_keys
        counts = np.zeros(len(keys))
        if expected is not None:
            seen = np.isin(vocabulary.item_keys, keys)
            places = np.searchsorted(keys, vocabulary.item_keys[seen])
            counts[places] = expected.counts[seen]
        self._usual = best(counts, MAX_POPULAR, [])

    def sources(self, click: int, activity: ActivityArrays) -> list[Int64s]:
        """Return the keys of the model's, the popular and the new items, best first."""
        most, used = Shares().candidates, self._clicks.sequences.item_keys[click]
        places = self.places(used)
        popular = self._popular(activity, places)[:most]
        at_ms = int(activity.counted_at_ms[0])
        first_ms = activity.first_seen_ms
        is_new = ~self.is_known & (first_ms > at_ms - NEW_MS)
        new = best(np.where(is_new, first_ms, 0), most, places)
        listed = [self.replay.item_keys[rows] for rows in (popular, new)]
        return [self._expected_keys(click, used, most), *listed]

    def _popular(self, activity: ActivityArrays, used: Int64s) -> Int64s:
        """Return what is clicked most now, by several half-lives, then what usually is."""
        clicks = np.where(activity.clicks >= LEAST_CLICKS, activity.clicks, 0.0)
        firsts = [best(clicks[:, life], MAX_POPULAR, used) for life in POPULAR_LIVES]
        joined = np.concatenate(firsts)
        now = joined[blended(firsts, [*POPULAR_SHARES.values()], MAX_POPULAR)]
        usual = self._usual[~np.isin(self._usual, np.concatenate([now, used]))]
        return np.concatenate([now, usual])

    def places(self, keys: Int64s) -> Int64s:
        """Return the places of ``keys`` among all items; others are left out."""
        every = self.replay.item_keys
        at = np.minimum(np.searchsorted(every, keys), len(every) - 1)
        return np.unique(at[every[at] == keys])

    def _expected_keys(self, click: int, used: Int64s, most: int) -> Int64s:
        if self._expected is None:
            return np.zeros(0, dtype=np.int64)
        scores = self._expected.vectors @ self._expected.states[click]
        scores[np.isin(self._known_keys, used)] = -np.inf
        rows = np.argpartition(-scores, min(most, len(scores) - 1))[:most]
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        keys: Int64s = self._known_keys[rows[np.isfinite(scores[rows])]]
        return keys


def find_candidates(
    clicks: CatalogueClicks, vocabulary: Vocabulary, expected: Expectations | None
) -> Candidates:
    """Return the candidates of all ``clicks``, and how rules rank the clicked items."""
    finder, shares = CandidateFinder(clicks, vocabulary, expected), Shares()
    shape = len(clicks), shares.candidates
    keys = np.zeros(shape, dtype=np.int64)
    found = ActivityArrays(
        counts=np.zeros((*shape, *clicks.counted.counts.shape[1:])),
        counted_at_ms=np.zeros(shape, dtype=np.int64),
        first_seen_ms=np.zeros(shape, dtype=np.int64),
    )
    ranks = {name: np.full(len(clicks), MISSED) for name in (*WINDOWS_MS, "popular_all")}
    for click, at_ms in enumerate(clicks.slates.request_at_ms.tolist()):
        activity = finder.replay.advance(at_ms)
        sources = finder.sources(click, activity)
        is_cold = not clicks.sequences.item_keys[click].any()
        blend = blended(sources, shares.of(is_cold), shares.candidates)
        chosen = np.concatenate(sources)[blend]
        keys[click, : len(chosen)] = chosen
        _copy_activity(found, click, activity, finder, chosen)
        rules = {**finder.replay.clicks_within, "popular_all": finder.replay.clicks}
        used = finder.places(clicks.sequences.item_keys[click])
        for name, counts in rules.items():
            of_rule = counts + 1e-9 * finder.replay.clicks
            ranked = finder.replay.item_keys[best(of_rule, max(DEPTHS), used)]
            ranks[name][click] = _rank(ranked, int(clicks.clicked_keys[click]))
    return Candidates(keys=keys, activity=found, ranks=ranks)


def _copy_activity(
    found: ActivityArrays,
    click: int,
    activity: ActivityArrays,
    finder: CandidateFinder,
    keys: Int64s,
) -> None:
    """Copy the counters of ``keys`` into the row ``click``; an item may have none."""
    every = finder.replay.item_keys
    at = np.minimum(np.searchsorted(every, keys), len(every) - 1)
    has_any = every[at] == keys
    rows = np.flatnonzero(has_any)
    found.counts[click, rows] = activity.counts[at[has_any]]
    found.first_seen_ms[click, rows] = activity.first_seen_ms[at[has_any]]
    found.counted_at_ms[click] = activity.counted_at_ms[0]


def _rank(ranked: Int64s, key: int) -> int:
    places = np.flatnonzero(ranked == key)
    return int(places[0]) if len(places) else int(MISSED)


@torch.no_grad()
def scores(
    model: SRP4CTR,
    clicks: CatalogueClicks,
    vocabulary: Vocabulary,
    candidates: Candidates,
) -> NDArray[np.float32]:
    """Return the ranking scores (Q, N) of the candidates; NaN for padding."""
    model.eval()
    device = next(model.parameters()).device
    made = np.full(candidates.keys.shape, np.nan, dtype=np.float32)
    for start in range(0, len(clicks), _CLICKS_AT_ONCE):
        rows = np.arange(start, min(start + _CLICKS_AT_ONCE, len(clicks)))
        tensors = inputs_of(clicks, vocabulary, candidates, rows)
        given = torch_rows(tensors, np.arange(len(rows)), device)
        made[rows] = model(given).ranking.cpu().numpy()
    return np.where(candidates.keys != 0, made, np.nan)


def inputs_of(
    clicks: CatalogueClicks,
    vocabulary: Vocabulary,
    candidates: Candidates,
    rows: Int64s,
) -> dict[str, NDArray[np.generic]]:
    """Return the model's inputs for the candidates of the clicks ``rows``."""
    tensors = {name: array[rows] for name, array in clicks.slates.tensors.items()}
    keys, sequences = candidates.keys[rows], clicks.sequences.take(rows)
    at_ms = clicks.slates.request_at_ms[rows]
    inputs = CandidateArrays(
        request_time_ms=at_ms,
        item_keys=keys,
        attribute_rows=clicks.attributes.of(keys, at_ms[:, None]),
        activity=candidates.activity.take(rows),
        total=clicks.total.take(rows),
        exposures=transforms.item_exposures(clicks.exposures.take(rows), keys, at_ms),
        sequences=sequences,
        history_attribute_rows=tensors["history_attribute_rows"],
        number_columns=_missing(keys, vocabulary),
    )
    return tensors | {
        "candidate_item_rows": vocabulary.item_rows(keys).astype(np.int32),
        "candidate_attribute_rows": inputs.attribute_rows,
        "candidate_features": transforms.candidate_features(
            inputs, vocabulary.candidate_columns
        ),
    }


def _missing(item_keys: Int64s, vocabulary: Vocabulary) -> NDArray[np.float32]:
    """Return the columns (B, N, 4 K) of declared numbers, which no click has."""
    count = len(vocabulary.candidate_numbers)
    return list_columns(missing_numbers(item_keys, count), item_keys)


def ranks_of(
    made: NDArray[np.float32], clicks: CatalogueClicks, candidates: Candidates
) -> CatalogueRanks:
    """Return the ranks of the clicked items by the scores ``made``, and by rules."""
    is_clicked = candidates.keys == clicks.clicked_keys[:, None]
    score = np.where(is_clicked, made, -np.inf).max(axis=1)
    above = (made > score[:, None]).sum(axis=1)
    return CatalogueRanks(
        model=np.where(is_clicked.any(axis=1), above, MISSED),
        rules=candidates.ranks,
        users=clicks.slates.user_ids,
    )


def judge(
    model: SRP4CTR, pretrained: Pretrained | None, dataset: TrainingSet
) -> CatalogueRanks | None:
    """Return how ``model`` ranks the held-out clicks of ``dataset``; None without any.

    Without ``pretrained`` nothing retrieves: the candidates are popular and new items.
    """
    clicks, catalogue = dataset.catalogue_clicks, dataset.catalogue
    if clicks is None or len(clicks) == 0:
        return None
    expected = None
    if pretrained is not None and catalogue is not None:
        expected = expectations(pretrained, catalogue, clicks)
    candidates = find_candidates(clicks, dataset.vocabulary, expected)
    made = scores(model, clicks, dataset.vocabulary, candidates)
    return ranks_of(made, clicks, candidates)


def with_metrics(evaluation: Evaluation, ranks: CatalogueRanks | None) -> Evaluation:
    """Return ``evaluation`` with Hit@K of ``recommend`` and of each rule, by name."""
    if ranks is None:
        return evaluation
    hits = {
        f"{name}hit_{depth}": float((places < depth).mean())
        for name, places in {"": ranks.model, **_prefixed(ranks.rules)}.items()
        for depth in DEPTHS
    }
    number = {"judged_catalogue_clicks": float(len(ranks.model))}
    return replace(evaluation, metrics={**evaluation.metrics, **hits, **number})


def _prefixed(rules: Mapping[str, Int64s]) -> dict[str, Int64s]:
    return {f"{name}_": places for name, places in rules.items()}


def results(ranks: CatalogueRanks) -> tuple[RuleResult, ...]:
    """Return Hit@10 of each rule and of ``recommend``, the best rule first."""
    found = [_result(name, ranks) for name in ranks.rules]
    return tuple(best_first(found))


def _result(name: str, ranks: CatalogueRanks) -> RuleResult:
    own, rule = ranks.model < GATED, ranks.rules[name] < GATED
    difference = mean_difference(own, rule, ranks.users)
    value, spread = difference.value, difference.spread()
    return RuleResult(
        rule=name,
        meaning=_MEANINGS[name],
        requests=len(own),
        metric=HIT,
        gauc=float(rule.mean()),
        model_gauc=float(own.mean()),
        gauc_difference=Contrast(
            value=finite(value), low=finite(value - spread), high=finite(value + spread)
        ),
        gate_high=finite(value + difference.spread(len(ranks.rules))),
    )
