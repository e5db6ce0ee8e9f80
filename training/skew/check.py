"""Training–serving skew: served tensors and scores compared with training's.

In: requests of ``features.bundles.request_log``, the event log, and the bundles that
answered. Out: for each tensor of the model, the number of requests in which it differs, by
how much, and the effect on a probability. Training uses the time when an event became
known; serving what the stream had stored by then. So a lagging stream shows here, and
nothing else should.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from srp4ctr.features import columns
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.request_log import ServedRequest
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.offline import event_tables, point_in_time
from srp4ctr.features.offline.point_in_time import RequestSnapshots
from srp4ctr.features.offline.profiles import item_updates
from srp4ctr.features.tensors.schema import CANDIDATE_TENSORS
from srp4ctr.features.tensors.vocabulary import load as load_vocabulary
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import item_key
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset import examples, item_attributes
from srp4ctr.training.dataset.batches import torch_rows
from srp4ctr.training.evaluation.champion import EarlierBundle
from srp4ctr.training.export import onnx_export
from srp4ctr.training.export.bundle_store import bundle_folder
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.refresh import warm_start

TOLERANCE = 1e-4  # of a feature, relative above 1: float32 in other orders
MOST_APART = 1e-4  # of a probability, as at a promotion
_OF_CANDIDATES = {spec.name for spec in CANDIDATE_TENSORS}
Arrays = Mapping[str, NDArray[Any]]


@dataclass(slots=True)
class Difference:
    """The difference of one tensor between serving and training."""

    requests: int = 0
    """Requests that differ."""
    largest: float = 0.0


@dataclass(slots=True)
class ServedCheck:
    """The result: numbers of requests, and differences."""

    requests: int = 0
    """Compared with training's."""
    impressions: int = 0
    """Of these, with a matured label: what training uses."""
    not_in_log: int = 0
    """Requests that were not shown, or whose labels have not matured."""
    no_bundle: int = 0
    """Requests that were answered by a bundle that is gone."""
    rescored: int = 0
    """Requests whose served tensors were scored again."""
    onnx_difference: float = 0.0
    """Largest difference between served scores and the ONNX files' here."""
    torch_difference: float | None = None
    """The same for the weights in torch; None where the settings have another model."""
    tensors: dict[str, Difference] = field(default_factory=dict)
    """By name; equal ones too."""
    features: dict[str, Difference] = field(default_factory=dict)
    """The same of each column of ``request_features`` and ``candidate_features``."""
    mean_shift: float = 0.0
    """Mean change of an impression's probability by training's tensors."""
    shift_of: dict[str, float] = field(default_factory=dict)
    """The same by model version."""
    largest_shift: float = 0.0

    @property
    def score_difference(self) -> float:
        """Largest difference between served scores and their bundle's."""
        return max(self.onnx_difference, self.torch_difference or 0.0)

    @property
    def is_wrong(self) -> bool:
        """Whether a score differs by more than rounding explains."""
        return self.score_difference > MOST_APART


@dataclass(frozen=True, slots=True, kw_only=True)
class _Log:
    """The event log's side."""

    snapshots: RequestSnapshots
    rows: Mapping[tuple[str, str], int]
    updates: pa.Table
    """Of items."""


class _Bundle:
    """A bundle that served: it rescores, and reads the log with its own vocabulary."""

    def __init__(self, folder: Path, updates: pa.Table, config: RefreshConfig) -> None:
        self.vocabulary = load_vocabulary(folder / bundle.VOCABULARY_FILE)
        self.attributes = item_attributes.of_updates(updates, self.vocabulary)
        self.onnx = onnx_export.scorer(folder)
        self._config = config
        self._folder = folder
        self.columns = {
            "request_features": columns.REQUEST.names,
            "candidate_features": self.vocabulary.candidate_columns.layout.names,
        }

    def in_torch(self, length: int) -> SRP4CTR | None:
        """Return the model with its weights, None if the settings describe another."""
        parent = EarlierBundle.read(self._folder)
        model = SRP4CTR(self._config.model, TableSizes.of(self.vocabulary, length)).eval()
        try:
            warm_start.carry_over(model, self.vocabulary, parent)
        except ValueError:
            return None
        return model


def check_served(
    served: Sequence[ServedRequest],
    config: RefreshConfig,
    features: FeatureConfig,
    streams: StreamConfig,
) -> ServedCheck:
    """Return how ``served`` differ from training's view of the same requests."""
    check, shifts = ServedCheck(), [np.zeros(0)]
    wanted = {(each.user_id, each.request_id) for each in served}
    log = _read(wanted, features, streams)
    for version in sorted({each.model_version for each in served}):
        folder = bundle_folder(config, version)
        answered = [each for each in served if each.model_version == version]
        if not (folder / bundle.MANIFEST_FILE).is_file():
            check.no_bundle += len(answered)
            continue
        model, first = _Bundle(folder, log.updates, config), len(shifts)
        _score_again(answered, model, check)
        for request in answered:
            row = log.rows.get((request.user_id, request.request_id))
            if row is None:
                check.not_in_log += 1
            else:
                shifts.append(_compare(request, model, log.snapshots, row, check))
        if len(own := np.concatenate([np.zeros(0), *shifts[first:]])):
            check.shift_of[version] = float(own.mean())
    every = np.concatenate(shifts)
    if len(every):
        check.mean_shift, check.largest_shift = float(every.mean()), float(every.max())
    return check


