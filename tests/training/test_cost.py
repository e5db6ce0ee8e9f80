from dataclasses import replace

import pytest

from training.config import ModelConfig, RefreshConfig
from training.cost import CANDIDATES, card, count, formula, sizes_of
from training.model.embeddings import TableSizes
from training.model.srp4ctr import SRP4CTR


@pytest.mark.parametrize(
    "switch", ["use_cross_attention", "use_querying", "use_all_layers"]
)
def test_what_is_switched_off_is_not_paid_for(recipe: RefreshConfig, switch: str) -> None:
    config = replace(recipe.model, **{switch: False})
    model = SRP4CTR(config, TableSizes(item_rows=9, attribute_rows=5, length=6))
    counted = count(model, sizes_of(config, 6), candidates=3)
    assert counted == formula(config, 6, candidates=3)


@pytest.mark.parametrize("candidates", [1, 100])
@pytest.mark.parametrize("length", [6, 50])
def test_counted_flops_equal_the_formula(
    recipe: RefreshConfig, candidates: int, length: int
) -> None:
    tables = TableSizes(item_rows=9, attribute_rows=5, length=length)
    model = SRP4CTR(recipe.model, tables)
    counted = count(model, sizes_of(recipe.model, length), candidates)
    assert counted == formula(recipe.model, length, candidates)


def test_folding_saves_nothing_at_one_candidate_and_much_at_a_hundred() -> None:
    one = formula(ModelConfig(), length=50, candidates=1)
    hundred = formula(ModelConfig(), length=50, candidates=CANDIDATES)
    assert one.folded == one.unfolded
    assert hundred.unfolded > 10 * hundred.folded


def test_the_card_is_of_a_hundred_candidates() -> None:
    cost = card(ModelConfig(), length=50)
    assert cost["folded_flops"] == cost["encoder_flops"] + cost["head_flops_per_100"]
    assert cost["unfolded_flops"] == 100 * cost["unfolded_flops_per_1"]
