"""The library makes of any request the tensors that numpy makes."""

import multiprocessing
import os
import random
import shutil
import signal
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from srp4ctr.errors import ArtifactError
from srp4ctr.features import columns
from srp4ctr.features.columns import CANDIDATE, REQUEST
from srp4ctr.features.online.item_cache import ItemTable
from srp4ctr.features.online.item_map import ItemMap, ItemMemory
from srp4ctr.features.online.packing import pack_user, unpack_user
from srp4ctr.features.online.request_features import RequestBatch, RequestFeatures
from srp4ctr.features.tensors import compiled, vocabulary
from srp4ctr.features.tensors.arrays import (
    CLICKS,
    COLUMNS,
    COUNTED_AT_MS,
    FIRST_SEEN_MS,
    IMPRESSIONS,
)
from srp4ctr.features.tensors.item_fields import Attributes
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.events.schema import (
    AVAILABLE,
    NOT_AVAILABLE,
    TOTAL_KEY,
    action_code,
    item_key,
)
from srp4ctr.streams.state.sequences import (
    SHOWN,
    BehaviorSequence,
    SequenceElement,
    sequence_of,
)
from srp4ctr.streams.state.user_state import UserState
from tests.features.readers import MemoryReader, table_of

Array = NDArray[Any]
NOW_MS, HOUR_MS, DAY_MS = 1_750_000_000_000, 3_600_000, 86_400_000
SMALL, LARGE = {"L": 7, "W": 5}, {"L": 40, "W": 33}
IDS = [f"item-{number}" for number in range(40)]
KEYS = [item_key(each) for each in IDS]
PROFILES: list[Attributes] = [
    {
        "genres": (f"g{n % 3}", f"g{n % 4}"),
        "brand": f"b{n % 3}",
        "place": f"p{n % 4}",
        "year": str(n % 2),
    }
    for n in range(20)
]
KNOWN = dict.fromkeys(KEYS[:15], 1)
WORDS = replace(
    vocabulary.build(KNOWN, PROFILES, num_oov_rows=3),
    actions=(("click", action_code("click")), ("view", 2)),
    visit_gap_ms=4_000,
    candidate_numbers=("price", "order"),
)
WITHOUT_ATTRIBUTES = vocabulary.build(KNOWN, [], num_oov_rows=3)


class Store(MemoryReader):
    """Users whose rows are drawn, as they are after they were stored."""

    def read_users(self, user_ids: object) -> dict[str, UserState]:
        assert isinstance(user_ids, list)
        users = {user_id: self.user(user_id) for user_id in user_ids if user_id != "nobody"}
        packed = {each: pack_user(user)[0] for each, user in users.items()}
        return {each: unpack_user(7, row) for each, row in packed.items()}

    def user(self, user_id: str) -> UserState:
        chance = random.Random(user_id)
        is_new = chance.random() < 0.2
        return UserState(
            impressions=four(chance, not is_new),
            clicks=four(chance, not is_new),
            counted_at_ms=0 if is_new else a_time(chance),
            sequence=self.sequence(chance, is_shown=False),
            exposures=self.sequence(chance, is_shown=True),
            version_us=7,
        )

    def sequence(self, chance: random.Random, *, is_shown: bool) -> BehaviorSequence:
        actions = [SHOWN] if is_shown else [1, 2, action_code("click")]
        values = [None] if is_shown else [None, None, -1.0, 0.0, 3.7, 1e300]
        elements = {
            SequenceElement(
                occurred_at=a_time(chance),
                item_key=chance.choice(KEYS),
                action=chance.choice(actions),
                value=chance.choice(values),
            )
            for _ in range(chance.randrange(chance.choice([2, 12, 60])))
        }
        return sequence_of(sorted(elements, key=lambda each: each.occurred_at))


def four(chance: random.Random, is_any: bool) -> tuple[float, float, float, float]:
    first, second, third, last = (chance.uniform(0, 99) * is_any for _ in range(4))
    return first, second, third, last


def a_time(chance: random.Random) -> int:
    """Return a time before the request, at it, or, as clocks differ, after it."""
    days = chance.choice([89, 90, 95])  # behaviours are read for 90
    return NOW_MS - chance.choice(
        [0, -5_000, chance.randrange(9_000), chance.randrange(60 * DAY_MS), days * DAY_MS]
    )


