"""What the compared models read, and what the published sources hold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.models import history_columns, trees
from benchmarks.models.baselines import BASELINES
from benchmarks.quality.clicks import collm, kuairand
from benchmarks.quality.clicks.click_examples import Examples
from benchmarks.quality.clicks.click_sources import (
    of_collm,
    of_collm_validation,
    of_kuairand_validation,
)
from benchmarks.quality.clicks.variants import VARIANTS, ModelVariant, TrainingTask
from srp4ctr.features.tensors.schema import Field
from srp4ctr.streams.events.schema import Click, Impression
from srp4ctr.testing import ebnerd
from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.dataset.batches import slate_batch
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR


def test_trees_read_the_attributes_that_differ(examples: Examples) -> None:
    columns = trees.columns_of(examples.train)
    assert [name for name, _ in columns.attributes] == ["candidate_attribute_rows"]
    colours = columns.table(examples.judge).iloc[:, -1]
    assert str(colours.dtype) == "category"
    assert colours.nunique() == 2


def test_history_columns_count_actions_and_what_matches(examples: Examples) -> None:
    part = examples.judge
    reader = history_columns.columns_of(part)
    columns = reader.of(part)
    assert len(columns) == part.slates.shown.sum()
    tensors, matching = part.slates.tensors, 0
    for number, (request, place) in enumerate(np.argwhere(part.slates.shown)[:20]):
        rows = tensors["history_item_rows"][request]
        attributes = tensors["history_attribute_rows"][request]
        codes = tensors["history_behavior_codes"][request, :, 0]
        own = tensors["candidate_attribute_rows"][request, place]
        is_action = codes[:, None] == reader.actions
        newest = is_action[-history_columns.NEWEST :].sum(0)
        same = (attributes == own) & (own != 0)
        matches = same.any(-1) | (rows == tensors["candidate_item_rows"][request, place])
        actions, slots = len(reader.actions), len(own)
        row = columns[number]
        np.testing.assert_array_equal(row[actions : 2 * actions], newest)
        at = 2 * actions + slots
        np.testing.assert_array_equal(row[at : at + slots], same.sum(0))
        at += slots
        by_action = (is_action & matches[:, None]).sum(0)
        np.testing.assert_array_equal(row[at : at + actions], by_action)
        age = np.arange(len(rows))[::-1]
        weighted = (is_action * history_columns.DECAY ** age[:, None])[rows != 0].sum(0)
        np.testing.assert_allclose(row[:actions], weighted, rtol=1e-6)
        matching += by_action.sum()
    assert matching  # or nothing was tried


def test_users_attributes_change_what_a_baseline_predicts(examples: Examples) -> None:
    field = Field(name="plan", kind="categorical", size=2)
    sizes = replace(examples.sizes, user_fields=(field,))
    batch = slate_batch(
        examples.judge.slates, np.arange(2), np.array([4, 50]), torch.device("cpu")
    )
    for name, build in BASELINES.items():
        model = build(RefreshConfig().model, sizes).eval()
        with torch.no_grad():
            of = [
                model({**batch.tensors, "user_attribute_rows": torch.full((2, 1), row)})
                for row in (2, 3)
            ]
        assert not torch.equal(*(each.click for each in of)), name


@pytest.mark.skipif(
    not (ebnerd.DATA / kuairand.FOLDER).is_dir(), reason="needs KuaiRand-Pure"
)
def test_no_outcome_of_kuairand_is_known_when_the_video_is_shown() -> None:
    source = of_kuairand_validation()
    shown = {
        (event.request_id, event.item_id): event.occurred_at
        for event in source.events
        if isinstance(event, Impression)
    }
    waits = [
        event.occurred_at - shown[event.request_id, event.item_id]
        for event in source.events
        if isinstance(event, Click)
    ]
    assert min(waits) >= 0
    assert np.median(waits) == kuairand.CLICK_MS
    assert source.events[-1].occurred_at < kuairand.judged_from_ms(
        ebnerd.DATA / kuairand.FOLDER
    )


@pytest.mark.skipif(not (ebnerd.DATA / collm.FOLDER).is_dir(), reason="needs CoLLM's files")
def test_collm_has_all_its_rows() -> None:
    source = of_collm()
    shown = [event for event in source.events if isinstance(event, Impression)]
    assert len(shown) == 33_891 + 10_401 + 7_331
    assert source.judged_from_ms
    assert sum(each.occurred_at >= source.judged_from_ms for each in shown) == 7_331


@pytest.mark.skipif(not (ebnerd.DATA / collm.FOLDER).is_dir(), reason="needs CoLLM's files")
def test_a_recipe_is_chosen_on_collms_validation_set_without_its_test() -> None:
    source = of_collm_validation()
    shown = [event for event in source.events if isinstance(event, Impression)]
    assert len(shown) == 33_891 + 10_401
    assert source.judged_from_ms
    assert sum(each.occurred_at >= source.judged_from_ms for each in shown) == 10_401


def test_what_is_not_pretrained_begins_as_what_is(examples: Examples) -> None:
    """Its candidates' layers are the encoder's too, so that they differ in that alone."""
    begun: list[SRP4CTR] = []

    def build(config: ModelConfig, sizes: TableSizes) -> SRP4CTR:
        begun.append(SRP4CTR(config, sizes))
        return begun[-1]

    config = replace(RefreshConfig(), finetune_epochs=0, pretraining="none")
    task = TrainingTask(examples=examples, config=config, pretrained_dir=Path())
    for each in (VARIANTS["srp4ctr-none"], VARIANTS["srp4ctr-feedback"]):
        assert isinstance(each, ModelVariant)
        replace(each, build=build, learns_feedback=False).learn(task)
        begins = [
            [layer.state_dict()["query.weight"] for layer in part.layers]
            for part in (begun[-1].cross_attention, begun[-1].encoder)
        ]
        assert all(map(torch.equal, *begins))
