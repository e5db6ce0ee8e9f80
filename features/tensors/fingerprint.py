"""The fingerprint of the features: their tensors and columns, and what formulas compute.

A formula is described by its results on fixed inputs, not by its source text: a rewritten
formula with the same results is the same feature, and a changed constant is another one.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp4ctr.features import columns
from srp4ctr.features.columns import CandidateColumns
from srp4ctr.features.tensors import schema, transforms, vocabulary
from srp4ctr.features.tensors.arrays import (
    ActivityArrays,
    CandidateArrays,
    ExposureArrays,
    SequenceArrays,
)
from srp4ctr.features.tensors.caller_numbers import list_columns
from srp4ctr.streams.events.schema import action_code, item_key

# Processors and versions of numpy differ in the last bits of a logarithm. No result on the
# fixed inputs is near enough to a bound of rounding for that to show.
DIGITS = 4
_NOW_MS = 1_750_000_012_345
_HOUR_MS = 3_600_000
_NUMBERS = np.array([[[80.1], [12.6], [3.7], [np.nan], [0.0]]], dtype=np.float32)
_CONTEXT = {"page": "home", "price": "3.7", "place": "north", "utc_offset_minutes": "330"}
_PROFILES: tuple[dict[str, Any], ...] = tuple(
    {"brand": f"b{n % 2}", "genres": (f"g{n % 3}", "g9"), "price": f"{n}.37"}
    for n in range(6)
)
_COLUMNS = CandidateColumns(
    actions=(("click", transforms.CLICK), ("view", 2)),
    main_fields=(("brand", 0),),
    numbers=("price",),
    visit_gap_ms=_HOUR_MS,
)


def fingerprint(sizes: Mapping[str, int] = MappingProxyType({})) -> str:
    """Return 16 hex digits that change with every tensor, feature column and formula.

    A bundle carries the fingerprint that it was trained with; a server refuses another.
    """
    head = schema.HEAD_INPUTS + schema.user_tensors(sizes)
    tables = (schema.ENCODER_INPUTS, head, schema.HEAD_OUTPUTS)
    described = [[(t.name, t.dtype, t.shape) for t in table] for table in tables]
    fields = [(f.name, f.kind, f.size) for f in schema.BEHAVIOR_FIELDS]
    results = [[*map(rounded, array.ravel().tolist())] for array in formulas()]
    text = json.dumps(
        [described, fields, *columns.templates(), schema.NUM_CONTEXT_ROWS, results]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def rounded(result: float) -> str:
    """Return a ``result``, if it is no integer with so few digits that machines agree."""
    if isinstance(result, int):
        return str(result)
    return f"{result + 0.0:.{DIGITS}g}"  # no "-0"


def formulas() -> Iterator[NDArray[Any]]:
    """Return what each formula makes of the fixed inputs."""
    words = vocabulary.build({5: 1, 9: 1}, _PROFILES, num_oov_rows=7)
    done = _behaviors()
    keys = np.array([[5, 9, 5, 7, 0]])
    rows, done_rows = keys[..., None] % 4, done.item_keys[..., None] % 4
    at_ms = np.array([_NOW_MS])
    context = vocabulary.context_numbers(_CONTEXT, ["price"])
    offset_ms = words.utc_offset_ms(_CONTEXT)
    shown = ExposureArrays(
        item_keys=np.array([[5, 9, 5]]),
        shown_at_ms=_NOW_MS - np.array([[90, 30, 7]]) * _HOUR_MS,
    )
    inputs = CandidateArrays(
        request_time_ms=at_ms,
        item_keys=keys,
        attribute_rows=rows,
        activity=_counters((1, 5)),
        total=_counters((1,), 50.3),
        exposures=transforms.item_exposures(shown, keys, at_ms),
        sequences=done,
        history_attribute_rows=done_rows,
        number_columns=list_columns(_NUMBERS, keys),
    )
    yield transforms.behavior_codes(done)
    yield transforms.request_features(done, _counters((1,)), at_ms, context, offset_ms)
    yield transforms.candidate_features(inputs, _COLUMNS)
    yield vocabulary.context_rows(_CONTEXT)
    yield words.item_rows(np.array([0, 5, 7, 9, 1 << 62]))
    yield np.stack([words.attribute_rows(profile) for profile in _PROFILES])
    names = ("view", "cart", "favourite", "a name of another shop")
    yield np.array([action_code(name) for name in names])
    yield np.array([item_key("item-1")])


def _behaviors() -> SequenceArrays:
    """Return the behaviours of one user, with gaps and values of all sizes."""
    values = [np.nan, -1.0, 0.0, 0.3, 1.7, 12.3, 345.6, 78_901.2, 1e300, np.nan]
    count = len(values)
    days_ms = np.array([10_800_000_000, 1_440_000_000, 394_000_000, 151_600_000])
    visit_ms = np.array([32_400_000, 7_560_000, 2_160_000, 11_000, 8_000, 7_000])
    return SequenceArrays(
        item_keys=np.array([[0, *(5, 9, 7, 5, 5, 9, 5, 5, 9)]]),
        action_codes=np.array([[1, 2, transforms.CLICK] * count])[:, :count],
        occurred_at_ms=_NOW_MS - np.concatenate([days_ms, visit_ms])[None],
        values=np.array([values]),
    )


def _counters(shape: tuple[int, ...], scale: float = 1.0) -> ActivityArrays:
    """Return counters that differ in each place; one was never seen."""
    count = int(np.prod(shape))
    impressions = scale * (2.7 + np.arange(count * 4).reshape(*shape, 4))
    clicks = impressions * 0.37
    clicks.reshape(-1)[-1] += 9 * scale  # more than were shown
    age_ms = np.arange(count).reshape(shape) * _HOUR_MS // 3 + 1_234_567
    first_seen_ms = _NOW_MS - 100 * age_ms
    first_seen_ms.reshape(-1)[1:2] = 0
    return ActivityArrays(
        counts=np.stack([impressions, clicks], axis=-2),
        counted_at_ms=_NOW_MS - age_ms,
        first_seen_ms=first_seen_ms,
    )
