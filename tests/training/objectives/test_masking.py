import pytest
import torch

from srp4ctr.features.tensors.vocabulary import MASK_ROW
from srp4ctr.training.model.embeddings import MASK_CODES
from srp4ctr.training.objectives.pretraining import (
    Masks,
    draw_masks,
    hide,
    ids_only,
    prefixes,
)


def a_history() -> dict[str, torch.Tensor]:
    rows = torch.tensor([[0, 5, 6, 7]])
    return {
        "history_item_rows": rows,
        "history_attribute_rows": torch.full((1, 4, 8), 9),
        "history_behavior_codes": torch.full((1, 4, 3), 2),
    }


def at(*positions: int) -> torch.Tensor:
    mask = torch.zeros(1, 4, dtype=torch.bool)
    mask[0, list(positions)] = True
    return mask


def test_a_hidden_item_takes_its_attributes_along_and_leaves_the_behaviour() -> None:
    hidden = hide(a_history(), Masks(items=at(2), behaviors=at(), attributes=at()))
    assert hidden["history_item_rows"].tolist() == [[0, 5, MASK_ROW, 7]]
    assert hidden["history_attribute_rows"][0, 2].tolist() == [MASK_ROW] * 8
    assert torch.equal(
        hidden["history_behavior_codes"], a_history()["history_behavior_codes"]
    )


def test_a_hidden_behaviour_hides_all_its_fields_and_leaves_the_item() -> None:
    hidden = hide(a_history(), Masks(items=at(), behaviors=at(3), attributes=at()))
    assert hidden["history_behavior_codes"][0, 3].tolist() == list(MASK_CODES)
    assert hidden["history_behavior_codes"][0, 2].tolist() == [2, 2, 2]
    assert torch.equal(hidden["history_item_rows"], a_history()["history_item_rows"])


def test_attributes_may_be_hidden_of_an_item_that_is_shown() -> None:
    hidden = hide(a_history(), Masks(items=at(2), behaviors=at(), attributes=at(3)))
    assert hidden["history_item_rows"].tolist() == [[0, 5, MASK_ROW, 7]]
    of_attributes = hidden["history_attribute_rows"][0] == MASK_ROW
    assert of_attributes.all(dim=1).tolist() == [False, False, True, True]
    assert of_attributes.any(dim=1).tolist() == [False, False, True, True]


def test_attributes_are_hidden_alone_of_other_items_than_are_hidden_whole() -> None:
    torch.manual_seed(0)
    masks = draw_masks(torch.arange(1, 51).repeat(400, 1), 0.2)
    assert not (masks.attributes & masks.items).any()
    share = masks.attributes.sum() / (~masks.items).sum()
    assert 0.18 < float(share) < 0.22


def test_the_two_sets_differ_and_each_covers_about_its_ratio() -> None:
    torch.manual_seed(0)
    rows = torch.arange(1, 51).repeat(400, 1)
    masks = draw_masks(rows, 0.2)
    for each in (masks.items, masks.behaviors):
        assert 0.17 < float(each[:, :-1].float().mean()) < 0.23
        assert float(each[:, -1].float().mean()) > 0.3  # the newest is hidden more often
    assert not torch.equal(masks.items, masks.behaviors)
    # The same items in each window, and yet a draw of its own.
    assert len({tuple(item) for item in masks.items.tolist()}) > 390


def test_all_elements_of_one_item_are_hidden_together() -> None:
    torch.manual_seed(1)
    rows = torch.tensor([[4, 7, 4, 8, 7, 4]]).repeat(50, 1)
    masks = draw_masks(rows, 0.3)
    assert torch.equal(masks.items[:, 0], masks.items[:, 2])
    assert torch.equal(masks.items[:, 1], masks.items[:, 4])


def test_padding_is_never_hidden() -> None:
    masks = draw_masks(torch.zeros(8, 5, dtype=torch.int64), 0.9)
    for each in (masks.items, masks.behaviors, masks.attributes):
        assert not each.any()


@pytest.mark.parametrize(
    ("arm", "hidden"),
    [
        ("items", {"items", "attributes"}),
        ("behaviors", {"behaviors"}),
        ("bert", {"items"}),
        ("both", {"items", "behaviors", "attributes"}),
    ],
)
def test_an_arm_hides_what_it_learns_from_alone(arm: str, hidden: set[str]) -> None:
    masks = draw_masks(torch.arange(1, 51).repeat(20, 1), 0.2, arm)
    each = {name: getattr(masks, name) for name in ("items", "behaviors", "attributes")}
    assert {name for name, mask in each.items() if mask.any()} == hidden


def test_plain_bert_sees_the_ids_alone() -> None:
    seen = ids_only(a_history())
    assert torch.equal(seen["history_item_rows"], a_history()["history_item_rows"])
    assert set(seen["history_attribute_rows"].flatten().tolist()) == {MASK_ROW}
    codes = seen["history_behavior_codes"]
    assert torch.equal(codes, torch.tensor(MASK_CODES).expand_as(codes))


def test_a_prefix_ends_after_any_behaviour_and_stands_where_a_history_does() -> None:
    torch.manual_seed(0)
    window = {
        name: each.repeat(300, *[1] * (each.dim() - 1))
        for name, each in a_history().items()
    }
    window["history_behavior_codes"] = window["history_behavior_codes"].clone()
    window["history_behavior_codes"][:, 0] = 0  # padding
    cut = prefixes(window, 0.5)
    found = {tuple(rows) for rows in cut["history_item_rows"].tolist()}
    assert found == {(0, 5, 6, 7), (0, 0, 5, 6)}  # never one alone
    is_short = cut["history_item_rows"][:, 3] == 6
    assert 0.15 < float(is_short.float().mean()) < 0.35  # of what is cut, half is whole
    assert not cut["history_behavior_codes"][is_short][:, :2].any()
    assert (cut["history_attribute_rows"][is_short][:, 2:] == 9).all()
    assert all(
        torch.equal(prefixes(window, 0.0)[name], each) for name, each in window.items()
    )
