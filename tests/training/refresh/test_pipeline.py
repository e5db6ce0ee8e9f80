import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from safetensors.numpy import load_file

from srp4ctr.errors import OutageError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.gates import failed
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.tensors import vocabulary
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import UserEvent, item_key
from srp4ctr.testing.raw_logs import write_log
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset import cache
from srp4ctr.training.dataset.build import write_training_set
from srp4ctr.training.export import onnx_export
from srp4ctr.training.export.bundle_writer import GOLDEN_REQUESTS, UNFINISHED
from srp4ctr.training.loop import trainer
from srp4ctr.training.loop.distributed import ALONE
from srp4ctr.training.loop.progress import Clock, silent
from srp4ctr.training.model.transformer import NUM_POOLED
from srp4ctr.training.refresh import reports
from srp4ctr.training.refresh.pipeline import RefreshOptions, refresh, refreshed
from srp4ctr.training.refresh.reports import RefreshIsRunningError, RefreshOutcome
from srp4ctr.training.refresh.stages import Training
from tests.builders import NOON_MS, a_behavior, an_impression, an_item
from tests.training.logs import write_hits, write_world

STREAMS = StreamConfig(sequence_length=6)
FOR_PROMOTION = RefreshOptions(for_promotion=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> FeatureConfig:
    """Six users, each of whom clicks on one colour."""
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def config(recipe: RefreshConfig, tmp_path: Path) -> RefreshConfig:
    """A recipe that fits the world in two seconds, and gates that it passes."""
    return replace(
        recipe,
        bundles_dir=str(tmp_path / "bundles"),
        finetune_epochs=25,
        finetune_learning_rate=1e-2,
        held_out_share=0.3,
        max_calibration_error=0.9,
    )


def test_a_refresh_writes_a_whole_bundle_and_locks_out_others_until_it_is_promoted(
    world: FeatureConfig, config: RefreshConfig
) -> None:
    with refreshed(config, world, STREAMS, FOR_PROMOTION) as report:
        assert reports.read(report.folder) == report
        with pytest.raises(RefreshIsRunningError), reports.held(Path(config.bundles_dir)):
            pass
    assert bundle.verify(report.folder).metrics == report.metrics
    assert report.version == "v1"
    assert report.outcome is RefreshOutcome.READY
    assert report.refusals == ()
    assert report.metrics["auc"] > 0.7  # the users' colours are there to be found
    assert report.counts["impressions"] == 6 * 12 * 4
    assert bundle.verify(report.folder).threads == config.threads == 1
    assert "threads of the CPU: 1 (training.threads)" in report.notes
    assert set(report.seconds) >= {"examples", "pre-train", "fine-tune", "export"}
    assert not (Path(config.bundles_dir) / UNFINISHED).exists()


def test_the_recipe_differs_where_the_examples_do(
    world: FeatureConfig, config: RefreshConfig, tmp_path: Path
) -> None:
    """Else the checkpoints of another are resumed, and there is nothing new to train."""
    other = write_world(tmp_path / "other")
    swapped = [an_item("i0", colour="blue"), an_item("i1", colour="red")]
    write_log(Path(other.log_dir), [(each, NOON_MS - 1) for each in swapped], partition=7)
    settings = {
        "as it is": world,
        "again": world,
        "shorter": replace(world, sequence_ttl_days=1e-6),
        "elsewhere": replace(world, utc_offset_minutes=60),
        "others' attributes": other,
    }

    def recipe(folder: Path, threads: int = 1) -> str:
        found = cache.read(folder)
        assert found is not None
        return Training(
            config=replace(config, threads=threads),
            dataset=found,
            from_scratch=False,
            processes=ALONE,
            clock=Clock(silent),
        ).recipe

    recipes = {}
    for name, features in settings.items():
        cut = partial(write_training_set, config, features, STREAMS)
        cache.cached(tmp_path / name, "", cut)
        recipes[name] = recipe(tmp_path / name)
    assert recipes.pop("again") == recipes["as it is"]
    assert len(set(recipes.values())) == len(recipes)
    # A refresh that is too slow resumes with others.
    assert recipe(tmp_path / "as it is", threads=2) == recipes["as it is"]


def test_a_refresh_of_long_histories_pools_the_older_behaviours(
    world: FeatureConfig, config: RefreshConfig
) -> None:
    longer = replace(config, model=replace(config.model, encoded_length=2))
    report = refresh(longer, world, STREAMS)
    assert report.refusals == ()
    assert report.metrics["auc"] > 0.7
    golden = load_file(report.folder / bundle.GOLDEN_FILE)
    assert onnx_export.check(golden, onnx_export.scorer(report.folder)(golden)) < 1e-5
    assert bundle.verify(report.folder).sizes["S"] == 1 + NUM_POOLED + 2


def test_the_golden_requests_are_answered_by_the_exported_files(
    world: FeatureConfig, config: RefreshConfig
) -> None:
    report = refresh(replace(config, finetune_epochs=1, min_auc=0.0), world, STREAMS)
    golden = load_file(report.folder / bundle.GOLDEN_FILE)
    assert onnx_export.check(golden, onnx_export.scorer(report.folder)(golden)) < 1e-5
    assert not golden["history_item_rows"][0].any()
    assert golden["candidate_item_rows"].dtype == np.int64
    items = bundle.read_golden_items(report.folder)
    words = vocabulary.load(report.folder / bundle.VOCABULARY_FILE)
    keys = [item_key(item) for item in items]
    assert 2 < len(set(keys)) == len(keys) <= GOLDEN_REQUESTS
    assert {keys[0], keys[-1]} == {words.item_keys[0], words.item_keys[-1]}
    assert words.is_known(words.item_rows(keys)).all()


def test_a_feed_trains_on_feedback_but_not_from_an_earlier_bundle(
    config: RefreshConfig, tmp_path: Path
) -> None:
    short = replace(config, finetune_epochs=1, min_auc=0.0, min_gauc=0.0)
    notes = {}
    for visits in (5, 10):
        feed = write_world(tmp_path / f"{visits}", users=40, visits=visits, is_feed=True)
        report = refresh(short, feed, STREAMS)
        notes[report.parent] = report.notes
    assert notes.keys() == {"", "v1"}
    has_feedback = {
        parent: any("what users did" in each for each in found)
        for parent, found in notes.items()
    }
    assert has_feedback == {"": True, "v1": False}


def test_a_warm_refresh_takes_the_scales_of_features_from_all_requests(
    config: RefreshConfig, tmp_path: Path
) -> None:
    """Not from the few that are new: its parent's weights are used to the others."""
    short = replace(config, finetune_epochs=1, held_out_share=0.1)
    for visits in (12, 13):
        world = write_world(tmp_path / f"{visits}", visits=visits)
        report = refresh(replace(short, min_auc=0.0, min_gauc=0.0), world, STREAMS)
        # One epoch may fail a gate, and a refused bundle is no parent.
        reports.write(replace(report, outcome=RefreshOutcome.KEPT))
    assert report.parent == "v1"
    cut = partial(write_training_set, short, world, STREAMS)
    train = cache.cached(tmp_path / "examples", "", cut).parts.train
    features = train.tensors["candidate_features"][train.shown]
    found = load_file(report.folder / bundle.WEIGHTS_FILE)["candidate_features.mean"]
    np.testing.assert_allclose(found, features.mean(axis=0), rtol=1e-3, atol=1e-5)


def test_a_bundle_that_fails_a_gate_is_kept_but_not_ready(
    world: FeatureConfig, config: RefreshConfig
) -> None:
    strict = replace(config, finetune_epochs=1, min_auc=2.0)
    report = refresh(strict, world, STREAMS, FOR_PROMOTION)
    assert report.outcome is RefreshOutcome.REFUSED
    assert "at least training.min_auc 2.0" in report.refusals[0]
    assert bundle.verify(report.folder).version == report.version


def test_a_report_shows_one_line_rules_with_the_model(
    world: FeatureConfig, config: RefreshConfig
) -> None:
    report = refresh(config, world, STREAMS)
    shown = {result.rule: result for result in report.rules}
    assert {"popular_2h", "touched_last", "touched_most", "shown_order"} <= shown.keys()
    for result in report.rules:
        assert result.model_gauc == pytest.approx(report.metrics["gauc"])
        assert result.model_ctr_at_1 == pytest.approx(report.metrics["ctr_at_1"])
    [gate] = [each for each in report.gates if each.gate == "rule_of_thumb"]
    assert gate.passed
    difference = report.rules[0].gauc_difference.value
    assert report.metrics["less_best_rule"] == difference
    assert reports.read(report.folder) == report
    page = (report.folder / "report.md").read_text()
    assert "| rule | gAUC | model less rule |" in page
    assert f"| popular_2h | {shown['popular_2h'].gauc:.4g} |" in page


def test_a_model_that_loses_to_a_rule_is_refused_and_replaces_what_loses_too(
    config: RefreshConfig, tmp_path: Path
) -> None:
    """All click on one item, and the model learns nothing."""
    world = write_hits(tmp_path / "hits")
    dull = replace(
        config,
        finetune_epochs=1,
        finetune_learning_rate=1e-9,
        pretrain_epochs=0,
        min_auc=0.0,
        min_gauc=0.0,
        max_calibration_error=9.0,
    )
    first = refresh(dull, world, STREAMS)
    assert "rule_of_thumb" in {gate.gate for gate in failed(first.gates)}
    assert any(note.startswith("the rule ") for note in first.notes)
    options = RefreshOptions(serving=first.folder, from_scratch=True, force=True)
    second = refresh(dull, world, STREAMS, options)
    [gate] = [each for each in second.gates if each.gate == "rule_of_thumb"]
    assert gate.passed
    assert gate.warning
    assert "as v1, which serves, is" in gate.note
    assert "| rule_of_thumb | WARNING |" in (second.folder / "report.md").read_text()


def test_a_refresh_that_was_cut_off_resumes_to_the_same_model(
    world: FeatureConfig, config: RefreshConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "CHECKPOINT_EVERY_S", 0.0)
    short = replace(config, finetune_epochs=4)

    def stop_in_the_middle(step: str, done: int, total: int, note: str = "") -> None:
        if (step, done) == ("fine-tune", 2):
            raise KeyboardInterrupt

    whole = refresh(short, world, STREAMS).folder
    expected = load_file(whole / bundle.WEIGHTS_FILE)
    shutil.rmtree(whole)
    with pytest.raises(KeyboardInterrupt):
        refresh(short, world, STREAMS, RefreshOptions(progress=stop_in_the_middle))
    begun: list[tuple[str, int]] = []

    def listen(step: str, done: int, total: int, note: str = "") -> None:
        begun.append((step, done))

    resumed = refresh(short, world, STREAMS, RefreshOptions(progress=listen)).folder
    assert ("fine-tune", 1) not in begun  # it began where it was
    file = load_file(resumed / bundle.WEIGHTS_FILE)
    assert all(np.array_equal(file[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("negatives", "min_item_count"), [("impressions", 68), ("sampled", 28)]
)
def test_a_log_that_was_imported_twice_trains_the_same_bundle(
    config: RefreshConfig,
    tmp_path: Path,
    negatives: Literal["impressions", "sampled"],
    min_item_count: int,
) -> None:
    short = replace(
        config, negatives=negatives, finetune_epochs=2, min_item_count=min_item_count
    )
    bundles = []
    for imports in (1, 2):
        world = write_world(tmp_path / f"{imports}", users=10, imports=imports)
        into_folder = replace(short, bundles_dir=str(tmp_path / f"bundles-{imports}"))
        bundles.append(refresh(into_folder, world, STREAMS))
    once, twice = (load_file(each.folder / bundle.WEIGHTS_FILE) for each in bundles)
    assert bundles[0].counts == bundles[1].counts
    assert bundles[0].metrics == bundles[1].metrics
    assert bundles[0].counts["items"] == 6, "the others are too rare"
    assert all(np.array_equal(once[name], twice[name]) for name in once)


def test_the_report_names_actions_and_contexts_that_training_confuses(
    config: RefreshConfig, tmp_path: Path
) -> None:
    world = write_world(tmp_path)
    events: list[UserEvent] = [
        a_behavior("i1", action=action, at_ms=NOON_MS + n, event_id=f"n{n}")
        for n, action in enumerate(("wink", "zap2", "skip"))
    ]
    events += [
        an_impression(f"i{n}", request_id="own", position=n, context=context)
        for n, context in enumerate(({"page": "1", "price": "9"}, {"page": "1"}))
    ]
    write_log(Path(world.log_dir), [(e, e.occurred_at) for e in events], 0, 10_000)
    short = replace(config, finetune_epochs=1)
    notes = refresh(short, world, STREAMS).notes
    assert any("wink and zap2 are one action" in note for note in notes)
    assert any("settings.toml wink = 32, zap2 = 33; then" in note for note in notes)
    [note] = [each for each in notes if each.startswith("the context differs")]
    assert note.startswith("the context differs within 1 of 73 requests, in price: ")
    named = replace(world, action_codes={"wink": 32})
    notes = refresh(short, named, STREAMS).notes
    assert not any("wink" in note for note in notes)


def test_an_empty_log_says_what_to_do(tmp_path: Path, config: RefreshConfig) -> None:
    empty = FeatureConfig(log_dir=str(tmp_path), registry=str(tmp_path / "registry.db"))
    with pytest.raises(OutageError, match=r"has 0 \(and 0 clicks\): publish impressions"):
        refresh(config, empty, STREAMS)


def test_too_few_requests_say_how_many_are_needed(
    tmp_path: Path, config: RefreshConfig
) -> None:
    small = write_world(tmp_path, users=2, visits=3)
    with pytest.raises(
        OutageError, match=r"needs 20 requests with matured labels, .* has 6"
    ):
        refresh(config, small, STREAMS)
