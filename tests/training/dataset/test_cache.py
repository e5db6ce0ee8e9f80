from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.config import StreamConfig
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset import cache
from srp4ctr.training.dataset.build import TrainingSet, read_training_set
from tests.training.logs import write_world

LENGTH = 6
STREAMS = StreamConfig(sequence_length=LENGTH)
CONFIG = RefreshConfig(held_out_share=0.3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> FeatureConfig:
    """Six users, each of whom clicks on one colour."""
    return write_world(tmp_path_factory.mktemp("world"))


def cutting(world: FeatureConfig) -> tuple[Callable[[], TrainingSet], list[int]]:
    """Return what cuts the training set, and a list that grows when it does."""
    cuts: list[int] = []

    def cut() -> TrainingSet:
        cuts.append(1)
        return read_training_set(CONFIG, world, STREAMS)

    return cut, cuts


def assert_same(found: Any, expected: Any) -> None:
    """Compare dataclasses, mappings and arrays all the way down."""
    if hasattr(expected, "__dataclass_fields__"):
        for each in fields(expected):
            assert_same(getattr(found, each.name), getattr(expected, each.name))
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_same(found[name], value)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


def test_what_is_read_is_what_was_cut(world: FeatureConfig, tmp_path: Path) -> None:
    dataset = read_training_set(CONFIG, world, STREAMS)
    dataset = replace(dataset, champion_judge=dataset.parts.judge)
    cache.write(dataset, tmp_path / "examples", "a name")
    found = cache.read(tmp_path / "examples")
    assert found is not None
    assert found.name == "a name"
    assert_same(found.dataset, dataset)


def test_examples_stay_on_disk(world: FeatureConfig, tmp_path: Path) -> None:
    cut, _ = cutting(world)
    dataset = cache.cached(tmp_path / "examples", "a name", cut)
    assert all(isinstance(a, np.memmap) for a in dataset.windows.tensors.values())
    train = dataset.parts.train
    assert all(isinstance(array, np.memmap) for array in train.tensors.values())
    assert isinstance(train.take(slice(3)).clicked, np.memmap)  # a part is no copy


def test_the_same_log_is_cut_once_and_another_anew(
    world: FeatureConfig, tmp_path: Path
) -> None:
    cut, cuts = cutting(world)

    def read_again(config: RefreshConfig = CONFIG, length: int = LENGTH) -> int:
        streams = replace(STREAMS, sequence_length=length)
        name = cache.name_of(config, world, streams, "")
        cache.cached(tmp_path / "examples", name, cut)
        return len(cuts)

    assert [read_again(), read_again()] == [1, 1]
    assert read_again(replace(CONFIG, seed=5, finetune_epochs=9)) == 1
    assert read_again(replace(CONFIG, min_item_count=3)) == 2
    assert read_again(length=7) == 3
    files = sorted(Path(world.log_dir).glob("*/date=*/*.parquet"))
    assert read_again() == 4
    files[0].touch()  # as if written anew
    assert [read_again(), read_again()] == [5, 5]


def test_a_cut_that_was_killed_leaves_nothing(world: FeatureConfig, tmp_path: Path) -> None:
    (tmp_path / "examples.partial").mkdir()
    (tmp_path / "examples.partial" / "train.clicked.npy").write_bytes(b"half")
    assert cache.read(tmp_path / "examples") is None
    cut, cuts = cutting(world)
    cache.cached(tmp_path / "examples", "a name", cut)
    assert len(cuts) == 1
    assert not (tmp_path / "examples.partial").exists()
