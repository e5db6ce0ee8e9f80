"""The tensors between features, model and Triton, declared once.

Training batches, the ONNX export, every ``config.pbtxt`` and the drift monitor are
generated from, or checked against, these tables. Without a batch axis; Triton and torch
put one (B requests) in front.

Sizes by name: L history length, N candidates of a request, A attribute slots of an item
(a bundle's item fields decide: ``item_fields.py``), X context slots, F behaviour fields,
R request features, C candidate features, E encoder layers, D width, M learned queries,
S = L + 1 states (slot 0 is the learned null slot, valid even for an empty history). No
tensor has W: the number of a user's last exposures that candidate_features counts.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from srp4ctr.streams.events.schema import NUM_ACTION_CODES
from srp4ctr.streams.state.counters import HALF_LIVES_H

DType = Literal["int64", "float32", "uint8", "string"]
FieldKind = Literal["categorical", "multi", "numeric", "gap"]
Size = str | int


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of side information, of an item or of a behaviour."""

    name: str
    kind: FieldKind
    """``numeric`` and ``gap`` (the time between two behaviours) are bucketed."""
    size: int
    """How many values or buckets; of a behaviour's field, 0 is one of them and pads."""
    slots: int = 1
    """How many values of it one item may have."""
    source: str = ""
    """Of a behaviour's field: which array of ``transforms.SequenceArrays`` it is of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One named tensor: dtype, symbolic shape, meaning."""

    name: str
    dtype: DType
    shape: tuple[Size, ...]
    meaning: str

    def dims(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape in numbers; a size that ``sizes`` lacks is free: -1."""
        return tuple(s if isinstance(s, int) else sizes.get(s, -1) for s in self.shape)


CONTEXT_SLOTS = 8  # X
NUM_CONTEXT_NUMBERS = 8  # fields of the context that are also read as numbers, at most
NUM_CONTEXT_ROWS = 1024  # "name=value" of the context is hashed into rows 1..1023
NUM_GAP_BUCKETS = 32  # 0 pads; 1 first of the history; else 2 + log2 of the seconds
NUM_VALUE_BUCKETS = 64  # 0 pads; 1 no value; else 2 + round(4 log2(1 + value))
# The behaviour group. ``transforms.behavior_codes`` and the model follow this table.
BEHAVIOR_FIELDS = (
    Field(name="action", kind="categorical", size=NUM_ACTION_CODES, source="action_codes"),
    Field(name="gap", kind="gap", size=NUM_GAP_BUCKETS, source="occurred_at_ms"),
    Field(name="value", kind="numeric", size=NUM_VALUE_BUCKETS, source="values"),
)

HALF_LIVES = tuple(f"{hours:g}h" for hours in HALF_LIVES_H)  # of decayed counters
# Columns of request_features, in order. Rates are smoothed clicks / impressions.
REQUEST_FEATURES = (
    *(f"user_click_rate_{life}" for life in HALF_LIVES),
    *(f"user_log_impressions_{life}" for life in HALF_LIVES),
    "log_sequence_length",
    "log_seconds_since_last_behavior",
    *("hour_sin", "hour_cos"),
    *(f"context_number_{place}" for place in range(1, NUM_CONTEXT_NUMBERS + 1)),
)
# Columns of candidate_features, in order.
CANDIDATE_FEATURES = (
    *(f"item_click_rate_{life}" for life in HALF_LIVES),
    *(f"item_log_impressions_{life}" for life in HALF_LIVES),
    *(f"item_log_clicks_{life}" for life in HALF_LIVES),
    "item_log_hours_since_first_seen",
    "user_attribute_click_share_168h",
    "user_attribute_log_behaviors_168h",
    "user_item_log_exposures",
    "user_item_log_hours_since_shown",
    "item_in_sequence",
)

HISTORY_TENSORS = (
    TensorSpec(
        name="history_item_rows",
        dtype="int64",
        shape=("L",),
        meaning="vocabulary rows of the behaviours' items, newest last, 0 pads on the left",
    ),
    TensorSpec(
        name="history_attribute_rows",
        dtype="int64",
        shape=("L", "A"),
        meaning="rows of those items' attribute values, field by field, 0 pads",
    ),
    TensorSpec(
        name="history_behavior_codes",
        dtype="int64",
        shape=("L", len(BEHAVIOR_FIELDS)),
        meaning="codes of BEHAVIOR_FIELDS, 0 pads",
    ),
)
REQUEST_TENSORS = (
    TensorSpec(
        name="request_features",
        dtype="float32",
        shape=(len(REQUEST_FEATURES),),
        meaning="counters of the user, the request's time: REQUEST_FEATURES",
    ),
    TensorSpec(
        name="context_rows",
        dtype="int64",
        shape=(CONTEXT_SLOTS,),
        meaning="hashed name=value pairs of the request's context, 0 pads",
    ),
)
CANDIDATE_TENSORS = (
    TensorSpec(
        name="candidate_item_rows",
        dtype="int64",
        shape=("N",),
        meaning="vocabulary rows of the items to score; 0 pads and scores NaN",
    ),
    TensorSpec(
        name="candidate_attribute_rows",
        dtype="int64",
        shape=("N", "A"),
        meaning="rows of their attribute values, field by field, 0 pads",
    ),
    TensorSpec(
        name="candidate_features",
        dtype="float32",
        shape=("N", len(CANDIDATE_FEATURES)),
        meaning="counters of items, user-item features: CANDIDATE_FEATURES",
    ),
)
STATE_TENSORS = (
    TensorSpec(
        name="layer_keys",
        dtype="float32",
        shape=("E", "S", "D"),
        meaning="the encoder's keys of the history, a slab per layer",
    ),
    TensorSpec(
        name="layer_values",
        dtype="float32",
        shape=("E", "S", "D"),
        meaning="the encoder's values of the history, a slab per layer",
    ),
    TensorSpec(
        name="last_states",
        dtype="float32",
        shape=("S", "D"),
        meaning="the encoder's last states of the history",
    ),
    TensorSpec(
        name="state_mask",
        dtype="float32",
        shape=("S",),
        meaning="1 where a state is valid, 0 where the history is padding",
    ),
)
PROBABILITY_TENSORS = (
    TensorSpec(
        name="click_probability",
        dtype="float32",
        shape=("N",),
        meaning="calibrated probability of a click on each candidate, NaN for padding",
    ),
)
SCORE_TENSORS = (
    *PROBABILITY_TENSORS,
    TensorSpec(
        name="propensity",
        dtype="float32",
        shape=("N",),
        meaning="probability that the policy put the candidate at its position, given what "
        "stands above: 1 without exploration",
    ),
)
# Embeddings that the head computes, for other click models.
USER_EMBEDDINGS = (
    TensorSpec(
        name="query_vectors",
        dtype="float32",
        shape=("M", "D"),
        meaning="the querying transformer's summaries of the user, whatever the candidates",
    ),
)
CANDIDATE_EMBEDDINGS = (
    TensorSpec(
        name="candidate_states",
        dtype="float32",
        shape=("N", "D"),
        meaning="the uni cross-attention's output for each candidate and the history",
    ),
)
ENCODER_INPUTS = HISTORY_TENSORS
HEAD_INPUTS = STATE_TENSORS + REQUEST_TENSORS + CANDIDATE_TENSORS
HEAD_OUTPUTS = SCORE_TENSORS + USER_EMBEDDINGS + CANDIDATE_EMBEDDINGS

# Output of ``rank_clicks`` in one step: see ``triton_repo/serving/exploration.py``.
POLICY_TENSORS = (
    TensorSpec(
        name="position",
        dtype="int64",
        shape=("N",),
        meaning="where to show the candidate, 0 at the top: best first, or as explored",
    ),
)

# The inputs and outputs of ``rank_clicks``, in addition to SCORE_TENSORS.
USER_INPUTS = (TensorSpec(name="user_id", dtype="string", shape=(1,), meaning="the user"),)
ITEM_INPUTS = (
    TensorSpec(
        name="item_ids",
        dtype="string",
        shape=("N",),
        meaning="the items to score; empty strings pad and score NaN",
    ),
)
REQUEST_INPUTS = USER_INPUTS + ITEM_INPUTS
OPTIONAL_REQUEST_INPUTS = (
    TensorSpec(
        name="request_time_ms",
        dtype="int64",
        shape=(1,),
        meaning="UTC milliseconds of the request; the server's clock if absent",
    ),
    TensorSpec(
        name="context",
        dtype="string",
        shape=(1,),
        meaning="a flat JSON object of strings, as published in the impression",
    ),
    TensorSpec(
        name="request_id",
        dtype="string",
        shape=(1,),
        meaning="that of the impressions; without it a request's features are not logged",
    ),
)
ITEM_NOTES = (
    TensorSpec(
        name="item_status",
        dtype="uint8",
        shape=("N",),
        meaning="bits of ItemStatus: what is unknown of the candidate",
    ),
)
REQUEST_NOTES = (
    TensorSpec(
        name="model_version", dtype="string", shape=(1,), meaning="which bundle answered"
    ),
    TensorSpec(
        name="status",
        dtype="string",
        shape=(1,),
        meaning="ok, cold_user, empty_sequence, stale_sequence or store_unavailable",
    ),
    TensorSpec(
        name="feature_version",
        dtype="string",
        shape=(1,),
        meaning="versions of the user's rows and the item table: see UserArrays.versions",
    ),
)
RESPONSE_NOTES = ITEM_NOTES + REQUEST_NOTES


class ItemStatus:
    """Bits of ``item_status``."""

    UNKNOWN_ITEM = 1  # not in the model's vocabulary: scored as out-of-vocabulary
    NO_ATTRIBUTES = 2
    NO_ACTIVITY = 4  # nothing counted yet: the counters are the prior
    PADDING = 128


def fingerprint() -> str:
    """Return 16 hex digits that change with every tensor and feature column.

    A bundle carries the fingerprint that it was trained with; a server refuses another.
    """
    tables = (ENCODER_INPUTS, HEAD_INPUTS, HEAD_OUTPUTS)
    described = [[(t.name, t.dtype, t.shape) for t in table] for table in tables]
    fields = [(f.name, f.kind, f.size) for f in BEHAVIOR_FIELDS]
    columns = [REQUEST_FEATURES, CANDIDATE_FEATURES]
    text = json.dumps([described, fields, *columns, NUM_CONTEXT_ROWS])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
