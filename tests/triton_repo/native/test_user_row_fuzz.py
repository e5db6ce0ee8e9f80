"""Any stored row of a user makes the features that numpy makes, or is damaged for both."""

import ctypes
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srp4ctr.features.online import packing, row_codec
from srp4ctr.features.online.item_cache import ItemTable
from srp4ctr.features.online.request_features import RequestBatch, RequestFeatures
from srp4ctr.features.tensors import schema, vocabulary
from srp4ctr.features.tensors.compiled import Assembler
from srp4ctr.streams.events.schema import action_code, item_key
from srp4ctr.streams.state.user_state import UserState
from tests.features.readers import MemoryReader, table_of
from tests.fuzzing import examples

NOW_MS, VERSION_US, REFUSED = 1_750_000_000_000, 7_000_001, -3
USERS = replace(row_codec.USERS, damaged=packing.DAMAGED)  # as a server reads them
IDS = [f"item-{number}" for number in range(6)]
KEYS = [item_key(each) for each in IDS]
WORDS = replace(
    vocabulary.build(dict.fromkeys(KEYS[:4], 1), [{"brand": "b1"}], num_oov_rows=3),
    actions=(("click", action_code("click")),),
    visit_gap_ms=4_000,
)
LIKELY_TIMES = st.integers(NOW_MS - 10_000, NOW_MS + 5_000)
TIMES = LIKELY_TIMES | st.integers(-(2**63), 2**63 - 1)
COUNTS = st.floats(0, 1e6) | st.floats()
VALUES = st.sampled_from([-1.0, 0.0, 3.7, 1e300]) | st.floats()


@st.composite
def columns(draw: st.DrawFn, *, are_codes: bool) -> tuple[bytes, list[bytes]]:
    """Return the head of a sequence and its columns; its times are in order."""
    is_narrow = draw(st.booleans())
    times = draw(st.lists(st.integers(0, 2**32 - 1) if is_narrow else TIMES, max_size=9))
    count = len(times)
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=count, max_size=count))
    codes = b""
    if are_codes:
        likely = st.sampled_from([1, action_code("click"), 0x81]) | st.integers(0, 255)
        codes = bytes(draw(st.lists(likely, min_size=count, max_size=count)))
    valued = sum(code >= 0x80 for code in codes)
    values = draw(st.lists(VALUES, min_size=valued, max_size=valued))
    base_ms = draw(TIMES | st.just(0))
    head = struct.pack("<IBq", count, 4 if is_narrow else 8, base_ms)
    return head, [
        struct.pack(f"<{count}{'I' if is_narrow else 'q'}", *sorted(times)),
        struct.pack(f"<{count}q", *keys),
        codes,
        struct.pack(f"<{valued}d", *values),
    ]


@st.composite
def rows(draw: st.DrawFn) -> bytes:
    """Return a user's row of any times, counters, codes and values, or a damaged one."""
    done_head, (*done, values) = draw(columns(are_codes=True))
    shown_head, (*shown, _, _) = draw(columns(are_codes=False))
    counts = draw(st.lists(COUNTS, min_size=8, max_size=8))
    times = draw(st.tuples(TIMES, TIMES, st.integers(0, 99), TIMES, st.integers(-1, 99)))
    packed = b"".join(
        [
            struct.pack("<B8d5q", 4, *counts, *times),
            done_head,
            shown_head,
            struct.pack("<i", 0),
            *done,
            *shown,
            values,
        ]
    )
    if draw(st.integers(0, 9)) < 8:
        return packed
    cut = draw(st.integers(0, len(packed)))
    return packed[:cut] + draw(st.binary(max_size=40)) + packed[cut:]


