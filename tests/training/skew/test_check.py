"""Served requests against training's view of them: equal, and each way to differ."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.request_log import ServedRequest
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.offline import event_tables, point_in_time
from srp4ctr.features.offline.profiles import item_profiles
from srp4ctr.features.tensors import vocabulary
from srp4ctr.features.tensors.schema import CANDIDATE_TENSORS
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import item_key
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset import examples, item_attributes
from srp4ctr.training.export import onnx_export
from srp4ctr.training.refresh.pipeline import refresh
from srp4ctr.training.skew.check import MOST_APART, ServedCheck, check_served
from tests.builders import NOON_MS
from tests.training.conftest import RECIPE
from tests.training.logs import write_world

STREAMS = StreamConfig(sequence_length=6)


@dataclass(frozen=True)
class World:
    """A log, a bundle trained on it, and requests as that bundle answered them."""

    config: RefreshConfig
    features: FeatureConfig
    served: Sequence[ServedRequest]

    def check(
        self, *served: ServedRequest, config: RefreshConfig | None = None
    ) -> ServedCheck:
        return check_served(served, config or self.config, self.features, STREAMS)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    features = write_world(tmp_path_factory.mktemp("world"))
    bundles = str(tmp_path_factory.mktemp("bundles"))
    config = replace(RECIPE, bundles_dir=bundles, min_auc=0.0, max_calibration_error=9.0)
    report = refresh(config, features, STREAMS)
    served = _as_served(report.folder, features)
    return World(config=config, features=features, served=served)


def _as_served(folder: Path, features: FeatureConfig) -> list[ServedRequest]:
    """Return the log's requests as a server without any lag would have logged them.

    Each had one more item, which was not shown, and another order.
    """
    words = vocabulary.load(folder / bundle.VOCABULARY_FILE)
    score = onnx_export.scorer(folder)
    with event_tables.opened(Path(features.log_dir)) as log:
        snapshots = point_in_time.snapshot(log, STREAMS.sequence_length, 90.0)
        rows = point_in_time.request_rows(log)
        profiles = item_profiles(log, features, NOON_MS + 10**9)
    attributes = item_attributes.of_profiles(profiles, words)
    names = {item_key(f"i{n}"): f"i{n}" for n in range(12)}
    served = []
    for (user_id, request_id), row in sorted(rows.items()):
        alone = snapshots.take(np.array([row]))
        tensors = dict(examples.slates(alone, words, attributes).tensors)
        count = len(alone.candidate_item_keys)
        order = np.array([*reversed(range(count)), 0])  # the last one twice
        for spec in CANDIDATE_TENSORS:
            tensors[spec.name] = tensors[spec.name][:, order]
        tensors = {
            name: array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
            for name, array in tensors.items()
        }
        shown = [names[key] for key in alone.candidate_item_keys[order[:-1]].tolist()]
        served.append(
            ServedRequest(
                request_id=request_id,
                user_id=user_id,
                item_ids=(*shown, "never shown"),
                time_ms=int(alone.times_ms[0]),
                status="ok",
                feature_version="-",
                model_version=folder.name,
                tensors=tensors,
                probabilities=score(tensors).click[0],
            )
        )
    return served


def test_requests_that_were_served_as_training_sees_them_are_equal(world: World) -> None:
    check = world.check(*world.served)
    assert check.requests == check.rescored == len(world.served) > 50
    assert check.impressions == 4 * check.requests
    assert {tensor.requests for tensor in check.tensors.values()} == {0}
    assert len(check.tensors) == 8
    assert check.onnx_difference == 0.0
    assert check.torch_difference is not None
    assert check.torch_difference < MOST_APART
    assert check.largest_shift < 1e-6
    assert (check.not_in_log, check.no_bundle) == (0, 0)


def test_the_log_is_read_by_its_settings_and_only_what_was_served(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = point_in_time.RequestTables.read
    rows: list[int] = []

    def counted(tables: point_in_time.RequestTables, first: int, last: int) -> Any:
        rows.append(last - first)
        return read(tables, first, last)

    monkeypatch.setattr(point_in_time.RequestTables, "read", counted)
    assert world.check(world.served[7]).requests == 1
    assert rows == [1]
    small = replace(world.features, offline_memory_gb=0.001)
    with pytest.raises(MistakeError, match="offline_memory_gb"):
        replace(world, features=small).check(world.served[7])


def test_a_lagging_history_is_found_with_its_effect(world: World) -> None:
    request = world.served[-1]
    history = request.tensors["history_item_rows"].copy()
    assert history[0, -1] != 0
    history[0, 1:], history[0, 0] = history[0, :-1].copy(), 0  # without its newest
    tensors = {**request.tensors, "history_item_rows": history}
    check = world.check(world.served[0], replace(request, tensors=tensors))
    differing = {name: each.requests for name, each in check.tensors.items()}
    assert differing.pop("history_item_rows") == 1
    assert set(differing.values()) == {0}
    # The logged score is not the bundle's score of these tensors, either.
    assert check.onnx_difference > 0.0


def test_a_counter_of_a_shown_item_counts_and_of_another_does_not(world: World) -> None:
    request = world.served[3]
    for place, is_found in ((0, True), (4, False)):
        features = request.tensors["candidate_features"].copy()
        features[0, place, 0] += 1.0
        tensors = {**request.tensors, "candidate_features": features}
        check = world.check(replace(request, tensors=tensors))
        assert check.tensors["candidate_features"].requests == is_found
        differing = {name for name, each in check.features.items() if each.requests}
        assert differing == ({"item_click_rate_0.25h"} if is_found else set())
        assert check.tensors["candidate_features"].largest == pytest.approx(
            float(is_found), abs=1e-6
        )


def test_requests_that_were_not_shown_or_have_a_lost_bundle_are_counted(
    world: World,
) -> None:
    first, second, third = world.served[:3]
    check = world.check(
        first,
        replace(second, request_id="never shown"),
        replace(third, model_version="v999"),
    )
    assert (check.requests, check.not_in_log, check.no_bundle) == (1, 1, 1)
    assert check.rescored == 2


def test_weights_of_another_model_are_not_held_to_the_settings(world: World) -> None:
    wider = replace(world.config.model, width=2 * world.config.model.width)
    check = world.check(world.served[0], config=replace(world.config, model=wider))
    assert check.torch_difference is None
    assert check.onnx_difference == 0.0
