"""The tensors between features, model and Triton, declared once.

Training batches, the ONNX export, every ``config.pbtxt`` and the drift monitor are
generated from, or checked against, these tables. Without a batch axis; Triton and torch
put one (B requests) in front.

Sizes by name: L history length, N candidates of a request, A attribute slots of an item
(a bundle's item fields decide: ``item_fields.py``) and U of a user, X context slots,
F behaviour fields, R request features, C candidate features (a bundle's vocabulary
decides: ``columns.py``), of which J are of declared numbers (a caller sends K), E encoder
layers, D width,
M learned queries, S states (slot 0 is the learned null slot, valid even for an empty
history; then those of pooled older behaviours, where L is long, and of the newest),
D1 = D + 1. No tensor has W: the number of a user's last exposures that are counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from srp4ctr.features import columns
from srp4ctr.streams.events.schema import NUM_ACTION_CODES

DType = Literal["int64", "float32", "uint8", "string"]
FieldKind = Literal["categorical", "multi", "numeric", "vector", "gap"]
Size = str | int


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of side information, of an item or of a behaviour."""

    name: str
    kind: FieldKind
    """``numeric`` and ``gap`` (the time between two behaviours) are bucketed, and a
    ``vector`` has a code of each level: see ``vector_codes.py``."""
    size: int
    """How many values or buckets; of a behaviour's field, 0 is one of them and pads."""
    slots: int = 1
    """How many values of it one item may have."""
    source: str = ""
    """Of a behaviour's field: which array of ``SequenceArrays`` it is of."""

    @property
    def has_several(self) -> bool:
        """Whether one item may have several of its rows."""
        return self.kind in ("multi", "vector")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor, its dtype and its symbolic shape."""

    name: str
    dtype: DType
    shape: tuple[Size, ...]

    def dims(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape in numbers; a size that ``sizes`` lacks is free: -1."""
        return tuple(s if isinstance(s, int) else sizes.get(s, -1) for s in self.shape)


CONTEXT_SLOTS = 8  # X
NUM_CONTEXT_ROWS = 1024  # "name=value" of the context is hashed into rows 1..1023
# A field of the context that is not a feature: hour_sin and hour_cos are of the
# user's clock, which is this number of minutes ahead of UTC.
UTC_OFFSET_FIELD = "utc_offset_minutes"
UTC_OFFSETS = range(-720, 841)  # those that there are on Earth
NUM_GAP_BUCKETS = 32  # 0 pads; 1 first of the history; else 2 + log2 of the seconds
NUM_VALUE_BUCKETS = 64  # 0 pads; 1 no value; else 2 + round(4 log2(1 + value))
# The behaviour group. ``transforms.behavior_codes`` and the model follow this table.
BEHAVIOR_FIELDS = (
    Field(name="action", kind="categorical", size=NUM_ACTION_CODES, source="action_codes"),
    Field(name="gap", kind="gap", size=NUM_GAP_BUCKETS, source="occurred_at_ms"),
    Field(name="value", kind="numeric", size=NUM_VALUE_BUCKETS, source="values"),
)

HISTORY_TENSORS = (
    # Vocabulary rows of the behaviours' items, newest last, 0 pads on the left.
    TensorSpec("history_item_rows", "int64", ("L",)),
    # Rows of those items' attribute values, field by field, 0 pads.
    TensorSpec("history_attribute_rows", "int64", ("L", "A")),
    # Codes of BEHAVIOR_FIELDS, 0 pads.
    TensorSpec("history_behavior_codes", "int64", ("L", len(BEHAVIOR_FIELDS))),
)
REQUEST_TENSORS = (
    # Counters of the user, the request's time: ``columns.REQUEST``.
    TensorSpec("request_features", "float32", (columns.REQUEST.width,)),
    # Hashed name=value pairs of the request's context, 0 pads.
    TensorSpec("context_rows", "int64", (CONTEXT_SLOTS,)),
)
USER_TENSORS = (
    # Rows of the user's attribute values, field by field, 0 pads. Of the request's side,
    # in bundles that have user fields alone: ``user_tensors``.
    TensorSpec("user_attribute_rows", "int64", ("U",)),
)
CANDIDATE_TENSORS = (
    # Vocabulary rows of the items to score; 0 pads and scores NaN.
    TensorSpec("candidate_item_rows", "int64", ("N",)),
    # Rows of their attribute values, field by field, 0 pads.
    TensorSpec("candidate_attribute_rows", "int64", ("N", "A")),
    # Counters of items, what the user did with them: ``columns.CandidateColumns``.
    TensorSpec("candidate_features", "float32", ("N", "C")),
)
STATE_TENSORS = (
    # The encoder's keys of the history, a slab per layer.
    TensorSpec("layer_keys", "float32", ("E", "S", "D")),
    # The encoder's values of the history, a slab per layer.
    TensorSpec("layer_values", "float32", ("E", "S", "D")),
    # 1 where a state is valid, 0 where the history is padding.
    TensorSpec("state_mask", "float32", ("S",)),
)
PROBABILITY_TENSORS = (
    # Calibrated probability of a click on each candidate, NaN for padding.
    TensorSpec("click_probability", "float32", ("N",)),
)
RANKING_TENSORS = (
    # Orders the candidates of a request, higher first: a logarithm trained on slates, not
    # calibrated. NaN for padding.
    TensorSpec("ranking_score", "float32", ("N",)),
)
SCORE_TENSORS = (
    *PROBABILITY_TENSORS,
    # Probability that the policy put the candidate at its position, given what stands
    # above: 1 without exploration.
    TensorSpec("propensity", "float32", ("N",)),
)
# Embeddings that the head computes, for other click models.
USER_EMBEDDINGS = (
    # The querying transformer's summaries of the user, whatever the candidates.
    TensorSpec("query_vectors", "float32", ("M", "D")),
)
CANDIDATE_EMBEDDINGS = (
    # The uni cross-attention's output for each candidate and the history.
    TensorSpec("candidate_states", "float32", ("N", "D")),
)
NEXT_ITEM_TENSORS = (
    # What pre-training expects behind the history, and 1 for the items' biases.
    TensorSpec("next_item", "float32", ("D1",)),
)
ENCODER_INPUTS = HISTORY_TENSORS
HEAD_INPUTS = STATE_TENSORS + REQUEST_TENSORS + CANDIDATE_TENSORS
# The features of a request.
MODEL_INPUTS = HISTORY_TENSORS + REQUEST_TENSORS + CANDIDATE_TENSORS
HEAD_OUTPUTS = SCORE_TENSORS + USER_EMBEDDINGS + CANDIDATE_EMBEDDINGS

