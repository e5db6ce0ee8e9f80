"""An earlier bundle → the initial weights of a refresh, in the rows of a new vocabulary.

In: the newest bundle that was not refused, and this refresh's examples. Out: a model with
the parent's weights, and the examples that are new to it, with a sample of old ones against
catastrophic forgetting. A bundle that does not fit is skipped with a reason.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from srp4ctr.errors import ArtifactError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.tensors.item_fields import (
    FIRST_ATTRIBUTE_ROW,
    AttributeField,
    places,
)
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import Windows
from srp4ctr.training.dataset.cache import TrainingSet
from srp4ctr.training.evaluation.champion import EarlierBundle, NoBundle
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.refresh import reports
from srp4ctr.training.refresh.reports import RefreshOutcome

_Fields = Sequence[AttributeField]
_SOURCES = {"impressions": "real impressions", "sampled": "sampled negatives"}
ITEMS, ATTRIBUTES = "embedding.items.weight", "embedding.attributes.weight"
# Tables of attribute values: of which fields of a vocabulary.
_FIELDS_OF = {
    ATTRIBUTES: "item_fields",
    "user_fields.vectors.weight": "user_fields",
    "user_fields.biases.weight": "user_fields",
}


def find_parent(
    bundles: Sequence[Path], dataset: TrainingSet, serving: Path | None = None
) -> EarlierBundle | NoBundle:
    """Return the newest of ``bundles`` that fits as a parent, or why there is none.

    Refused bundles are skipped, and those promoted after the one that is ``serving`` again:
    their faults would be inherited.
    """
    damaged = ""
    names = [folder.name for folder in bundles]
    served = names.index(serving.name) if serving and serving.name in names else len(names)
    for place, folder in reversed([*enumerate(bundles)]):
        report = reports.read(folder)
        outcome = report.outcome if report else None
        rolled_back = outcome is RefreshOutcome.PROMOTED and place > served
        if rolled_back or outcome is RefreshOutcome.REFUSED:
            continue
        try:
            parent = EarlierBundle.read(folder)
        except ValueError as error:
            damaged = damaged or f"{folder.name} cannot be a parent: {error}"
            continue
        misfit = _misfit(parent, dataset)
        return NoBundle(misfit) if misfit else parent
    return NoBundle(damaged or "there is no bundle to start from")


def _misfit(parent: EarlierBundle, dataset: TrainingSet) -> str:
    """Return why ``parent`` does not fit ``dataset``; "" where it does."""
    card, own, theirs = parent.card, dataset.vocabulary, parent.vocabulary
    if theirs.num_oov_rows != own.num_oov_rows:
        return f"{card.version} has another number of rows for unknown items"
    if _fields(theirs) != _fields(own):
        return f"{card.version} has other fields"
    if card.negatives != dataset.negatives:
        return f"{card.version} was trained with {_SOURCES[card.negatives]}, not with " + (
            f"{_SOURCES[dataset.negatives]} as now"
        )
    if card.boundary_ms > dataset.boundary_ms:
        return f"{card.version} was trained on requests that are held out now"
    if not np.any(dataset.parts.train.request_at_ms >= card.boundary_ms):
        return f"there is no request newer than what {card.version} was trained on"
    return ""


def carry_over(model: SRP4CTR, vocabulary: Vocabulary, parent: EarlierBundle) -> str:
    """Copy the parent's weights into ``model``, whose rows are of ``vocabulary``.

    An item that the parent did not know starts with the shared row that the parent served
    it with; an attribute value with the mean of its field. Returns a sentence on how many
    items were known. ``ArtifactError`` where a size differs.
    """
    old = load_file(parent.folder / bundle.WEIGHTS_FILE)
    carried: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("encoder.embedding."):
            continue  # the same tensors as the model's own
        if name not in old:
            raise ArtifactError(f"{parent.card.version} has no {name}")
        if name == ITEMS:
            carried[name] = old[name][_item_rows(vocabulary, parent.vocabulary)]
        elif of := _FIELDS_OF.get(name):
            both = (getattr(each, of) for each in (vocabulary, parent.vocabulary))
            carried[name] = _attribute_table(old[name], *both)
        else:
            carried[name] = old[name]
        if carried[name].shape != tensor.shape:
            raise ArtifactError(f"{parent.card.version} has another size of {name}")
    model.load_state_dict(carried, strict=False)
    keys = vocabulary.item_keys
    known = np.isin(keys, parent.vocabulary.item_keys).sum()
    return f"of {len(keys):,} items {known:,} were known to {parent.card.version}"


def _item_rows(new: Vocabulary, old: Vocabulary) -> Tensor:
    """Return the parent's row that each item row of ``new`` starts with."""
    fixed = np.arange(new.first_known_row)
    return torch.from_numpy(np.concatenate([fixed, old.item_rows(new.item_keys)]))


