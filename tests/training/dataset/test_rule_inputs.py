"""What rules need of the judged slates is what a loop over the log's events counts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import item_key
from srp4ctr.testing.raw_logs import Published, write_log
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset import build, cache, examples
from srp4ctr.training.dataset.build import write_training_set
from srp4ctr.training.dataset.cache import TrainingSet
from tests.builders import NOON_MS, a_behavior, a_click, an_impression
from tests.training.logs import a_label

STREAMS = StreamConfig(sequence_length=6)
CONFIG = RefreshConfig(held_out_share=0.5, min_item_count=1)
HOUR_MS = 3_600_000
ITEMS = tuple(f"i{n}" for n in range(6))


@dataclass(frozen=True)
class Act:
    """A click or view, and when it was known."""

    user: str
    item: str
    at_ms: int
    known_ms: int
    is_click: bool


def visits() -> tuple[list[Published], list[Act]]:
    """Return events of 60 visits of three users, every hour, of one to four items.

    Each second one was ordered by a model; some clicks are known five hours late.
    """
    random = np.random.default_rng(0)
    published: list[Published] = []
    acts: list[Act] = []
    for visit in range(60):
        user, request = f"u{visit % 3}", f"r{visit}"
        at_ms = NOON_MS + visit * HOUR_MS
        mine = {"user_id": user, "request_id": request}
        by_model = {"model_version": "v7"} if visit % 2 else {}
        context = {"page": "home", **({"newest": "yes"} if visit > 55 else {})}
        shown = random.permutation(6)[: 1 + visit % 4].tolist()
        for position, number in enumerate(shown):
            item, is_click = ITEMS[number], bool(random.random() < 0.4)
            place = {"position": position, "context": context}
            shown_event = an_impression(item, at_ms=at_ms, **place, **mine, **by_model)
            published.append((shown_event, at_ms))
            late_ms = int(random.choice([0, 5 * HOUR_MS]))
            act = Act(user, item, at_ms + 10, at_ms + 10 + late_ms, is_click)
            acts.append(act)
            event = (
                a_click(item, at_ms=act.at_ms, **mine)
                if is_click
                else a_behavior(item, at_ms=act.at_ms, user_id=user)
            )
            published.append((event, act.known_ms))
            label = a_label(
                request, user, item, clicked=is_click, at_ms=at_ms, position=position
            )
            published.append((label, at_ms + 20_000))
    published.sort(key=lambda each: each[1])
    return published, acts


@pytest.fixture(scope="module")
def acts() -> list[Act]:
    return visits()[1]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureConfig:
    from srp4ctr.features.online import feast_store

    folder = tmp_path_factory.mktemp("visits")
    config = FeatureConfig(
        registry=str(folder / "registry.db"), log_dir=str(folder / "events")
    )
    write_log(folder / "events", visits()[0])
    feast_store.apply(config)
    return config


def cut(features: FeatureConfig, folder: Path) -> TrainingSet:
    return cache.cached(
        folder, "", lambda into: write_training_set(CONFIG, features, STREAMS, into)
    )


def test_the_inputs_are_those_of_a_loop_over_the_events(
    features: FeatureConfig, acts: list[Act], tmp_path: Path
) -> None:
    dataset = cut(features, tmp_path / "examples")
    slates, inputs = dataset.parts.judge, dataset.rule_inputs
    assert inputs is not None
    names = {int(dataset.vocabulary.item_rows(item_key(i))): i for i in ITEMS}
    assert len(inputs.ranked) == len(slates) == 15
    for row, slate in enumerate(slates.tensors["candidate_item_rows"].tolist()):
        at_ms = int(slates.request_at_ms[row])
        visit = (at_ms - NOON_MS) // HOUR_MS
        assert inputs.ranked[row] == bool(visit % 2)
        assert len([item for item in slate if item]) == 1 + visit % 4
        known = [act for act in acts if act.known_ms < at_ms]
        own = [act for act in known if act.user == str(slates.user_ids[row])]
        own = sorted(own, key=lambda act: (act.at_ms, item_key(act.item)))[-6:]
        for column, item_row in enumerate(slate):
            name = names.get(item_row)
            clicks = [at_ms - a.at_ms for a in known if a.item == name and a.is_click]
            touched = [act.at_ms for act in own if act.item == name]
            found = {n: int(getattr(inputs, n)[row, column]) for n in WHAT}
            assert found == {
                "clicks_2h": sum(ago <= 2 * HOUR_MS for ago in clicks),
                "clicks_24h": sum(ago <= 24 * HOUR_MS for ago in clicks),
                "clicks_all": len(clicks),
                "touched_ms": max(touched, default=0),
                "touches": len(touched),
            }
            assert (inputs.first_seen_ms[row, column] > 0) == (name is not None)


def test_the_vocabulary_has_the_context_fields_of_the_training_window(
    features: FeatureConfig, tmp_path: Path
) -> None:
    """A field that only held-out requests have is unknown to the model."""
    assert cut(features, tmp_path).vocabulary.context_fields == ("page",)


WHAT = ("clicks_2h", "clicks_24h", "clicks_all", "touched_ms", "touches")


def test_long_slates_are_cut_as_the_slates_are(
    features: FeatureConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "MAX_SLATE", 2)
    monkeypatch.setattr(build, "REQUESTS_AT_ONCE", 7)
    dataset = cut(features, tmp_path / "examples")
    inputs = dataset.rule_inputs
    assert inputs is not None
    assert inputs.clicks_all.shape == dataset.parts.judge.clicked.shape
    visit = (dataset.parts.judge.request_at_ms - NOON_MS) // HOUR_MS
    np.testing.assert_array_equal(inputs.ranked, visit % 2 == 1)


def test_a_refresh_that_resumes_reads_them_again(
    features: FeatureConfig, tmp_path: Path
) -> None:
    first = cut(features, tmp_path / "examples").rule_inputs
    again = cache.read(tmp_path / "examples")
    assert again is not None
    assert first is not None
    assert again.rule_inputs is not None
    assert isinstance(again.rule_inputs.clicks_2h, np.memmap)
    np.testing.assert_array_equal(again.rule_inputs.clicks_2h, first.clicks_2h)
