"""The periodic refresh, from event log to serving bundle: the recipe, top to bottom.

In: the raw event log, items' profiles, and the bundles so far. Out: a bundle in
``bundles_dir``, promoted if it passes its gates, and a report. Nothing here knows Triton:
promotion is a callable that takes a folder. Killed at any step, the next run goes on.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from srp4ctr.features import bundle
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.gates import Gate, failed
from srp4ctr.streams.config import StreamConfig
from srp4ctr.training import (
    bundling,
    champion,
    example_files,
    lock,
    reports,
    stages,
)
from srp4ctr.training.bundling import Origin, unfinished
from srp4ctr.training.champion import Champion
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.judging import Scored, judge
from srp4ctr.training.parallel import ALONE, Processes
from srp4ctr.training.progress import Clock, ProgressListener, logging_to, silent
from srp4ctr.training.reports import Outcome, RefreshReport
from srp4ctr.training.stages import Training
from srp4ctr.training.training_set import TrainingSet, read_training_set
from srp4ctr.training.warm_start import Parent


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshOptions:
    """What surrounds one refresh."""

    promote: Callable[[Path], tuple[Gate, ...]] | None = None
    """Serves the bundle in a folder, and returns what it checked; None: nobody does."""
    serving: Path | None = None
    """The folder of the bundle that serves now."""
    from_scratch: bool = False
    """Do not go on from an earlier bundle."""
    force: bool = False
    """Train even if the newest bundle has learnt all there is."""
    progress: ProgressListener = silent
    processes: Processes = ALONE
    """Those that train together: the first calls ``refresh``, the others ``follow``."""


def refresh(
    config: RefreshConfig,
    features: FeatureConfig,
    streams: StreamConfig,
    options: RefreshOptions | None = None,
) -> RefreshReport:
    """Train a model on what the event log has new, and promote it if it passes its gates.

    Raises ``ValueError`` with what to do when the log has too little to learn from, and
    ``RefreshIsRunningError`` while another refresh runs. A run that was cut off resumes
    where it was, as long as log and recipe are the same.
    """
    options = options or RefreshOptions()
    clock = Clock(options.progress)
    with lock.held(Path(config.bundles_dir)) as note:
        rival = champion.load(options.serving, streams.sequence_length)
        with clock.step("examples"):
            lessons = _lessons(config, features, streams, rival)
        training = Training(
            config=config,
            lessons=lessons,
            from_scratch=options.from_scratch,
            processes=options.processes,
            clock=clock,
        )
        report = _made_before(config, training.recipe)
        if report is None or options.force:
            report = _make_bundle(_Task(training, rival, options, note))
        else:
            stages.dismiss(options.processes)
            shutil.rmtree(unfinished(config), ignore_errors=True)
            if report.outcome is not Outcome.READY or options.promote is None:
                return replace(report, outcome=Outcome.NOTHING_NEW)
        if report.outcome is Outcome.READY and options.promote is not None:
            with clock.step("promote"):
                report = reports.with_promotion(report, options.promote(report.folder))
        report = replace(report, seconds={**report.seconds, **clock.seconds})
        reports.write(report)
        return report


def _lessons(
    config: RefreshConfig,
    features: FeatureConfig,
    streams: StreamConfig,
    rival: Champion | str,
) -> TrainingSet:
    """Return the training set; that of an unfinished refresh, if the log is the same."""
    lengths = streams.sequence_length, streams.exposure_length
    words, named = None, ""
    if isinstance(rival, Champion):
        words, named = rival.words, f"{rival.card.version} {rival.card.created_at_ms}"
    return example_files.kept(
        unfinished(config) / example_files.FOLDER,
        example_files.name_of(config, features, lengths, named),
        lambda: read_training_set(config, features, lengths[0], words, lengths[1]),
    )


@dataclass(frozen=True, slots=True)
class _Task:
    """What one new bundle is made from."""

    training: Training
    rival: Champion | str
    """The bundle that serves, or why there is none to compare with."""
    options: RefreshOptions
    note: str
    """What a person should know of how it began."""


def _make_bundle(task: _Task) -> RefreshReport:
    """Train, judge and export a model; return the report of its bundle."""
    training = task.training
    config, lessons = training.config, training.lessons
    model, parent, start = stages.begin(training, task.options.serving)
    with logging_to(_log_folder(config)) as log:
        stages.train(model, parent, training, log)
        with training.clock.step("judge"):
            verdict = judge(model, lessons.parts, config)
        for name, value in verdict.metrics.items():
            log(f"judged/{name}", value, 0)
    against = _champion_gates(task, verdict.judged)
    verdict = replace(verdict, gates=verdict.gates + against)
    with training.clock.step("export"):
        origin = Origin(
            recipe=training.recipe,
            parent=parent.card.version if parent else "",
            window_start_ms=_window_start_ms(lessons, parent),
        )
        card = bundling.export_bundle(model, lessons, verdict, config, origin)
        passed = Outcome.KEPT if task.options.promote is None else Outcome.READY
        report = RefreshReport(
            version=card.version,
            folder=Path(config.bundles_dir) / card.version,
            outcome=Outcome.REFUSED if failed(card.gates) else passed,
            gates=card.gates,
            parent=card.parent,
            notes=tuple(each for each in (start, task.note) if each),
            metrics=card.metrics,
            cost=card.cost,
            counts=card.counts,
        )
        bundling.publish(report, config)
    return report


def _log_folder(config: RefreshConfig) -> Path | None:
    """Return where this refresh's curves go: a run has the name of the bundle to be."""
    bundles = Path(config.bundles_dir)
    if not config.tensorboard_dir:
        return None
    return bundles / config.tensorboard_dir / bundle.next_version(bundles)


def _champion_gates(task: _Task, judged: Scored) -> tuple[Gate, ...]:
    training = task.training
    slates = training.lessons.champion_judge
    if isinstance(task.rival, str):
        return champion.none(task.rival)
    assert slates is not None  # cut with the champion's vocabulary
    return champion.compare(task.rival, slates, judged, training.config.champion_tolerance)


def _window_start_ms(lessons: TrainingSet, parent: Parent | None) -> int:
    """Return the earliest request that taught this bundle or those that it came from."""
    own = int(lessons.parts.train.request_at_ms[0])
    return min(own, parent.card.window_start_ms) if parent else own


def _made_before(config: RefreshConfig, recipe: str) -> RefreshReport | None:
    """Return the report of the newest bundle if it is whole and of the same ``recipe``."""
    bundles = bundle.list_bundles(Path(config.bundles_dir))
    try:
        if bundles and bundle.verify(bundles[-1]).recipe == recipe:
            return reports.read(bundles[-1])
    except ValueError:  # damaged, or of an older schema
        pass
    return None
