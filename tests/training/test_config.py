from typing import Any

import pytest

from srp4ctr.training.config import RefreshConfig


@pytest.mark.parametrize(
    "wrong",
    [
        {"id_dropout": 1.0},
        {"max_gpu_memory_share": 0.0},
        {"slate_loss_weight": -0.1},
        {"held_out_share": 0.0},
        {"batch_users": 0},
        {"train_window_days": 0},
        {"pretrain_epochs": -3},
        {"finetune_learning_rate": 0.0},
    ],
)
def test_a_dial_outside_its_range_is_named(wrong: dict[str, Any]) -> None:
    [name] = wrong
    with pytest.raises(ValueError, match=name):
        RefreshConfig(**wrong)
