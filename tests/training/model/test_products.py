from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from srp4ctr.features.tensors.item_fields import places
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.model.embeddings import USER_FIELD_WIDTH, TableSizes
from srp4ctr.training.model.products import PRODUCT_WIDTH, FieldProducts, masked_mean
from srp4ctr.training.model.srp4ctr import SRP4CTR

ROW, PLACE = 3, 1


def with_users(sizes: TableSizes) -> TableSizes:
    return replace(sizes, user_fields=sizes.item_fields)


def user_rows(tables: TableSizes, requests: int) -> Tensor:
    """Return (R, U) random values of the user's fields, each in its slots."""
    rows = torch.zeros((requests, tables.user_slots), dtype=torch.int64)
    for place in places(tables.user_fields):
        last = place.first_row + place.field.size
        slots = (requests, place.field.slots)
        rows[:, place.slots] = torch.randint(place.first_row, last, slots)
    return rows


@torch.no_grad()
def expected(
    products: FieldProducts, item: tuple[Tensor, Tensor], request: tuple[Tensor, ...]
) -> Tensor:
    """Return the products of one candidate, pair by pair."""
    history, context, user = request
    ours = [products.history(history), products.context(context)]
    ours += [
        products.user(each) for each in torch.split(user, USER_FIELD_WIDTH) if len(each)
    ]
    theirs = [products.item(item[0]), *torch.split(item[1], PRODUCT_WIDTH)]
    both = [a @ b for a in theirs for b in ours]
    alone = [a @ b for fields in (theirs, ours) for a, b in combinations(fields, 2)]
    return torch.stack(both + alone)


def test_each_pair_of_fields_has_its_product(
    requests_of: Callable[..., dict[str, Tensor]], recipe: RefreshConfig, sizes: TableSizes
) -> None:
    torch.manual_seed(0)
    tables = with_users(sizes)
    tensors = requests_of()
    tensors["user_attribute_rows"] = user_rows(tables, len(tensors["context_rows"]))
    model = SRP4CTR(recipe.model, tables).eval()
    assert model.products is not None
    assert model.user_fields is not None
    with torch.no_grad():
        states = model.encode(tensors)
        inputs = tensors | states
        vectors = model._request_vectors(inputs)
        read = model._candidate_side(inputs, vectors, *model._candidate_states(inputs))
        values, seen = states["layer_values"][ROW, 0], states["state_mask"][ROW] == 1
        request = (
            values[seen].mean(0),
            model.context(tensors["context_rows"])[ROW],
            model.user_fields(tensors["user_attribute_rows"])[ROW],
        )
        item = (
            model.embedding.items(tensors["candidate_item_rows"])[ROW, PLACE],
            model.embedding.attributes.means(tensors["candidate_attribute_rows"])[
                ROW, PLACE
            ],
        )
    pairs = expected(model.products, item, request)
    assert len(pairs) == sum(model.products.widths)
    torch.testing.assert_close(read[ROW, PLACE, -len(pairs) :], pairs)


def test_a_model_without_users_attributes_has_no_products(
    recipe: RefreshConfig, sizes: TableSizes
) -> None:
    assert SRP4CTR(recipe.model, sizes).products is None


def test_the_mean_of_nothing_is_zero() -> None:
    mask = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    mean = masked_mean(torch.full((2, 2, 3), 2.0), mask)
    assert mean.tolist() == [[0.0] * 3, [2.0] * 3]
