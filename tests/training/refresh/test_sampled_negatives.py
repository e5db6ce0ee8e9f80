"""A refresh from clicks only, and how it passes over to impressions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.offline.event_tables import opened
from srp4ctr.features.offline.sampled_slates import with_sampled_slates
from srp4ctr.streams.config import StreamConfig
from srp4ctr.testing.raw_logs import write_log
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset import cache
from srp4ctr.training.evaluation import quality
from srp4ctr.training.refresh import reports
from srp4ctr.training.refresh.pipeline import refresh
from srp4ctr.training.refresh.reports import RefreshOutcome
from tests.builders import NOON_MS, a_click
from tests.training.logs import write_clicks, write_world

STREAMS = StreamConfig(sequence_length=6)
POPULARITY = {"popular_2h", "popular_24h", "popular_all"}


@pytest.fixture
def config(recipe: RefreshConfig, tmp_path: Path) -> RefreshConfig:
    """A recipe with sampled negatives that fits in seconds."""
    return replace(
        recipe,
        bundles_dir=str(tmp_path / "bundles"),
        negatives="sampled",
        finetune_epochs=4,
        finetune_learning_rate=1e-2,
        batch_requests=32,
        held_out_share=0.2,
        max_calibration_error=0.9,
        id_dropout=0.0,
    )


@pytest.fixture(scope="module")
def clicks_only(tmp_path_factory: pytest.TempPathFactory) -> FeatureConfig:
    """The log of ``write_clicks``."""
    return write_clicks(tmp_path_factory.mktemp("clicks"))


def test_clicks_only_train_a_bundle_that_beats_popularity(
    clicks_only: FeatureConfig, config: RefreshConfig
) -> None:
    report = refresh(config, clicks_only, STREAMS)
    card = bundle.verify(report.folder)
    assert (card.negatives, report.counts["labels"]) == ("sampled", 0)
    assert any(note.startswith(bundle.SAMPLED_NOTE) for note in report.notes)
    assert bundle.SAMPLED_NOTE in (report.folder / "report.md").read_text()
    # Its slates were drawn by popularity: they cannot say what a rule is worth.
    assert not {"popularity_auc", "calibration"} & report.metrics.keys()
    gates = {gate.gate: gate for gate in report.gates}
    skipped = ("auc", "gauc", "calibration", "normalised_entropy")
    assert [gates[name].passed for name in skipped] == [None] * 4
    # The whole catalogue can, also for the gate.
    assert {rule.rule for rule in report.rules} == POPULARITY
    assert {rule.metric for rule in report.rules} == {"Hit@10"}
    assert report.metrics["hit_5"] <= report.metrics["hit_10"] <= report.metrics["hit_20"]
    assert {rule.model_gauc for rule in report.rules} == {report.metrics["hit_10"]}
    best = max(report.metrics[f"{rule}_hit_10"] for rule in POPULARITY)
    assert report.metrics["hit_10"] > best
    assert gates["rule_of_thumb"].passed
    assert report.metrics["less_best_rule"] > 0.0
    assert not card.is_calibrated
    assert (card.calibration_scale, card.calibration_bias) == (1.0, 0.0)
    judged = _popularity_auc(clicks_only, card.boundary_ms)
    assert report.metrics["auc"] > judged + 0.05


def _popularity_auc(features: FeatureConfig, boundary_ms: int) -> float:
    """Return the AUC of the number of earlier clicks in the held-out sampled slates."""
    with opened(Path(features.log_dir)) as log:
        log = with_sampled_slates(log)
        slates = log.rows(log.shown.inner_join(log.labels, ("request_id", "item_key")))
        clicks = log.rows(log.events.select("item_key", "occurred_at"))
    times, keys = clicks["occurred_at"].to_numpy(), clicks["item_key"].to_numpy()
    rows = [slate for slate in slates.to_pylist() if slate["occurred_at"] >= boundary_ms]
    clicked = np.array([row["clicked"] for row in rows])
    before = [
        np.sum((keys == row["item_key"]) & (times < row["occurred_at"])) for row in rows
    ]
    return quality.auc(clicked, np.array(before, dtype=np.float64))


def test_with_enough_labels_a_refresh_passes_over_to_impressions(
    config: RefreshConfig, tmp_path: Path
) -> None:
    world = write_world(tmp_path, users=10)  # 480 labels
    first = refresh(replace(config, enough_labels=481), world, STREAMS)
    assert bundle.read(first.folder).negatives == "sampled"
    # So few clicks may fail a gate; a refused bundle is no parent for another reason.
    reports.write(replace(first, outcome=RefreshOutcome.KEPT))
    second = refresh(replace(config, enough_labels=480), world, STREAMS)
    assert bundle.read(second.folder).negatives == "impressions"
    assert second.counts["impressions"] == 480
    assert second.parent == ""
    assert second.notes == (
        "from scratch: v1 was trained with sampled negatives, not with real impressions as"
        " now",
        "no negatives are sampled: there are 480 labels, 480 are enough",
        "threads of the CPU: 1 (training.threads)",
    )


def test_a_log_of_clicks_says_what_it_lacks(
    clicks_only: FeatureConfig, config: RefreshConfig
) -> None:
    with pytest.raises(OutageError, match=r"needs 20 requests .* has 0 \(and 600 clicks\)"):
        refresh(replace(config, negatives="impressions"), clicks_only, STREAMS)


def test_too_few_clicks_say_how_many_are_needed(
    config: RefreshConfig, tmp_path: Path
) -> None:
    clicks = [a_click(f"i{n}", at_ms=NOON_MS + n, event_id=f"e{n}") for n in range(9)]
    write_log(tmp_path, [(click, click.occurred_at) for click in clicks])
    features = FeatureConfig(log_dir=str(tmp_path), registry=str(tmp_path / "r.db"))
    with pytest.raises(OutageError, match=r"needs 20 first clicks .* of 9 clicks"):
        refresh(config, features, STREAMS)


def test_negatives_are_of_one_of_two_kinds(recipe: RefreshConfig) -> None:
    with pytest.raises(MistakeError, match=r"training\.negatives is 'none'"):
        replace(recipe, negatives="none")  # type: ignore[arg-type]


def test_a_training_set_of_other_negatives_has_another_name(
    clicks_only: FeatureConfig, config: RefreshConfig
) -> None:
    of_impressions = replace(config, negatives="impressions")
    names = {
        cache.name_of(each, clicks_only, STREAMS, "") for each in (config, of_impressions)
    }
    assert len(names) == 2
