"""Feature → example: an impression, what was known at its request, and its matured label.

In: what ``features.offline.point_in_time`` cut from the event log, and items' updates.
Out: slates for fine-tuning and windows of behaviours for pre-training. The tensors are made
by ``features.tensors.transforms``: the same functions that serve.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features.columns import NUM_CONTEXT_NUMBERS
from srp4ctr.features.offline.point_in_time import RequestSnapshots, UserHistories
from srp4ctr.features.tensors import transforms
from srp4ctr.features.tensors.arrays import (
    ActivityArrays,
    CandidateArrays,
    Float32s,
    ItemExposures,
    SequenceArrays,
)
from srp4ctr.features.tensors.caller_numbers import logged_columns
from srp4ctr.features.tensors.schema import CONTEXT_SLOTS
from srp4ctr.features.tensors.vocabulary import (
    Vocabulary,
    context_numbers,
    context_rows,
    parse_context,
)
from srp4ctr.training.dataset.batches import Slates, Windows
from srp4ctr.training.dataset.item_attributes import ItemAttributes
from srp4ctr.training.evaluation.rules import RuleInputs

MAX_SLATE = 64  # a longer slate is cut in pieces: one batch's tensors must stay small
_Int64s = NDArray[np.int64]
_Text = TypeVar("_Text", str, str | None)
_Number = TypeVar("_Number", bound=np.generic)
_Arrays = TypeVar("_Arrays", ActivityArrays, ItemExposures, SequenceArrays)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Grid:
    """Where each of many values stands in an array (rows, columns, …) of zeros."""

    rows: _Int64s
    columns: _Int64s
    shape: tuple[int, int]

    def filled(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """Return zeros with ``values`` (M, …) at their places."""
        shape = (*self.shape, *values.shape[1:])
        filled: NDArray[_Number] = np.zeros(shape, dtype=values.dtype)
        filled[self.rows, self.columns] = values
        return filled

    def filled_all(self, arrays: _Arrays) -> _Arrays:
        """Return ``arrays``, a dataclass, with each of its arrays ``filled``."""
        named = {f.name: self.filled(getattr(arrays, f.name)) for f in fields(arrays)}
        return replace(arrays, **named)


def slates(
    snapshots: RequestSnapshots,
    vocabulary: Vocabulary,
    attributes: ItemAttributes,
    longest: int = 0,
) -> Slates:
    """Return the impressions whose labels have matured, by request, oldest first.

    A label that a late click corrected counts as corrected. ``longest`` is the size of the
    longest slate of all, where ``snapshots`` are some of them.
    """
    requests, grid = _pieces(snapshots.candidate_requests, longest)
    return Slates(
        tensors=_tensors(snapshots, requests, grid, vocabulary, attributes),
        clicked=grid.filled(snapshots.candidate_clicked.astype(np.float32)),
        positions=grid.filled(snapshots.candidate_positions),
        log_draw=grid.filled(snapshots.candidate_log_draw.astype(np.float32)),
        request_at_ms=snapshots.times_ms[requests],
        user_ids=snapshots.user_ids[requests].astype(np.str_),
    )


def rule_inputs(
    snapshots: RequestSnapshots,
    clicks: Mapping[str, _Int64s],
    ranked: NDArray[np.bool_],
    longest: int = 0,
) -> RuleInputs:
    """Return what rules need of each of the ``slates`` of the same ``snapshots``.

    ``clicks`` are counts of the candidates (M,) by name; ``ranked`` says of which requests
    (R,) a model made the order.
    """
    requests, grid = _pieces(snapshots.candidate_requests, longest)
    touched_ms, touches = _touches(snapshots)
    return RuleInputs(
        **{name: grid.filled(counts) for name, counts in clicks.items()},
        touched_ms=grid.filled(touched_ms),
        touches=grid.filled(touches),
        first_seen_ms=grid.filled(snapshots.candidate_activity.first_seen_ms),
        ranked=ranked[requests],
    )


def _touches(snapshots: RequestSnapshots) -> tuple[_Int64s, _Int64s]:
    """Return of each candidate (M,) when its user last acted on it, and how often."""
    behaviors = snapshots.sequences
    request, place = np.nonzero(behaviors.occurred_at_ms)  # 0 pads
    keys = behaviors.item_keys[request, place]
    names, code = np.unique(
        np.concatenate([keys, snapshots.candidate_item_keys]), return_inverse=True
    )
    acted = request * len(names) + code[: len(keys)]
    wanted = snapshots.candidate_requests * len(names) + code[len(keys) :]
    pairs, pair, counts = np.unique(acted, return_inverse=True, return_counts=True)
    newest_ms = np.zeros(len(pairs), dtype=np.int64)
    np.maximum.at(newest_ms, pair, behaviors.occurred_at_ms[request, place])
    if not len(pairs):
        return np.zeros_like(wanted), np.zeros_like(wanted)
    found = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    is_there = pairs[found] == wanted
    return np.where(is_there, newest_ms[found], 0), np.where(is_there, counts[found], 0)


def _tensors(
    snapshots: RequestSnapshots,
    requests: _Int64s,
    grid: _Grid,
    vocabulary: Vocabulary,
    attributes: ItemAttributes,
) -> dict[str, NDArray[np.generic]]:
    """Return the tensors of the slates of ``requests``, as ``Slates`` has them."""
    inputs = _candidates(snapshots, requests, grid, vocabulary, attributes)
    contexts = snapshots.contexts[requests].tolist()
    rows_of_context, numbers = read_contexts(contexts, vocabulary.context_numbers)
    texts = snapshots.user_attributes[requests].tolist()
    return {
        **_history(inputs.sequences, vocabulary, inputs.history_attribute_rows),
        "request_features": transforms.request_features(
            inputs.sequences,
            snapshots.user_activity.take(requests),
            inputs.request_time_ms,
            numbers,
            vocabulary.utc_offsets_ms(contexts),
        ),
        "context_rows": rows_of_context,
        "candidate_item_rows": vocabulary.item_rows(inputs.item_keys).astype(np.int32),
        "candidate_attribute_rows": inputs.attribute_rows,
        "candidate_features": transforms.candidate_features(
            inputs, vocabulary.candidate_columns
        ),
        **_of_users(texts, vocabulary),
    }


def _candidates(
    snapshots: RequestSnapshots,
    requests: _Int64s,
    grid: _Grid,
    vocabulary: Vocabulary,
    attributes: ItemAttributes,
) -> CandidateArrays:
    """Return the candidates of the slates of ``requests``."""
    keys = grid.filled(snapshots.candidate_item_keys)
    sequences = snapshots.sequences.take(requests)
    times_ms = snapshots.times_ms[requests]
    return CandidateArrays(
        request_time_ms=times_ms,
        item_keys=keys,
        attribute_rows=attributes.of(keys, times_ms[:, None]),
        activity=grid.filled_all(snapshots.candidate_activity),
        total=snapshots.total_activity.take(requests),
        exposures=grid.filled_all(snapshots.candidate_exposures),
        sequences=sequences,
        history_attribute_rows=attributes.of(sequences.item_keys, times_ms[:, None]),
        number_columns=grid.filled(_number_columns(snapshots, vocabulary)),
    )


def _number_columns(snapshots: RequestSnapshots, vocabulary: Vocabulary) -> Float32s:
    """Return the columns (M, J) of the impressions' numbers."""
    names = vocabulary.candidate_numbers
    if not names:
        return np.empty((len(snapshots.candidate_requests), 0), dtype=np.float32)
    texts = snapshots.candidate_numbers.tolist()
    return logged_columns(texts, names, snapshots.candidate_requests)