def a_store(chance: random.Random) -> Store:
    """Return items of which some have counters, some attributes, and some neither."""
    some = {key: chance.uniform(0, 99) for key in KEYS if chance.random() < 0.7}
    attributes = {
        key: {**profile, AVAILABLE: NOT_AVAILABLE} if chance.random() < 0.2 else profile
        for key, profile in zip(KEYS, PROFILES, strict=False)
        if chance.random() < 0.7
    }
    clicks = {key: chance.uniform(0, 2) * number for key, number in some.items()}
    # The total may be behind the items' counters, or missing.
    all_clicks = sum(clicks.values()) * chance.choice([0.01, 1, 1, 1])
    total = {TOTAL_KEY: all_clicks} if chance.random() < 0.8 else {}
    return Store(
        impressions={**some, **total},
        clicks={**clicks, **total},
        counted_at_ms=NOW_MS - chance.randrange(10 * DAY_MS),
        times_ms={TOTAL_KEY: NOW_MS - chance.randrange(-5_000, 10 * DAY_MS)},
        attributes=attributes,  # type: ignore[arg-type]
    )


def made_of(features: RequestFeatures, seed: int) -> RequestBatch:
    """Return the tensors of one to three requests, of padded slates and unknown items."""
    chance = random.Random(seed)
    count = 1 + seed % 9 if seed % 3 else 50
    users = [chance.choice(["nobody", *map(str, range(99))]) for _ in range(1 + seed % 3)]
    slates = [[chance.choice(["", "new", *IDS]) for _ in range(count)] for _ in users]
    times = [NOW_MS + chance.randrange(3) * HOUR_MS for _ in users]
    contexts = [
        chance.choice(["", '{"utc_offset_minutes": "-330"}', '{"price": "3.5"}'])
        for _ in users
    ]
    return features.assemble(
        users, slates, times, contexts, numbers_of(features, seed, (len(users), count))
    )


def numbers_of(
    features: RequestFeatures, seed: int, shape: tuple[int, int]
) -> NDArray[np.float32] | None:
    """Return numbers of items of which some are missing, alike, or immense."""
    names = features.vocabulary.candidate_numbers
    if not names or seed % 7 == 0:
        return None
    rng = np.random.default_rng(seed)
    numbers = rng.choice([*range(5), 80.1, -3.0, np.nan, 1e30], (*shape, len(names)))
    return np.where(rng.random(numbers.shape) < 0.5, numbers, rng.lognormal(4, 1)).astype(
        np.float32
    )


@pytest.mark.parametrize("seed", range(120))
def test_the_library_makes_what_numpy_makes(seed: int) -> None:
    store = a_store(random.Random(seed))
    words = WORDS if seed % 5 else WITHOUT_ATTRIBUTES
    table, sizes = table_of(store, words), SMALL if seed % 2 else LARGE
    features = RequestFeatures(store, words, table, sizes=sizes, ttl_days=90)
    assert table.assembler() is not None
    first, again = made_of(features, seed), made_of(features, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ItemTable, "assembler", lambda _: None)
        wanted = made_of(features, seed)
    for made in (first, again):  # attributes are parsed at the first request
        assert made.statuses == wanted.statuses
        assert made.feature_versions == wanted.feature_versions
        np.testing.assert_array_equal(made.item_status, wanted.item_status)
        assert made.tensors.keys() == wanted.tensors.keys()
        for name, array in wanted.tensors.items():
            assert made.tensors[name].dtype == array.dtype
            check_columns(name, made.tensors[name], array, words)


def check_columns(name: str, made: Array, wanted: Array, words: Vocabulary) -> None:
    """Fail with the name of the first column, or tensor, that differs."""
    names = {
        "request_features": REQUEST.names,
        "candidate_features": words.candidate_columns.layout.names,
    }
    for place, column in enumerate(names.get(name, ())):
        pair = made[..., place], wanted[..., place]
        np.testing.assert_allclose(*pair, 1e-6, 1e-6, err_msg=column)
    np.testing.assert_allclose(made, wanted, 1e-6, 1e-6, err_msg=name)


def test_the_vocabularies_have_columns_of_all_kinds() -> None:
    assert WORDS.candidate_columns.layout.names[CANDIDATE.width :] == (
        "item_log_click_behaviors",
        "item_log_seconds_since_click",
        "item_log_view_behaviors",
        "item_log_seconds_since_view",
        *(
            f"{field}_{column}"
            for field in ("brand", "place", "year")
            for column in (
                "log_visit_behaviors",
                "log_earlier_behaviors",
                "log_seconds_since_behavior",
                "is_last",
            )
        ),
        "price",
        "price_rank",
        "price_difference",
        "price_from_last",
        "price_missing",
        "order",
        "order_rank",
        "order_difference",
        "order_from_last",
        "order_missing",
    )
    assert WITHOUT_ATTRIBUTES.candidate_columns.layout.width == CANDIDATE.width


