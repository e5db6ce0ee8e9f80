"""Vectors → codes: alike vectors share them, and every process finds the same."""

import numpy as np
import pytest

from srp4ctr.features.config import FieldConfig
from srp4ctr.features.tensors import item_fields, vector_codes
from srp4ctr.features.tensors.item_fields import Attributes, FieldRows
from srp4ctr.streams.events.vectors import vector_text

DRAW = np.random.default_rng(5)
CENTRES = DRAW.normal(size=(6, 24))


def clouds(count: int, noise: float = 0.1) -> np.ndarray:
    """Return vectors (count, 24) about six centres, one after the other."""
    around = CENTRES[np.arange(count) % len(CENTRES)]
    return (around + noise * DRAW.normal(size=around.shape)).astype(np.float32)


def profiles(vectors: np.ndarray) -> list[Attributes]:
    return [{"look": vector_text(vector.tolist())} for vector in vectors]


LOOK = FieldConfig(name="look", kind="vector", slots=3, buckets=6)


def test_each_level_describes_what_the_ones_before_left() -> None:
    vectors = clouds(600)
    books = vector_codes.fit(vectors, levels=4, codes=6)
    assert books.shape == (4, 6, 24)
    errors = [vector_codes.error(vectors, books[:levels]) for levels in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.05  # the clouds themselves; a vector's length is 1
    again = vector_codes.fit(vectors, levels=4, codes=6)
    assert np.array_equal(again, books)


def test_vectors_of_one_direction_have_the_same_codes() -> None:
    books = vector_codes.fit(clouds(600), levels=3, codes=6)
    one = clouds(6)
    assert np.array_equal(
        vector_codes.codes_of(one, books),
        vector_codes.codes_of(one * np.float32(40.0), books),
    )


def test_few_and_equal_vectors_are_described_exactly() -> None:
    vectors = np.repeat(clouds(2), 5, axis=0)
    books = vector_codes.fit(vectors, levels=2, codes=4)
    assert vector_codes.error(vectors, books) == pytest.approx(0.0, abs=1e-6)


def test_items_that_are_alike_share_rows_and_a_new_one_has_rows_too() -> None:
    rows = FieldRows(item_fields.build(profiles(clouds(600)), [LOOK]))
    assert rows.shapes[0].size == 18
    of = [rows.of(profile) for profile in profiles(clouds(60))]
    for level in range(3):  # a slot has rows of its own level
        first = 2 + 6 * level
        assert all(first <= each[level] < first + 6 for each in of)
    for place, each in enumerate(of):
        shared = [place % 6 == n % 6 for n, other in enumerate(of) if other[0] == each[0]]
        assert all(shared)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"look": "red"},
        {"look": vector_text([0.0] * 24)},  # no direction
        {"look": vector_text([1.0] * 16)},  # of another embedding
    ],
)
def test_an_item_without_a_vector_of_the_field_has_no_rows(attributes: Attributes) -> None:
    rows = FieldRows(item_fields.build(profiles(clouds(60)), [LOOK]))
    assert rows.of(attributes).tolist() == [0, 0, 0]


def test_vectors_are_found_among_other_attributes() -> None:
    known = [{**profile, "genre": "War"} for profile in profiles(clouds(200))]
    genre, look = item_fields.build(known)
    assert (genre.kind, look.kind) == ("categorical", "vector")
    assert (look.slots, look.shape.size) == (8, 128)
    assert look.shape.has_several
    assert item_fields.build([{"look": "vector:art"}] * 200)[0].kind == "categorical"


def test_too_few_vectors_make_no_field_and_few_make_fewer_codes() -> None:
    assert item_fields.build(profiles(clouds(9)), [LOOK]) == ()
    (look,) = item_fields.build(profiles(clouds(20)), [LOOK])
    assert look.shape.size == 3 * 4


def test_codebooks_are_kept_while_they_describe_the_vectors() -> None:
    before = item_fields.build(profiles(clouds(600)), [LOOK])
    assert item_fields.build(profiles(clouds(700)), [LOOK], before) == before
    finer = FieldConfig(name="look", kind="vector", slots=4, buckets=6)
    assert item_fields.build(profiles(clouds(700)), [finer], before)[0].slots == 4
    elsewhere = profiles(DRAW.normal(size=(700, 24)))
    (moved,) = item_fields.build(elsewhere, [LOOK], before)
    assert moved.centroids != before[0].centroids
    assert not {*moved.choices} & {*before[0].choices}  # other codes, other names
