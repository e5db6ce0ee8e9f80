from dataclasses import replace

import pytest

from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.export.bundle_writer import (
    CANDIDATES,
    cost_card,
    count_flops,
    sizes_of,
)
from srp4ctr.training.model.embeddings import USER_FIELD_WIDTH, TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from tests.training.flop_formula import formula


@pytest.mark.parametrize("candidates", [1, 100])
@pytest.mark.parametrize("length", [6, 50])
def test_counted_flops_equal_the_formula(
    recipe: RefreshConfig, sizes: TableSizes, candidates: int, length: int
) -> None:
    tables = replace(sizes, length=length)
    model = SRP4CTR(recipe.model, tables)
    counted = count_flops(model, sizes_of(recipe.model, tables), candidates)
    assert counted == formula(recipe.model, tables, candidates)


def test_folding_saves_nothing_at_one_candidate_and_much_at_a_hundred(
    sizes: TableSizes,
) -> None:
    tables = replace(sizes, length=50)
    one = formula(ModelConfig(), tables, candidates=1)
    hundred = formula(ModelConfig(), tables, candidates=CANDIDATES)
    assert one.folded == one.unfolded
    assert hundred.unfolded > 10 * hundred.folded


def test_the_card_is_of_a_hundred_candidates(
    recipe: RefreshConfig, sizes: TableSizes
) -> None:
    model = SRP4CTR(recipe.model, sizes)
    cost = cost_card(model, sizes_of(recipe.model, sizes))
    assert cost["folded_flops"] == formula(recipe.model, sizes, CANDIDATES).folded
    assert cost["folded_flops_per_1"] == formula(recipe.model, sizes, 1).folded
    assert cost["folded_flops"] == cost["encoder_flops"] + cost["head_flops_per_100"]
    assert cost["unfolded_flops"] == 100 * cost["unfolded_flops_per_1"]


def test_every_item_field_is_paid_for(recipe: RefreshConfig, sizes: TableSizes) -> None:
    bare = replace(sizes, item_fields=())
    model = SRP4CTR(recipe.model, bare)
    counted = count_flops(model, sizes_of(recipe.model, bare), candidates=3)
    assert counted == formula(recipe.model, bare, candidates=3)
    assert counted.encoder < formula(recipe.model, sizes, candidates=3).encoder


def test_a_user_field_is_read_once_a_request_and_multiplied_with_each_candidate(
    recipe: RefreshConfig, sizes: TableSizes
) -> None:
    tables = replace(sizes, user_fields=sizes.item_fields)
    model = SRP4CTR(recipe.model, tables)
    counted = count_flops(model, sizes_of(recipe.model, tables), candidates=3)
    assert counted == formula(recipe.model, tables, candidates=3)
    plain = formula(recipe.model, sizes, candidates=3)
    width, head = recipe.model.width, recipe.model.head_width
    fields, read = len(tables.user_fields), USER_FIELD_WIDTH * (width + head)
    assert counted.head - plain.head > 2 * fields * read  # more: with each candidate
    one = formula(recipe.model, tables, 1).head - formula(recipe.model, sizes, 1).head
    assert counted.head - plain.head < 3 * one
