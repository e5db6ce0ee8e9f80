from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import item_key
from srp4ctr.testing.raw_logs import write_log
from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.dataset import build, cache
from srp4ctr.training.dataset.build import write_training_set
from tests.builders import NOON_MS, a_behavior, an_item
from tests.training.logs import SLATE_MS, write_world

LENGTH = 6
STREAMS = StreamConfig(sequence_length=LENGTH)
CONFIG = RefreshConfig(held_out_share=0.3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> FeatureConfig:
    """Six users, each of whom clicks on one colour."""
    return write_world(tmp_path_factory.mktemp("world"))


def cutting(world: FeatureConfig) -> tuple[Callable[[Path], Any], list[int]]:
    """Return what cuts the training set, and a list that grows when it does."""
    cuts: list[int] = []

    def cut(folder: Path) -> Any:
        cuts.append(1)
        return write_training_set(CONFIG, world, STREAMS, folder)

    return cut, cuts


def assert_same(found: Any, expected: Any) -> None:
    """Compare dataclasses, mappings and arrays all the way down."""
    if hasattr(expected, "__dataclass_fields__"):
        for field in fields(expected):
            assert_same(getattr(found, field.name), getattr(expected, field.name))
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_same(found[name], value)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


def test_a_log_that_is_read_in_parts_gives_the_same_training_set(
    world: FeatureConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, _ = cutting(world)
    words = cache.cached(tmp_path / "words", "", cut).vocabulary

    def judged_too(folder: Path) -> Any:
        return write_training_set(CONFIG, world, STREAMS, folder, words)

    whole = cache.cached(tmp_path / "whole", "", judged_too)
    monkeypatch.setattr(build, "REQUESTS_AT_ONCE", 7)
    monkeypatch.setattr(build, "BEHAVIORS_AT_ONCE", 50)
    assert_same(cache.cached(tmp_path / "parts", "", judged_too), whole)
    assert whole.champion_judge is not None
    assert_same(whole.champion_judge, whole.parts.judge)  # by the same vocabulary
    assert whole.counts["requests"] == 6 * 12
    assert len(whole.windows) == whole.counts["windows"] == len(whole.window_newest_ms)


def test_a_request_sees_items_attributes_of_its_own_time(tmp_path: Path) -> None:
    """Neither those of later nor, where it is judged, those of the boundary."""
    world = write_world(tmp_path / "world")
    early, late = (NOON_MS + visit * SLATE_MS - 1 for visit in (4, 10))
    changes = [
        (an_item("i1", colour="red", at_ms=early), early),
        (an_item("i0", colour="blue", at_ms=late), late),
    ]
    write_log(Path(world.log_dir), changes, partition=7)
    cut, _ = cutting(world)
    found = cache.cached(tmp_path / "examples", "", cut)
    assert found.boundary_ms < late
    words = found.vocabulary
    red, blue = (int(words.attribute_rows({"colour": c})[0]) for c in ("red", "blue"))
    parts = found.parts
    for item, before, changed_ms, after in (
        ("i1", blue, early, red),
        ("i0", red, late, blue),
    ):
        row = words.item_rows(item_key(item))
        for part in (parts.train, parts.calibrate, parts.judge):
            is_changed = part.request_at_ms[:, None] > changed_ms
            expected = np.where(is_changed, after, before)
            for side in ("candidate", "history"):
                rows = part.tensors[f"{side}_item_rows"]
                seen = part.tensors[f"{side}_attribute_rows"][..., 0]
                wanted = np.broadcast_to(expected, rows.shape)
                np.testing.assert_array_equal(seen[rows == row], wanted[rows == row])
                assert (rows == row).any()
    windows = found.windows.tensors
    mine = windows["history_item_rows"] == words.item_rows(item_key("i0"))
    assert set(windows["history_attribute_rows"][mine][:, 0].tolist()) == {red}


def test_of_a_long_log_the_requests_of_the_newest_clicks_are_held_out(
    world: FeatureConfig, tmp_path: Path
) -> None:
    def held_out(clicks: int) -> NDArray[np.float32]:
        def cut(folder: Path) -> Any:
            few = replace(CONFIG, held_out_clicks=clicks)
            return write_training_set(few, world, STREAMS, folder)

        parts = cache.cached(tmp_path / f"{clicks}", "", cut).parts
        return np.concatenate([parts.calibrate.clicked, parts.judge.clicked])

    few, share = held_out(10), held_out(1000)
    assert len(few) < len(share) == int(0.3 * 6 * 12)
    assert few.sum() >= 10 > few[1:].sum()


def test_the_newest_days_are_trained_on(world: FeatureConfig, tmp_path: Path) -> None:
    def recent(folder: Path) -> Any:
        config = replace(CONFIG, train_window_days=3 / 1440)  # of visits a minute apart
        return write_training_set(config, world, STREAMS, folder)

    cut, _ = cutting(world)
    every = cache.cached(tmp_path / "every", "", cut).parts
    found = cache.cached(tmp_path / "recent", "", recent).parts
    newest = every.train.request_at_ms[-1]
    kept = np.flatnonzero(every.train.request_at_ms >= newest - 180_000)
    assert_same(found, replace(every, train=every.train.take(kept)))
    assert 0 < len(kept) < len(every.train)


def test_windows_of_long_histories_overlap_so_that_each_behaviour_has_a_state(
    world: FeatureConfig, tmp_path: Path
) -> None:
    def cut_for(encoded: int) -> cache.TrainingSet:
        config = replace(CONFIG, model=ModelConfig(encoded_length=encoded))

        def cut(folder: Path) -> Any:
            return write_training_set(config, world, STREAMS, folder)

        return cache.cached(tmp_path / f"{encoded}", "", cut)

    whole, pooled = cut_for(LENGTH), cut_for(2)
    rows = pooled.windows.tensors["history_item_rows"]
    assert rows.shape[1] == LENGTH
    newest = np.asarray(rows[:, -2:])
    every = np.asarray(whole.windows.tensors["history_item_rows"])
    assert sorted(newest[newest != 0]) == sorted(every[every != 0])
    assert (rows[:, :-2] != 0).any()
    assert len(pooled.window_newest_ms) == len(pooled.windows) > len(whole.windows)


def test_examples_stay_on_disk(world: FeatureConfig, tmp_path: Path) -> None:
    cut, _ = cutting(world)
    dataset = cache.cached(tmp_path / "examples", "a name", cut)
    assert all(isinstance(a, np.memmap) for a in dataset.windows.tensors.values())
    train = dataset.parts.train
    assert all(isinstance(array, np.memmap) for array in train.tensors.values())
    assert isinstance(train.take(slice(3)).clicked, np.memmap)  # a part is no copy


def test_the_same_log_is_cut_once_and_another_again(
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
    assert read_again(replace(CONFIG, model=ModelConfig(encoded_length=2))) == 4
    assert read_again() == 5
    write_log(Path(world.log_dir), [(a_behavior(), NOON_MS)], partition=7)
    assert [read_again(), read_again()] == [6, 6]


def test_a_cut_that_was_killed_leaves_nothing(world: FeatureConfig, tmp_path: Path) -> None:
    (tmp_path / "examples.partial").mkdir()
    (tmp_path / "examples.partial" / "train.clicked.npy").write_bytes(b"half")
    assert cache.read(tmp_path / "examples") is None
    cut, cuts = cutting(world)
    cache.cached(tmp_path / "examples", "a name", cut)
    assert len(cuts) == 1
    assert not (tmp_path / "examples.partial").exists()
