"""The periodic refresh, from event log to serving bundle: the recipe, top to bottom.

In: the raw event log, items' profiles, and the bundles so far. Out: a bundle in
``bundles_dir``, and a report that says whether it passed its gates. The caller promotes it:
no Triton here. After a kill at any step the next run resumes.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from srp4ctr.atomic_files import sync_folder
from srp4ctr.features.bundles import bundle, rule_results
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.features.bundles.gates import Gate, failed
from srp4ctr.features.bundles.rule_results import RuleResult
from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.config import StreamConfig
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset import cache
from srp4ctr.training.dataset.build import write_training_set
from srp4ctr.training.dataset.cache import TrainingSet
from srp4ctr.training.evaluation import champion, full_catalogue, rules
from srp4ctr.training.evaluation.champion import EarlierBundle, NoBundle
from srp4ctr.training.evaluation.evaluate import Evaluation, Scored, evaluate
from srp4ctr.training.evaluation.full_catalogue import CatalogueRanks
from srp4ctr.training.export import bundle_writer
from srp4ctr.training.export.bundle_writer import unfinished
from srp4ctr.training.export.retrieval import Pretrained
from srp4ctr.training.loop.distributed import ALONE, Processes, cpu_threads
from srp4ctr.training.loop.progress import (
    Clock,
    MlflowRun,
    ProgressListener,
    logging_to,
    silent,
)
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.refresh import reports, stages
from srp4ctr.training.refresh.reports import RefreshOutcome, RefreshReport
from srp4ctr.training.refresh.stages import Training

CURVES = "logs"  # next to the bundles: learning curves for ``tensorboard --logdir``


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshOptions:
    """The environment of one refresh."""

    for_promotion: bool = False
    """Whether the caller, or another process, promotes a bundle that passed its gates."""
    serving: Path | None = None
    """The folder of the bundle that serves now."""
    from_scratch: bool = False
    """Start without an earlier bundle."""
    force: bool = False
    """Train even if the newest bundle was trained on all there is."""
    progress: ProgressListener = silent
    processes: Processes = ALONE
    """The processes that train: the first calls ``refresh``, the others ``run_worker``."""
    notes: tuple[str, ...] = ()
    """For the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comparisons:
    """A new bundle compared with the serving one, and with one-line rules."""

    gates: tuple[Gate, ...]
    rules: tuple[RuleResult, ...] = ()


def refresh(
    config: RefreshConfig,
    features: FeatureConfig,
    streams: StreamConfig,
    options: RefreshOptions | None = None,
) -> RefreshReport:
    """Return the report of the bundle that ``refreshed`` yields; raises as it does."""
    with refreshed(config, features, streams, options) as report:
        return report


@contextmanager
def refreshed(
    config: RefreshConfig,
    features: FeatureConfig,
    streams: StreamConfig,
    options: RefreshOptions | None = None,
) -> Iterator[RefreshReport]:
    """Train a model on the log's new events, and yield the report of its bundle.

    A caller that promotes the bundle does it within the block: until the end of it no other
    refresh begins, and MLflow gets the report that the block has written. Raises
    ``OutageError`` with what to do when the log has too little to train on yet, and
    ``RefreshIsRunningError`` while another refresh runs. A killed run is resumed if log and
    recipe are the same.
    """
    options = options or RefreshOptions()
    clock = Clock(options.progress)
    with (
        reports.held(Path(config.bundles_dir)) as note,
        MlflowRun(config.mlflow_uri) as run,
        cpu_threads(config.threads),
    ):
        old = champion.load(options.serving, streams.sequence_length)
        with clock.step("examples"):
            dataset = _dataset(config, features, streams, old)
        training = Training(
            config=config,
            dataset=dataset,
            from_scratch=options.from_scratch,
            processes=options.processes,
            clock=clock,
        )
        report = _made_before(training, options)
        if report is None:
            report = _make_bundle(training, old, options, run, note)
        if report.outcome is not RefreshOutcome.NOTHING_NEW:
            report = replace(report, seconds={**report.seconds, **clock.seconds})
            reports.write(report)
        yield report
        run.keep(report.folder)


