"""The periodic refresh, from event log to serving bundle: the recipe, top to bottom.

In: the raw event log, items' profiles, and the bundles so far. Out: a bundle in
``bundles_dir``, promoted if it passes its gates, and a report. Nothing here knows Triton:
promotion is a callable that takes a folder. Killed at any step, the next run goes on.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from features import bundle
from features.config import FeatureConfig
from features.gates import Gate, failed
from streams.config import StreamConfig
from training import bundling, champion, lock, reports, warm_start
from training.bundling import UNFINISHED, Origin
from training.champion import Champion
from training.config import RefreshConfig
from training.finetuning import STAGE as FINETUNE
from training.finetuning import finetune
from training.fitting import FitOptions
from training.judging import Scored, judge
from training.model.embeddings import TableSizes
from training.model.srp4ctr import SRP4CTR
from training.pretraining import STAGE as PRETRAIN
from training.pretraining import pretrain
from training.progress import ProgressListener, silent
from training.reports import Outcome, RefreshReport
from training.training_set import TrainingSet, read_training_set
from training.warm_start import Parent

PRETRAINING_SHARE = (
    0.5  # of ``max_seconds``: at the default epochs both stages take as long
)


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


@dataclass(slots=True)
class _Clock:
    """Announces steps and keeps the seconds that each took."""

    progress: ProgressListener
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Announce ``name`` as a step of one unit, and time it."""
        self.progress(name, 0, 1)
        with self.timed(name):
            yield
        self.progress(name, 1, 1)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time a step that announces itself."""
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began


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
    clock = _Clock(options.progress)
    with lock.held(Path(config.bundles_dir)) as note:
        rival = champion.load(options.serving, streams.sequence_length)
        with clock.step("examples"):
            words = rival.words if isinstance(rival, Champion) else None
            lengths = streams.sequence_length, streams.exposure_length
            lessons = read_training_set(config, features, lengths[0], words, lengths[1])
        recipe = _recipe(config, lessons, options.from_scratch)
        report = _made_before(config, recipe)
        if report is None or options.force:
            task = _Task(
                config=config,
                lessons=lessons,
                rival=rival,
                recipe=recipe,
                options=options,
                clock=clock,
            )
            report = _make_bundle(task, note)
        elif report.outcome is not Outcome.READY or options.promote is None:
            return replace(report, outcome=Outcome.NOTHING_NEW)
        if report.outcome is Outcome.READY and options.promote is not None:
            with clock.step("promote"):
                report = reports.with_promotion(report, options.promote(report.folder))
        report = replace(report, seconds={**report.seconds, **clock.seconds})
        reports.write(report)
        return report


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What one new bundle is made from."""

    config: RefreshConfig
    lessons: TrainingSet
    rival: Champion | str
    """The bundle that serves, or why there is none to compare with."""
    recipe: str
    options: RefreshOptions
    clock: _Clock


def _make_bundle(task: _Task, note: str) -> RefreshReport:
    """Train, judge and export a model; return the report of its bundle."""
    config, lessons = task.config, task.lessons
    model, parent, start = _begin(task)
    _train(model, parent, task)
    with task.clock.step("judge"):
        verdict = judge(model, lessons.parts, config)
        against = _champion_gates(task, verdict.judged)
        verdict = replace(verdict, gates=verdict.gates + against)
    with task.clock.step("export"):
        origin = Origin(
            recipe=task.recipe,
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
            notes=tuple(each for each in (start, note) if each),
            metrics=card.metrics,
            cost=card.cost,
            counts=card.counts,
        )
        bundling.publish(report, config)
    return report


def _begin(task: _Task) -> tuple[SRP4CTR, Parent | None, str]:
    """Return the model to train, the bundle that it goes on from, and why so."""
    config, words = task.config, task.lessons.words
    length = task.lessons.windows.tensors["history_item_rows"].shape[1]
    sizes = TableSizes.of(words, length)
    torch.manual_seed(config.seed)
    model = SRP4CTR(config.model, sizes).to(_device(config.device))
    if task.options.from_scratch:
        return model, None, "from scratch, as asked"
    bundles = bundle.list_bundles(Path(config.bundles_dir))
    parent = warm_start.find_parent(bundles, task.lessons, task.options.serving)
    if isinstance(parent, str):
        return model, None, f"from scratch: {parent}"
    try:
        return model, parent, warm_start.carry_over(model, words, parent)
    except ValueError as error:
        return model, None, f"from scratch: {error}"


def _train(model: SRP4CTR, parent: Parent | None, task: _Task) -> None:
    """Train ``model`` in both stages, resuming from their checkpoints."""
    config, lessons = task.config, task.lessons
    if parent is not None:
        lessons = warm_start.since(lessons, parent.card.boundary_ms, config)
        config = warm_start.shortened(config)
    recipe = f"{task.recipe} {parent.card.version if parent else ''}"
    options = FitOptions(recipe=recipe, progress=task.clock.progress)
    pretraining_share = 0.0 if config.pretraining == "none" else PRETRAINING_SHARE
    shares = {PRETRAIN: pretraining_share, FINETUNE: 1.0 - pretraining_share}
    for stage, share in shares.items():
        seconds = None if config.max_seconds is None else share * config.max_seconds
        file = Path(config.bundles_dir) / UNFINISHED / f"{stage}.safetensors"
        own = replace(options, checkpoint=file, seconds=seconds)
        with task.clock.timed(stage):
            if stage == FINETUNE:
                finetune(model, lessons.parts.train, config, own)
            elif parent is None:
                pretrain(model, lessons.windows, config, own)
            else:
                with warm_start.kept_candidate_stream(model):
                    pretrain(model, lessons.windows, config, own)


def _champion_gates(task: _Task, judged: Scored) -> tuple[Gate, ...]:
    slates = task.lessons.champion_judge
    if isinstance(task.rival, str):
        return champion.none(task.rival)
    assert slates is not None  # cut with the champion's vocabulary
    return champion.compare(task.rival, slates, judged, task.config.champion_tolerance)


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


def _recipe(config: RefreshConfig, lessons: TrainingSet, from_scratch: bool) -> str:
    """Return a digest of what may not differ if a checkpoint is to be resumed."""
    own = replace(config, bundles_dir="", max_gpu_memory_share=1.0, niceness=0)
    length = lessons.windows.tensors["history_item_rows"].shape[1]
    lengths = length, lessons.exposure_length
    described = repr((own, from_scratch, lengths, lessons.counts))
    digest = hashlib.sha256(described.encode())
    for array in (lessons.parts.train.request_at_ms, lessons.parts.train.clicked):
        digest.update(array.tobytes())
    digest.update(repr(lessons.words.item_fields).encode())
    digest.update(lessons.words.item_keys.tobytes())
    return digest.hexdigest()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