@dataclass
class StoredRow(MemoryReader):
    """One user, whose row is ``packed``."""

    packed: bytes = b""
    user: UserState | None = field(default=None, init=False)

    @property
    def stored(self) -> tuple[bytes, bytes]:
        """The time and the row as they are stored."""
        return row_codec.time_of(VERSION_US), row_codec._value(self.packed)

    def read_users(self, user_ids: Sequence[str]) -> dict[str, UserState]:
        self.user = USERS.loaded([*self.stored, *[None] * len(USERS.part_fields)])
        return {} if self.user is None else {"u": self.user}


@pytest.fixture(scope="module")
def features() -> RequestFeatures:
    reader = StoredRow(impressions={KEYS[0]: 9.0}, attributes={KEYS[1]: {"brand": "b1"}})
    table = table_of(reader, WORDS)
    table.lookup(np.array([KEYS]))  # their attributes are parsed
    return RequestFeatures(reader, WORDS, table, sizes={"L": 5, "W": 4})


def by_numpy(features: RequestFeatures) -> RequestBatch:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ItemTable, "assembler", lambda _: None)
        return features.assemble(["u"], [[*IDS, ""]], [NOW_MS])


def by_the_native_step(
    features: RequestFeatures, library: Any, reader: StoredRow
) -> RequestBatch | None:
    """Return the same as the native step makes of the row; None if it refuses the row."""
    found = []

    def of_row(fixed: bytes, packed: bytes, keys: int, numbers: int, *_: bytes) -> int:
        places = ctypes.c_void_p(keys), ctypes.c_void_p(numbers)
        texts = [(each, ctypes.c_size_t(len(each))) for each in reader.stored]
        sized = (part for text in texts for part in text)
        found.append(library.row_features(fixed, packed, *places, *sized))
        return int(found[-1])

    with pytest.MonkeyPatch.context() as patch:
        assembler, version = features.items.assembler() or pytest.fail("no library")
        assert isinstance(assembler, Assembler)
        patch.setattr(assembler, "_function", of_row)
        patch.setattr(ItemTable, "assembler", lambda _: (assembler, version))
        batch = features.assemble(["u"], [[*IDS, ""]], [NOW_MS])
    return None if found == [REFUSED] else batch


@settings(deadline=None, max_examples=examples(200))
@given(packed=rows())
def test_a_row_makes_the_features_that_numpy_makes(
    features: RequestFeatures, library: Any, packed: bytes
) -> None:
    reader = features._reader
    assert isinstance(reader, StoredRow)
    reader.packed = packed
    wanted = by_numpy(features)
    made = by_the_native_step(features, library, reader)
    is_refused = reader.user is packing.DAMAGED or packed[:1] != b"\x04"
    assert (made is None) == is_refused
    for name, array in wanted.tensors.items():
        assert np.isfinite(array).all(), name  # a damaged row's, too
        if made is not None:
            np.testing.assert_allclose(made.tensors[name], array, 1e-6, 1e-6, err_msg=name)
    codes = wanted.tensors["history_behavior_codes"]
    assert (codes < [field.size for field in schema.BEHAVIOR_FIELDS]).all()


@pytest.mark.parametrize("place", ["counted_at_ms", "base_ms", "time"])
@pytest.mark.parametrize("time_ms", [-(2**63), -1, 2**63 - 1])
def test_a_row_of_a_hostile_time_is_damaged(
    features: RequestFeatures, library: Any, place: str, time_ms: int
) -> None:
    times = {"counted_at_ms": 0, "base_ms": NOW_MS, "time": 0} | {place: time_ms}
    reader = features._reader
    assert isinstance(reader, StoredRow)
    reader.packed = b"".join(
        [
            struct.pack("<B8d5q", 4, *[0.0] * 8, times["counted_at_ms"], 0, 7, 0, -1),
            struct.pack("<IBq", 1, 8, times["base_ms"]),
            struct.pack("<IBqi", 0, 4, 0, 0),
            struct.pack("<qqB", times["time"], KEYS[0], 1),
        ]
    )
    assert by_the_native_step(features, library, reader) is None
    assert reader.user is packing.DAMAGED