def _of_users(
    texts: Sequence[str], vocabulary: Vocabulary
) -> dict[str, NDArray[np.generic]]:
    """Return USER_NAMES, each distinct text parsed once; {} without user fields."""
    if not vocabulary.user_fields:
        return {}
    places, index = _distinct(texts)
    rows = np.array([vocabulary.user_attribute_rows(place) for place in places], np.int32)
    return {"user_attribute_rows": rows[index]}


def _pieces(candidates: _Int64s, longest: int) -> tuple[_Int64s, _Grid]:
    """Return the request of each slate (long ones are cut) and the candidates' places."""
    rank = _rank_within(candidates)
    pieces = candidates * (1 + len(candidates)) + rank // MAX_SLATE
    _, first, row = np.unique(pieces, return_index=True, return_inverse=True)
    column = rank % MAX_SLATE
    most = max(int(column.max(initial=-1)) + 1, min(longest, MAX_SLATE))
    shape = (len(first), most)
    return candidates[first], _Grid(rows=row, columns=column, shape=shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """How users' behaviours become windows."""

    length: int
    """L: of a window, at most."""
    step: int
    """Each window of a user ends this number of behaviours before the next newer one: with
    fewer than ``length``, windows overlap, and each behaviour is once among the newest
    ``step`` of a window."""

    def ends(self, starts: _Int64s) -> tuple[_Int64s, _Int64s]:
        """Return the user of each window, and the behaviour that it ends before.

        Of users whose behaviours are ``starts[u]:starts[u + 1]``; the newest window first.
        """
        counts = -(-np.diff(starts) // self.step)
        user = np.repeat(np.arange(len(counts)), counts)
        return user, starts[1:][user] - _rank_within(user) * self.step


def windows(
    histories: UserHistories,
    cutting: Cutting,
    vocabulary: Vocabulary,
    attributes: ItemAttributes,
) -> Windows:
    """Return every user's behaviours in windows, the newest window full.

    Items have the attributes that a request just after a window's newest behaviour sees.
    """
    user, ends = cutting.ends(histories.starts)
    sizes = np.minimum(ends - histories.starts[:-1][user], cutting.length)
    rows = np.repeat(np.arange(len(user)), sizes)
    place = _rank_within(rows)
    grid = _Grid(
        rows=rows,
        columns=(cutting.length - sizes)[rows] + place,
        shape=(len(user), cutting.length),
    )
    read = grid.filled_all(histories.behaviors.take((ends - sizes)[rows] + place))
    after_ms = histories.behaviors.occurred_at_ms[ends - 1] + 1
    of_items = attributes.of(read.item_keys, after_ms[:, None])
    return Windows(tensors=_history(read, vocabulary, of_items))


def _history(
    sequences: SequenceArrays, vocabulary: Vocabulary, attribute_rows: NDArray[np.int32]
) -> dict[str, NDArray[np.generic]]:
    return {
        "history_item_rows": vocabulary.item_rows(sequences.item_keys).astype(np.int32),
        "history_attribute_rows": attribute_rows,
        "history_behavior_codes": transforms.behavior_codes(sequences).astype(np.int16),
    }


def read_contexts(
    contexts: Sequence[str | None], numbers: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return context_rows (R, X) and the fields ``numbers`` of R contexts in JSON.

    Many requests share a context, most have none: each distinct one is parsed once.
    """
    places, index = _distinct(contexts)
    read = [parse_context(text) for text in places]
    rows = np.array([context_rows(each) for each in read], np.int64)
    found = [context_numbers(each, numbers) for each in read]
    shape = (-1, CONTEXT_SLOTS), (-1, NUM_CONTEXT_NUMBERS)
    values = np.array(found, np.float32)
    return rows.reshape(shape[0])[index], values.reshape(shape[1])[index]


def _distinct(texts: Sequence[_Text]) -> tuple[list[_Text], _Int64s]:
    """Return the distinct ``texts``, and of each text which one it is."""
    places: dict[_Text, int] = {}
    index = [places.setdefault(text, len(places)) for text in texts]
    return list(places), np.array(index, np.int64)


def _rank_within(groups: _Int64s) -> _Int64s:
    """Return 0, 1, 2, … within each run of equal ``groups`` (ascending)."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    lengths = np.diff(np.append(starts, len(groups)))
    return np.arange(len(groups)) - np.repeat(starts, lengths)