def _dataset(
    config: RefreshConfig,
    features: FeatureConfig,
    streams: StreamConfig,
    old: EarlierBundle | NoBundle,
) -> TrainingSet:
    """Return the training set; that of an unfinished refresh, if the log is the same."""
    vocabulary, named = None, ""
    if isinstance(old, EarlierBundle):
        vocabulary = old.vocabulary
        named = f"{old.card.version} {old.card.created_at_ms}"
    return cache.cached(
        unfinished(config) / cache.FOLDER,
        cache.name_of(config, features, streams, named),
        lambda folder: write_training_set(config, features, streams, folder, vocabulary),
    )


def _make_bundle(
    training: Training,
    old: EarlierBundle | NoBundle,
    options: RefreshOptions,
    run: MlflowRun,
    note: str,
) -> RefreshReport:
    """Train, evaluate and export a model; return the report of its bundle.

    ``note`` is of the last refresh, if it was killed.
    """
    config, dataset = training.config, training.dataset
    start = stages.begin(training, options.serving)
    model, parent = start.model, start.parent
    run.begin(bundle.next_version(Path(config.bundles_dir)), _params(config, parent))
    with logging_to(_log_folder(config)) as write:

        def log(name: str, value: float, step: int) -> None:
            write(name, value, step)
            run.log(name, value, step)

        result = stages.train(start, training, log)
        with training.clock.step("judge"):
            evaluation, ranks = _judged(model, result.pretrained, training)
        for name, value in evaluation.metrics.items():
            log(f"judged/{name}", value, 0)
        card = _card(training, evaluation, parent)
        against = _compared(card.version, old, training, evaluation.judged, ranks)
    with training.clock.step("export"):
        card = bundle_writer.export_bundle(
            bundle_writer.Trained(model=model, pretrained=result.pretrained),
            dataset,
            evaluation.judged,
            config,
            _with_comparisons(card, against),
        )
        notes = start.note, result.note, _negatives(training), *dataset.notes, note
        report = _with_rules(_report(card, notes, options, config), against.rules)
        _publish(report, config)
    return report


def _judged(
    model: SRP4CTR, pretrained: Pretrained | None, training: Training
) -> tuple[Evaluation, CatalogueRanks | None]:
    """Evaluate ``model`` on slates, and of sampled ones over the whole catalogue, too."""
    ranks = full_catalogue.judge(model, pretrained, training.dataset)
    evaluation = evaluate(model, training.dataset.parts, training.config)
    return full_catalogue.with_metrics(evaluation, ranks), ranks


def _card(
    training: Training, evaluation: Evaluation, parent: EarlierBundle | None
) -> BundleManifest:
    """Return the manifest of a new bundle, before its export."""
    dataset = training.dataset
    trained_from = int(dataset.parts.train.request_at_ms[0])
    if parent:  # it was trained on earlier requests, too
        trained_from = min(trained_from, parent.card.window_start_ms)
    return BundleManifest(
        version=bundle.next_version(Path(training.config.bundles_dir)),
        created_at_ms=time.time_ns() // 1_000_000,
        sizes={},
        window_start_ms=trained_from,
        window_end_ms=int(dataset.parts.judge.request_at_ms[-1]),
        boundary_ms=dataset.boundary_ms,
        calibration_scale=evaluation.calibration.scale,
        calibration_bias=evaluation.calibration.bias,
        metrics=evaluation.metrics,
        counts=dataset.counts,
        gates=evaluation.gates,
        parent=parent.card.version if parent else "",
        negatives=dataset.negatives,
        threads=torch.get_num_threads(),
        recipe=training.recipe,
    )


def _negatives(training: Training) -> str:
    """Return whether negatives are sampled, and why; "" where they never are."""
    if training.config.negatives == "impressions":
        return ""
    labels, enough = training.dataset.counts["labels"], training.config.enough_labels
    if training.dataset.negatives == "sampled":
        return f"{bundle.SAMPLED_NOTE} ({labels:,} of {enough:,} labels)"
    return f"no negatives are sampled: there are {labels:,} labels, {enough:,} are enough"


def _params(config: RefreshConfig, parent: EarlierBundle | None) -> dict[str, Any]:
    """Return the settings of the refresh by name, and its parent."""
    given = asdict(config)
    model = {f"model.{name}": value for name, value in given.pop("model").items()}
    return given | model | {"parent": parent.card.version if parent else "none"}