def _read(
    wanted: Set[tuple[str, str]], features: FeatureConfig, streams: StreamConfig
) -> _Log:
    """Return the log's side of the ``wanted`` requests, which lie together in time."""
    with event_tables.opened_by(features) as log:
        lengths = streams.sequence_length, features.sequence_ttl_days
        tables = point_in_time.request_tables(log, *lengths, streams.exposure_length)
        every = point_in_time.request_rows(log)
        rows = {who: row for who, row in every.items() if who in wanted}
        first, last = min(rows.values(), default=0), max(rows.values(), default=-1)
        return _Log(
            snapshots=tables.read(first, last + 1),
            rows={who: row - first for who, row in rows.items()},
            updates=item_updates(log),
        )


def _score_again(
    served: Sequence[ServedRequest], model: _Bundle, check: ServedCheck
) -> None:
    """Compare the served probabilities with those of ONNX and torch."""
    length = served[0].tensors["history_item_rows"].shape[1]
    in_torch = model.in_torch(length)
    for request in served:
        check.rescored += 1
        before = request.probabilities
        again = model.onnx(request.tensors).click[0]
        check.onnx_difference = max(check.onnx_difference, _apart(before, again))
        if in_torch is not None:
            probabilities = _in_torch(in_torch, request.tensors)
            difference = max(check.torch_difference or 0.0, _apart(before, probabilities))
            check.torch_difference = difference


@torch.no_grad()
def _in_torch(model: SRP4CTR, tensors: Arrays) -> NDArray[np.float32]:
    named = torch_rows(tensors, np.arange(1), torch.device("cpu"))
    scores: NDArray[np.float32] = (
        model.score({**named, **model.encode(named)}).click[0].numpy()
    )
    return scores


def _apart(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the largest difference; infinite if the padding differs."""
    if np.any(np.isnan(one) != np.isnan(other)):
        return float("inf")
    return float(np.nanmax(np.abs(one - other), initial=0.0))


def _compare(
    request: ServedRequest,
    model: _Bundle,
    snapshots: RequestSnapshots,
    row: int,
    check: ServedCheck,
) -> NDArray[np.float64]:
    """Add one request to ``check``; return the changes of its impressions' scores.

    Training uses what was known at the impression, decayed until the served time.
    """
    snapshot = snapshots.take(np.array([row]))
    snapshot = replace(snapshot, times_ms=np.array([request.time_ms]))
    made = examples.slates(snapshot, model.vocabulary, model.attributes).tensors
    requested = [item_key(item_id) if item_id else 0 for item_id in request.item_ids]
    places = {key: place for place, key in reversed([*enumerate(requested)])}
    shown = [places[key] for key in snapshot.candidate_item_keys.tolist() if key in places]
    of_training = _by_candidate(made, len(snapshot.candidate_item_keys))
    is_requested = np.isin(snapshot.candidate_item_keys, requested)
    check.requests += 1
    check.impressions += len(shown)
    moved = dict(request.tensors)
    for name in made:
        ours, theirs = request.tensors[name], of_training[name]
        if name in _OF_CANDIDATES:
            ours, theirs = ours[:, shown], theirs[:, is_requested]
        _note(check.tensors.setdefault(name, Difference()), ours, theirs)
        for column, feature in enumerate(model.columns.get(name, ())):
            pair = ours[..., column], theirs[..., column]
            _note(check.features.setdefault(feature, Difference()), *pair)
        if name in _OF_CANDIDATES:
            moved[name] = request.tensors[name].copy()
            moved[name][:, shown] = theirs
        else:
            moved[name] = theirs.astype(ours.dtype)
    shifts: NDArray[np.float64] = np.abs(
        model.onnx(moved).click[0][shown].astype(np.float64) - request.probabilities[shown]
    )
    return shifts


def _by_candidate(tensors: Arrays, count: int) -> Arrays:
    """Return a slate's tensors (1, …), its pieces' candidates one after another."""
    return {
        name: (
            array.reshape(1, -1, *array.shape[2:])[:, :count]
            if name in _OF_CANDIDATES
            else array[:1]
        )
        for name, array in tensors.items()
    }


def _note(difference: Difference, ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    apart = np.abs(ours.astype(np.float64) - theirs)
    allowed = TOLERANCE * np.maximum(np.abs(theirs), 1.0)
    difference.requests += bool((apart > allowed).any())
    difference.largest = max(difference.largest, float(apart.max(initial=0.0)))
