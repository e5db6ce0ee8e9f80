import torch

from srp4ctr.features.tensors.vocabulary import FIRST_OOV_ROW, NUM_OOV_ROWS
from srp4ctr.training.model.dropout import ITEM_ROWS, without_ids

FIRST_KNOWN = FIRST_OOV_ROW + NUM_OOV_ROWS


def a_batch() -> dict[str, torch.Tensor]:
    return {
        "history_item_rows": torch.arange(60).reshape(3, 20) % 50,
        "candidate_item_rows": torch.arange(60).reshape(3, 20),
        "candidate_features": torch.ones(3, 20, 2),
    }


def test_no_share_changes_nothing() -> None:
    batch = a_batch()
    assert all(without_ids(batch, 0.0)[name] is batch[name] for name in batch)


def test_every_known_item_becomes_unknown_and_nothing_else_changes() -> None:
    batch = a_batch()
    changed = without_ids(batch, 1.0)
    for name in ITEM_ROWS:
        known = batch[name] >= FIRST_KNOWN
        assert torch.equal(changed[name][~known], batch[name][~known])
        shared = changed[name][known]
        assert shared.min() == 2
        assert shared.max() == FIRST_KNOWN - 1
    assert changed["candidate_features"] is batch["candidate_features"]


def test_an_item_is_unknown_wherever_it_stands_or_nowhere() -> None:
    torch.manual_seed(0)
    batch = a_batch()
    changed = without_ids(batch, 0.5)
    became: dict[int, set[int]] = {}
    for name in ITEM_ROWS:
        pairs = zip(batch[name].flatten(), changed[name].flatten(), strict=True)
        for before, after in pairs:
            became.setdefault(int(before), set()).add(int(after))
    assert {len(rows) for rows in became.values()} == {1}
    dropped = sum(before not in rows for before, rows in became.items())
    assert 10 < dropped < 35