def _publish(report: RefreshReport, config: RefreshConfig) -> None:
    """Move the exported bundle with its ``report`` to its place; drop the checkpoints."""
    folder = bundle_writer.staged(config, report.version)
    reports.write(replace(report, folder=folder))
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)
    folder.rename(report.folder)
    sync_folder(report.folder.parent)
    shutil.rmtree(folder.parent, ignore_errors=True)


def _report(
    card: BundleManifest,
    notes: tuple[str, ...],
    options: RefreshOptions,
    config: RefreshConfig,
) -> RefreshReport:
    """Return the report of a new bundle, before any promotion."""
    threads = f"threads of the CPU: {card.threads} (training.threads)"
    passed = RefreshOutcome.READY if options.for_promotion else RefreshOutcome.KEPT
    return RefreshReport(
        version=card.version,
        folder=Path(config.bundles_dir) / card.version,
        outcome=RefreshOutcome.REFUSED if failed(card.gates) else passed,
        gates=card.gates,
        parent=card.parent,
        notes=tuple(each for each in (*notes, *options.notes, threads) if each),
        metrics=card.metrics,
        cost=card.cost,
        counts=card.counts,
    )


def _with_comparisons(card: BundleManifest, found: _Comparisons) -> BundleManifest:
    metrics = {**card.metrics, **rule_results.metrics(found.rules)}
    return replace(card, metrics=metrics, gates=card.gates + found.gates)


def _with_rules(report: RefreshReport, results: tuple[RuleResult, ...]) -> RefreshReport:
    """Return ``report`` with the ``results`` of rules, and a note of those that win."""
    notes = (*report.notes, *rule_results.notes(results))
    return replace(report, notes=notes, rules=results)


def _log_folder(config: RefreshConfig) -> Path:
    """Return the folder of this refresh's curves, named as its bundle."""
    bundles = Path(config.bundles_dir)
    return bundles / CURVES / bundle.next_version(bundles)


def _compared(
    version: str,
    old: EarlierBundle | NoBundle,
    training: Training,
    judged: Scored,
    ranks: CatalogueRanks | None,
) -> _Comparisons:
    """Compare bundle ``version``, which made ``judged``, on the judged requests.

    With sampled negatives rules compare by ``ranks``, over the whole catalogue.
    """
    dataset, config = training.dataset, training.config
    champions = champion.rescored(old, dataset.champion_judge)
    if isinstance(champions, NoBundle):
        before = old.card.gates if isinstance(old, EarlierBundle) else ()
        against = champion.skip(champions.reason, before)
    else:
        assert isinstance(old, EarlierBundle)
        served, tolerance = old.card, config.champion_tolerance
        against = champion.compare(
            served.version, champions, judged, tolerance, served.gates
        )
    if dataset.rule_inputs is None:
        of_catalogue = full_catalogue.results(ranks) if ranks is not None else ()
        gate = rules.gate(version, of_catalogue)
        return _Comparisons(gates=(*against, gate), rules=of_catalogue)
    slates = dataset.parts.judge
    columns = dataset.vocabulary.candidate_columns.layout.names
    numbers = rules.numbers_of(slates, columns)
    every = rules.rules_of(slates, dataset.rule_inputs, numbers)
    results = rules.compare(every, slates.shown, judged)
    serving = None
    if isinstance(champions, Scored):
        served_results = rules.compare(every, slates.shown, champions)
        serving = rules.Champion(
            version=served.version, results=served_results, gates=against
        )
    gate = rules.gate(version, results, serving)
    return _Comparisons(gates=(*against, gate), rules=results)


def _made_before(training: Training, options: RefreshOptions) -> RefreshReport | None:
    """Return the report of the newest bundle if it is whole and of the same recipe.

    Its outcome is ``READY`` if it still waits for the promotion of this refresh, else
    ``NOTHING_NEW``. None where a bundle is to be trained.
    """
    bundles = bundle.list_bundles(Path(training.config.bundles_dir))
    report = None
    with suppress(ValueError):  # damaged, or of an older schema
        if bundles and bundle.verify(bundles[-1]).recipe == training.recipe:
            report = reports.read(bundles[-1])
    if report is None or options.force:
        return None
    stages.release_workers(options.processes)
    shutil.rmtree(unfinished(training.config), ignore_errors=True)
    if report.outcome is RefreshOutcome.READY and options.for_promotion:
        return report
    return replace(report, outcome=RefreshOutcome.NOTHING_NEW)
