import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srp4ctr.features import columns
from srp4ctr.features.config import FieldConfig
from srp4ctr.features.tensors import item_fields, vocabulary
from srp4ctr.features.tensors.item_fields import Attributes
from srp4ctr.features.tensors.schema import UTC_OFFSET_FIELD
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.events.schema import item_key

KEYS = sorted(item_key(str(i)) for i in range(50))


def a_vocabulary() -> Vocabulary:
    profiles = [{"genre": ("Drama", "War") if i % 2 else "Drama"} for i in range(20)]
    return vocabulary.build(dict.fromkeys(KEYS, 3), profiles, num_oov_rows=4)


def test_known_items_have_a_row_each_and_padding_has_row_0() -> None:
    words = a_vocabulary()
    rows = words.item_rows([[0, *KEYS]])
    assert rows.shape == (1, 51)
    assert rows[0, 0] == 0
    assert len(set(rows[0, 1:].tolist())) == 50
    assert words.is_known(rows).tolist() == [[False, *[True] * 50]]
    assert rows.max() == words.num_item_rows - 1


@given(st.integers(-(2**63), 2**63 - 1))
def test_an_unknown_item_shares_a_row_that_is_neither_padding_nor_mask(key: int) -> None:
    words = a_vocabulary()
    if key in KEYS or key == 0:
        return
    row = int(words.item_rows(key))
    assert 2 <= row < words.first_known_row
    assert row == words.item_rows(key)


def test_an_empty_vocabulary_still_gives_rows() -> None:
    words = vocabulary.build({}, [])
    assert 2 <= int(words.item_rows([KEYS[0]])[0]) < words.num_item_rows


def test_a_rare_item_stays_out() -> None:
    words = vocabulary.build({KEYS[0]: 2, KEYS[1]: 1}, [], min_item_count=2)
    assert words.item_keys.tolist() == [KEYS[0]]


def test_each_field_has_slots_and_rows_of_its_own() -> None:
    profiles = [
        {"genre": ("Drama", "War") if i % 2 else "Drama", "decade": f"{1980 + i // 10}"}
        for i in range(20)
    ]
    words = vocabulary.build({}, profiles)  # A: the decade, then two genres
    attributes: Attributes = {
        "title": "Alien",
        "genre": ("War", "Drama", "Camp"),
        "decade": "1981",
    }
    assert words.attribute_rows(attributes).tolist() == [3, 4, 5]
    assert words.attribute_rows({"genre": "War"}).tolist() == [0, 5, 0]
    assert words.attribute_rows({}).tolist() == [0, 0, 0]


def test_more_values_than_slots_keep_the_commonest() -> None:
    many = tuple(f"g{i:02d}" for i in range(20))
    profiles = [{"genre": many[: i + 1]} for i in range(20)] * 5
    words = vocabulary.build({}, profiles)
    assert words.attribute_rows({"genre": many}).tolist() == list(range(2, 10))


def test_a_number_falls_in_the_bucket_between_its_edges() -> None:
    price = FieldConfig(name="price", kind="numeric", buckets=4)
    profiles = [{"price": f"{n}.5"} for n in range(100)]
    fields = item_fields.build(profiles, [price])
    words = dataclasses.replace(vocabulary.build({}, ()), item_fields=fields)
    found = [
        int(words.attribute_rows({"price": text})[0])
        for text in ("-7", "3", "40", "60", "1e9", "dear", "nan")
    ]
    assert found == [2, 2, 3, 4, 5, 0, 0]


def test_a_vocabulary_survives_its_file(tmp_path: Path) -> None:
    words, path = a_vocabulary(), tmp_path / "vocabulary.json"
    vocabulary.save(words, path)
    again = vocabulary.load(path)
    np.testing.assert_array_equal(again.item_keys, words.item_keys)
    assert again.item_fields == words.item_fields
    assert again.num_oov_rows == words.num_oov_rows


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"item_keys": [2, 1]}'])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"vocabulary\.json is not a vocabulary"):
        vocabulary.load(path)


def test_fields_of_the_context_with_several_numbers_are_numeric() -> None:
    contexts = [
        json.dumps({"size": size, "page": page, "new": str(i % 2), "version": version})
        for i, (size, page, version) in enumerate(
            [("5", "a", "1"), ("7.5", "b", "2"), ("90", "c", "2.1b")]
        )
    ]
    found = vocabulary.numbers_of([*contexts, None, ""])
    assert found == ("size",)
    contexts = [json.dumps({"size": str(size)}) for size in (*range(20), "n/a")]
    assert vocabulary.numbers_of(contexts) == ("size",)
    many = json.dumps({f"n{i:02}": "1" for i in range(30)})
    more = [many, many.replace('"1"', '"2"'), many.replace('"1"', '"3"')]
    assert len(vocabulary.numbers_of(more)) == columns.NUM_CONTEXT_NUMBERS


def test_an_offset_from_utc_is_the_context_s_or_the_default() -> None:
    words = dataclasses.replace(a_vocabulary(), utc_offset_minutes=120)
    assert words.utc_offset_ms({"page": "home"}) == 120 * 60_000
    assert words.utc_offset_ms({UTC_OFFSET_FIELD: "-300"}) == -300 * 60_000
    contexts = [None, '{"utc_offset_minutes": "60"}', '{"utc_offset_minutes": "noon"}', ""]
    assert words.utc_offsets_ms(contexts).tolist() == [
        7_200_000,
        3_600_000,
        *[7_200_000] * 2,
    ]


@pytest.mark.parametrize("text", ["noon", "", "1e9", "90.5", "-721", "nan"])
def test_an_impossible_offset_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="whole minutes from -720 to 840"):
        a_vocabulary().utc_offset_ms({UTC_OFFSET_FIELD: text})


def test_an_offset_alone_is_no_feature() -> None:
    with_offset = {"page": "home", UTC_OFFSET_FIELD: "60"}
    np.testing.assert_array_equal(
        vocabulary.context_rows(with_offset), vocabulary.context_rows({"page": "home"})
    )
    contexts = [json.dumps({UTC_OFFSET_FIELD: str(minutes)}) for minutes in range(9)]
    assert vocabulary.numbers_of(contexts) == ()


def test_a_bundle_knows_which_fields_of_a_context_training_never_saw(
    tmp_path: Path,
) -> None:
    words, path = a_vocabulary(), tmp_path / "vocabulary.json"
    context = {"page": "home", "city": "Rome", UTC_OFFSET_FIELD: "60"}
    names = vocabulary.fields_of([json.dumps({"city": "Oslo", UTC_OFFSET_FIELD: "0"}), ""])
    assert names == ("city",)
    for known, unknown in ((names, ["page"]), ((), ["city", "page"])):
        vocabulary.save(dataclasses.replace(words, context_fields=known), path)
        assert vocabulary.load(path).unknown_fields(context) == unknown