def _fields(of: Vocabulary) -> list[tuple[str, str]]:
    numbers = [(name, "number of the context") for name in of.context_numbers]
    numbers += [(name, "number of candidates") for name in of.candidate_numbers]
    of_users = [(field.name, f"{field.kind} of users") for field in of.user_fields]
    of_items = [(field.name, field.kind) for field in of.item_fields]
    columns = [(name, "column") for name in of.candidate_columns.layout.names]
    return [*of_items, *numbers, *of_users, *columns]


def _attribute_table(table: Tensor, new: _Fields, old: _Fields) -> Tensor:
    """Return the parent's rows, by field and value; a bucket of numbers keeps its rank."""
    rows = list(table[:FIRST_ATTRIBUTE_ROW])
    placed = zip(new, old, places([field.shape for field in old]), strict=True)
    for field, before, place in placed:
        own = table[place.first_row : place.first_row + len(before.choices)]
        known = dict(zip(before.choices, own, strict=True))
        mean = own.mean(0)
        rows += [known.get(choice, mean) for choice in field.choices]
    return torch.stack(rows)


def since(dataset: TrainingSet, since_ms: int, config: RefreshConfig) -> TrainingSet:
    """Return the part of ``dataset`` since ``since_ms``, and a sample of the rest."""
    windows, train = dataset.windows, dataset.parts.train
    rows = _with_replay(dataset.window_newest_ms >= since_ms, config)
    newer = _with_replay(train.request_at_ms >= since_ms, config)
    tensors = {name: array[rows] for name, array in windows.tensors.items()}
    return replace(
        dataset,
        windows=Windows(tensors=tensors),
        window_newest_ms=dataset.window_newest_ms[rows],
        parts=replace(dataset.parts, train=train.take(newer)),
    )


# MovieLens-100K, a tenth of it new, AUC: 0.7694; with a half, two epochs and one old
# example for each new one 0.7674; before the refresh 0.7692.
_RATE_SHARE = 0.25


def shortened(config: RefreshConfig) -> RefreshConfig:
    """Return the recipe of a warm refresh: fewer epochs, at lower rates."""
    return replace(
        config,
        pretrain_epochs=config.warm_pretrain_epochs,
        finetune_epochs=1,
        pretrain_learning_rate=_RATE_SHARE * config.pretrain_learning_rate,
        finetune_learning_rate=_RATE_SHARE * config.finetune_learning_rate,
    )


@contextmanager
def kept_candidate_stream(model: SRP4CTR, parent: EarlierBundle | None) -> Iterator[None]:
    """Keep the parent's candidate stream, where pre-training would copy the encoder's.

    It was trained on clicks already, and the head with it.
    """
    if parent is None:
        yield
        return
    kept = copy.deepcopy(model.cross_attention.state_dict())
    yield
    model.cross_attention.load_state_dict(kept)


def _with_replay(is_new: NDArray[np.bool_], config: RefreshConfig) -> NDArray[np.int64]:
    """Return the rows that are new and, for each, ``replay`` old ones, in their order."""
    new, old = np.flatnonzero(is_new), np.flatnonzero(~is_new)
    wanted = min(len(old), round(config.replay * len(new)))
    drawn = np.random.default_rng(config.seed).choice(old, wanted, replace=False)
    return np.sort(np.concatenate([new, drawn]))
