from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from srp4ctr.training.dataset.batches import epoch_batches, newest
from srp4ctr.training.model.srp4ctr import SRP4CTR

ROWS = np.arange(100, 1100)
LENGTHS = np.random.default_rng(0).geometric(0.05, size=(1000, 1)).astype(np.int64)


def padding(cut: list[np.ndarray]) -> int:
    """Slots of the longest in each batch that the others leave empty."""
    found = [LENGTHS[rows - 100] for rows in cut]
    return sum(int((lengths.max() - lengths).sum()) for lengths in found)


def test_every_row_is_in_one_batch() -> None:
    for lengths in (None, LENGTHS):
        cut = epoch_batches(ROWS, lengths, 64, seed=1)
        assert sorted(np.concatenate(cut)) == ROWS.tolist()
        assert sorted(len(rows) for rows in cut) == [40] + [64] * 15


def test_rows_of_alike_lengths_share_a_batch() -> None:
    mixed, alike = (epoch_batches(ROWS, lengths, 64, seed=1) for lengths in (None, LENGTHS))
    assert padding(alike) < 0.2 * padding(mixed)


def test_batches_of_long_rows_come_at_any_time() -> None:
    means = [
        LENGTHS[rows - 100].mean() for rows in epoch_batches(ROWS, LENGTHS, 64, seed=1)
    ]
    assert means != sorted(means)
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.7


def test_the_order_follows_from_the_seed_alone() -> None:
    first, same, other = (epoch_batches(ROWS, LENGTHS, 64, seed=k) for k in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_no_rows_make_no_batch() -> None:
    assert epoch_batches(ROWS[:0], LENGTHS[:0], 64, seed=1) == []


def test_padding_that_is_cut_changes_no_logit(
    a_model: SRP4CTR, requests_of: Callable[..., dict[str, Tensor]]
) -> None:
    requests = {name: tensor[3:] for name, tensor in requests_of(6).items()}
    longest = int((requests["history_item_rows"] != 0).sum(1).max())
    assert longest < requests["history_item_rows"].shape[1]
    with torch.no_grad():
        whole, cut = a_model(requests), a_model(newest(requests, longest))
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-5)


def test_requests_without_any_history_keep_a_slot_of_padding(
    a_model: SRP4CTR, requests_of: Callable[..., dict[str, Tensor]]
) -> None:
    unknown_users = {name: tensor[:1] for name, tensor in requests_of(2).items()}
    cut = newest(unknown_users, 0)
    assert cut["history_item_rows"].tolist() == [[0]]
    with torch.no_grad():
        whole = a_model(unknown_users)
        torch.testing.assert_close(a_model(cut), whole, rtol=0, atol=1e-5)
