from collections.abc import Sequence

import pytest

from srp4ctr.features.config import FeatureConfig, FieldConfig
from srp4ctr.features.tensors import item_fields
from srp4ctr.features.tensors.item_fields import AttributeField, Attributes, places
from srp4ctr.features.tensors.schema import Field
from srp4ctr.streams.events.schema import AVAILABLE, NOT_AVAILABLE


def found(**values: Sequence[str | tuple[str, ...]]) -> dict[str, AttributeField]:
    """Return what is found in profiles whose attributes are these, item by item."""
    profiles = [
        dict(zip(values, each, strict=True)) for each in zip(*values.values(), strict=True)
    ]
    return {field.name: field for field in item_fields.build(profiles)}


def test_one_value_an_item_is_categorical_and_several_are_multi_valued() -> None:
    fields = found(
        brand=["Acme", "Zeta"] * 10, genres=["War", ("War", "Drama"), "Drama", "War"] * 5
    )
    assert fields["brand"].kind == "categorical"
    assert fields["brand"].values == ("Acme", "Zeta")
    assert fields["genres"].kind == "multi"
    assert fields["genres"].values == ("War", "Drama")  # the commonest first
    assert fields["genres"].slots == 2  # no item has more


def test_prices_are_numeric_and_years_and_few_numbers_are_not() -> None:
    fields = found(
        price=[f"{n / 10}" for n in range(200)],
        weight=[str(n) for n in range(200)],
        year=[str(1960 + n % 40) for n in range(200)],
        stars=[str(n % 5) for n in range(200)],
    )
    kinds = {name: field.kind for name, field in fields.items()}
    assert kinds.pop("price") == kinds.pop("weight") == "numeric"
    assert set(kinds.values()) == {"categorical"}
    assert len(fields["price"].edges) == 15
    assert fields["weight"].shape.size == 16


def test_a_rare_value_falls_out_and_a_field_without_a_common_one() -> None:
    fields = found(title=[f"film {n}" for n in range(20)], country=["fr"] * 16 + ["is"] * 4)
    assert list(fields) == ["country"]
    assert fields["country"].values == ("fr",)


def test_a_value_of_just_enough_items_stays() -> None:
    enough = item_fields.MIN_ATTRIBUTE_ITEMS
    fields = found(country=["fr"] * enough + ["is"] * (enough - 1))
    assert fields["country"].values == ("fr",)


def test_whether_an_item_is_available_is_no_attribute_of_it() -> None:
    fields = found(**{AVAILABLE: [NOT_AVAILABLE, "true"] * 10, "brand": ["Acme"] * 20})
    assert list(fields) == ["brand"]


def test_of_too_many_attributes_the_most_widespread_are_fields() -> None:
    names = [f"a{number:02d}" for number in range(item_fields.MAX_FOUND_FIELDS + 2)]
    profiles = [dict.fromkeys(names[: 6 + n], "Acme") for n in range(len(names) - 5)] * 5
    fields = [field.name for field in item_fields.build(profiles)]
    assert fields == names[: item_fields.MAX_FOUND_FIELDS]


def test_a_number_at_an_edge_is_in_the_bucket_above() -> None:
    price = AttributeField(name="price", kind="numeric", edges=(1.0, 2.0))
    rows = item_fields.FieldRows((price,))
    first = int(rows.of({"price": "0"})[0])
    numbers = ("0.99", "1", "1.99", "2", "3")
    buckets = [int(rows.of({"price": number})[0]) - first for number in numbers]
    assert buckets == [0, 1, 1, 2, 2]


def test_what_is_declared_is_used_and_nothing_else() -> None:
    profiles = [{"year": str(1960 + n), "brand": "Acme"} for n in range(40)]
    year = FieldConfig(name="year", kind="numeric", buckets=4)
    nowhere = FieldConfig(name="colour", kind="multi")
    (field,) = item_fields.build(profiles, [year, nowhere])
    assert (field.name, len(field.edges)) == ("year", 3)


def test_items_without_attributes_have_no_fields_and_one_empty_slot() -> None:
    assert item_fields.build([{}, {}]) == ()
    assert item_fields.num_slots(()) == 1
    assert item_fields.num_rows(()) == 2


def test_an_attribute_without_any_value_yet_is_no_field() -> None:
    """A list that is empty everywhere, and embeddings that no event has."""
    tagged: list[Attributes] = [{"tags": (), "brand": "Acme"}] * 10
    assert [field.name for field in item_fields.build(tagged)] == ["brand"]
    look = FieldConfig(name="look", kind="vector")
    brand = FieldConfig(name="brand", kind="categorical")
    (field,) = item_fields.build(tagged, [look, brand])
    assert field.name == "brand"
    assert item_fields.build([], [look]) == ()


def test_fields_stand_one_after_the_other() -> None:
    brand = Field(name="brand", kind="categorical", size=3)
    genres = Field(name="genres", kind="multi", size=5, slots=2)
    first, second = places([brand, genres])
    assert (first.slots, first.first_row) == (slice(0, 1), 2)
    assert (second.slots, second.first_row) == (slice(1, 3), 5)
    assert item_fields.num_rows([brand, genres]) == 10


def test_a_field_named_twice_is_refused() -> None:
    brand = FieldConfig(name="brand", kind="categorical")
    with pytest.raises(ValueError, match="names a field twice"):
        FeatureConfig(user_fields=(brand, brand))


def test_a_server_s_settings_lack_the_declared_fields() -> None:
    config = FeatureConfig(item_fields=(FieldConfig(name="a", kind="multi"),))
    assert config.portable().item_fields == ()