def test_the_header_of_c_is_that_of_the_table_of_columns() -> None:
    header = compiled.SOURCE.with_name("columns.h").read_text(encoding="utf-8")
    assert header == columns.c_header(), "make columns"


def test_the_library_waits_for_attributes_to_be_parsed() -> None:
    store = a_store(random.Random(0))
    table = table_of(store, WORDS)
    keys = np.array([list(store.attributes)])
    found = table.assembler()
    assert found is not None
    request = compiled.UserRequest(
        user=UserState(), at_ms=NOW_MS, after_ms=0, numbers=np.zeros(8), utc_offset_ms=0
    )
    assert found[0]([request], keys, (7, 5)) is None
    table.lookup(keys)
    made = found[0]([request], keys, (7, 5))
    assert made is not None
    assert made.tensors["candidate_attribute_rows"].any()


def test_a_library_of_another_source_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert compiled.is_loaded()
    changed = tmp_path / "compiled.c"
    changed.write_text("/* changed since */")
    monkeypatch.setattr(compiled, "SOURCES", (changed, compiled.SOURCES[1]))
    shutil.copyfile(compiled.LIBRARY, tmp_path / "libcompiled.so")
    for path in (tmp_path / "libcompiled.so", tmp_path / "absent.so"):
        assert compiled._loaded(path) is None
    assert "install the package again" in caplog.text
    assert caplog.text.count("computed by numpy, which takes more CPU") == 2


def test_any_other_library_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    assert compiled._loaded(Path("libm.so.6")) is None
    assert "computed by numpy, which takes more CPU" in caplog.text


def test_a_library_without_a_new_column_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled, "_C", compiled._C + 1)
    assert compiled._loaded(compiled.LIBRARY) is None
    assert "compiled.c has other columns than columns.py" in caplog.text


@pytest.mark.parametrize("user_id", map(str, range(9)))
def test_a_row_that_was_cut_off_is_damaged(user_id: str) -> None:
    """Sequences must be as long as they say: the library reads them so."""
    (packed,) = pack_user(Store().user(user_id))
    assert unpack_user(7, packed)
    for end in (1, 50, len(packed) - 9, len(packed) - 8, len(packed) - 1):
        with pytest.raises((ArtifactError, struct.error)):
            unpack_user(7, packed[:end])
    with pytest.raises(ArtifactError):
        unpack_user(7, packed + b"0")


LOGS = ("item_log_impressions", "item_log_clicks", "item_age")


def hammer(folder: Path) -> None:
    """Write all rows again and again: k hours old, with k impressions and clicks."""
    memory = ItemMemory(folder)
    made = memory.create(64, 0)
    rows = made.insert(np.array(sorted(KEYS)))
    memory.publish(made)
    hours = 0
    while True:
        hours = hours % 1_000 + 1
        columns = np.zeros((len(rows), COLUMNS), dtype=np.int64)
        columns[:, COUNTED_AT_MS] = NOW_MS
        columns[:, FIRST_SEEN_MS] = NOW_MS - hours * HOUR_MS
        counts = columns.view(np.float64)
        counts[:, IMPRESSIONS] = counts[:, CLICKS] = hours
        made.put(rows, columns)


def test_the_library_never_reads_half_a_row(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=hammer, args=(tmp_path,))
    process.start()
    try:
        items = mapped(ItemMemory(tmp_path))
        made = an_assembler(items, WORDS)
        request = compiled.UserRequest(
            user=UserState(), at_ms=NOW_MS, after_ms=0, numbers=np.zeros(8), utc_offset_ms=0
        )
        keys, seen = np.array([KEYS]), set[float]()
        deadline = time.monotonic() + 120.0
        while len(seen) < 200:
            assert time.monotonic() < deadline
            found = made([request], keys, (7, 5))
            assert found is not None
            features = found.tensors["candidate_features"][0]
            logs = np.concatenate([features[:, CANDIDATE.parts[log]] for log in LOGS], 1)
            assert (logs == logs[:, :1]).all()
            seen.update(logs[:, 0].tolist())
    finally:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()


def an_assembler(items: ItemMap, words: Vocabulary) -> compiled.Assembler:
    width = 2 + words.num_attribute_slots
    texts = np.zeros(items.capacity, dtype=np.int64)
    known = np.zeros((items.capacity, width), dtype=np.int32)
    return compiled.Assembler(items.table, texts, known, words)


def mapped(memory: ItemMemory) -> ItemMap:
    """Return the table once another process has filled it."""
    deadline = time.monotonic() + 60.0
    while (items := memory.current()) is None or not items.read(np.array([1])).any():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return items