# Output of ``rank_clicks`` in one step: see ``triton_repo/serving/exploration.py``.
POLICY_TENSORS = (
    # Where to show the candidate, 0 at the top: by ranking_score, or as explored.
    TensorSpec("position", "int64", ("N",)),
)

# The inputs and outputs of ``rank_clicks``, in addition to SCORE_TENSORS.
USER_INPUTS = (TensorSpec("user_id", "string", (1,)),)
ITEM_INPUTS = (
    # The items to score; empty strings pad and score NaN.
    TensorSpec("item_ids", "string", ("N",)),
)
REQUEST_INPUTS = USER_INPUTS + ITEM_INPUTS
OPTIONAL_REQUEST_INPUTS = (
    # UTC milliseconds of the request; the server's clock if absent.
    TensorSpec("request_time_ms", "int64", (1,)),
    # A flat JSON object of strings, as published in the impression.
    TensorSpec("context", "string", (1,)),
    # That of the impressions; without it a request's features are not logged.
    TensorSpec("request_id", "string", (1,)),
)
NUMBER_INPUTS = (
    # Numbers of the items to score, of K names; NaN: missing. They may be left out.
    TensorSpec("candidate_numbers", "float32", ("N", "K")),
    # Their names; the model reads those that it was trained with.
    TensorSpec("candidate_number_names", "string", ("K",)),
)
NUMBER_OUTPUTS = (
    # The columns of candidate_features that were made of them, for the impressions. Of
    # bundles that have declared numbers alone: ``number_tensors``.
    TensorSpec("number_columns", "float32", ("N", "J")),
    # Their names: see ``columns.number_columns``.
    TensorSpec("number_column_names", "string", ("J",)),
)
# The further inputs of ``recommend_items``, and what it answers besides the scores.
RECOMMEND_INPUTS = (
    # How many items to return, at most; 20 if absent.
    TensorSpec("count", "int64", (1,)),
    # JSON: which items may be returned, ``Filters`` of triton_repo/serving/retriever.py.
    TensorSpec("filters", "string", (1,)),
)
RECOMMENDED_TENSORS = (
    # The items from the top; empty strings pad.
    TensorSpec("recommended_item_ids", "string", ("N",)),
    # Where each comes from: model, popular or new.
    TensorSpec("candidate_source", "string", ("N",)),
)
ITEM_NOTES = (
    # Bits of ItemStatus: what is unknown of the candidate.
    TensorSpec("item_status", "uint8", ("N",)),
)
REQUEST_NOTES = (
    # Which bundle answered.
    TensorSpec("model_version", "string", (1,)),
    # A RequestStatus.
    TensorSpec("status", "string", (1,)),
    # Versions of the user's rows and the item table: see UserArrays.versions.
    TensorSpec("feature_version", "string", (1,)),
    # 0: the bundle was trained on sampled negatives. Then click_probability is a score
    # that orders items, and no calibrated probability. Else 1.
    TensorSpec("calibrated", "uint8", (1,)),
)
RESPONSE_NOTES = ITEM_NOTES + REQUEST_NOTES


class RequestStatus(StrEnum):
    """Values of ``status``: what was known of the user."""

    OK = "ok"
    COLD_USER = "cold_user"  # the store has nothing of the user
    EMPTY_SEQUENCE = "empty_sequence"  # a row without behaviours
    STALE_SEQUENCE = "stale_sequence"  # all behaviours have expired
    STORE_UNAVAILABLE = "store_unavailable"  # no answer in time, or a damaged row


class ItemStatus:
    """Bits of ``item_status``."""

    UNKNOWN_ITEM = 1  # not in the model's vocabulary: scored as out-of-vocabulary
    NO_ATTRIBUTES = 2
    NO_ACTIVITY = 4  # nothing counted yet: the counters are the prior
    UNAVAILABLE = 8  # its last update says so
    PADDING = 128


def user_tensors(sizes: Mapping[str, int]) -> tuple[TensorSpec, ...]:
    """Return USER_TENSORS for a bundle of these sizes; () where it has no user fields."""
    return USER_TENSORS if "U" in sizes else ()


def number_tensors(sizes: Mapping[str, int]) -> tuple[TensorSpec, ...]:
    """Return NUMBER_OUTPUTS for a bundle of these sizes; () without declared numbers."""
    return NUMBER_OUTPUTS if "J" in sizes else ()
