"""Question: what do SRP4CTR's vectors give a click model of your own, on real clicks?

SRP4CTR learns from the first half of the time before judging begins. Your model, LightGBM
or DCNv2, learns from the other half, with the vectors as they were served to those
requests: of the slates that a model was trained on, its vectors say more than of any other.
Your model on the *whole* time, without vectors, is the baseline that gave no slates away.
EB-NeRD's validation week judges, MovieLens' newest fifth.

A seed's figures are cached, in git too: a run that was ended continues with the next.

    SRP4CTR_DATA=../shared/data python -m benchmarks own_model --data ebnerd movielens
"""

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import RESULTS, parser_of, say
from benchmarks.harness import figures
from benchmarks.harness.runs import (
    TRAINING_CODE,
    cached,
    code_digest,
    digest_of,
    keep,
    restore,
)
from benchmarks.harness.saved_result import merge_rows
from benchmarks.models.downstream_models import (
    LOGIT,
    QUERIES,
    STATES,
    Scorer,
    network,
    trees,
)
from benchmarks.quality.click_quality import QUICK_EVENTS, ROOT, changed
from benchmarks.quality.clicks.click_cutting import examples_of
from benchmarks.quality.clicks.click_examples import (
    PART_ARRAYS,
    SLATE_ARRAYS,
    Examples,
    Part,
    load,
)
from benchmarks.quality.clicks.click_scores import (
    calibrated_figures,
    calibration_of,
    one_score,
)
from benchmarks.quality.clicks.click_sources import read
from benchmarks.quality.clicks.variants import pretrained
from srp4ctr.streams.events.schema import Impression
from srp4ctr.testing.head_vectors import score_with_vectors
from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.dataset.batches import in_order, slate_batch, slate_lengths
from srp4ctr.training.loop.trainer import FitOptions
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.training.objectives.finetuning import SCORING_ROWS, finetune

FILE = RESULTS / "own_model.json"
SEEDS = FILE.with_suffix(".seeds.jsonl")
RUNS = ROOT / "own_model"
CODE = (
    *TRAINING_CODE,
    "benchmarks/quality/clicks/click_scores.py",
    "srp4ctr/testing/head_vectors.py",
    *(
        f"benchmarks/models/{name}.py"
        for name in ("downstream_models", "baseline", "trees")
    ),
)
SETTINGS = {
    "ebnerd": (
        "batch_requests=32",
        "id_dropout=0.95",
        "finetune_epochs=6",
        "pretrain_epochs=8",
        "slate_loss_weight=0.02",
    ),
    "movielens": (),
}
TAUGHT_SHARE = 0.5  # of the time before judging begins teaches SRP4CTR
JUDGED_SHARE = 0.2  # of MovieLens' requests
STOP_SHARE = 0.1  # of your model's slates, the newest, stop and calibrate it
WHOLE_TIME = "nothing, the whole time"
GIVEN: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "the score": (LOGIT,),
    "query vectors": (QUERIES,),
    "candidate states": (STATES,),
    "both": (QUERIES, STATES),
    "both and the score": (QUERIES, STATES, LOGIT),
    WHOLE_TIME: (),
}
GAINED = ("auc", "gauc")
FIGURES = (*GAINED, "log_loss", "calibration")
COLUMNS = {
    "data": "data",
    "model": "model",
    "given": "given",
    "AUC": "auc:.4f",
    "gain": "auc_gain±auc_gain_error:+.4f",
    "gAUC": "gauc:.4f",
    "gain ": "gauc_gain±gauc_gain_error:+.4f",
    "log loss": "log_loss:.4f",
    "p / y": "calibration:.3f",
}
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Slates by time, for your model."""

    learn: Part
    stop: Part
    judge: Part


def main() -> None:
    """Print a table, then one JSON object."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--data", nargs="+", choices=[*SETTINGS], default=["ebnerd"])
    add("--seeds", type=int, default=3)
    add("--quick", action="store_true", help="a part, one seed, an epoch each; not saved")
    options = parser.parse_args()
    torch.set_num_threads(1)
    restore(SEEDS, RUNS)
    rows: list[Row] = []
    for data in options.data:
        config = changed(
            RefreshConfig(bucket_by_length=True, batch_requests=64), SETTINGS[data]
        )
        if options.quick:
            config = replace(config, pretrain_epochs=1, finetune_epochs=1)
        examples, judged_ms = _examples(data, config, options.quick)
        for seed in range(1 if options.quick else options.seeds):
            recipe = replace(config, seed=seed)
            file = _file(data, examples, recipe)
            measured = cached(file, functools.partial(_rows, examples, judged_ms, recipe))
            rows += ({"data": data, **row} for row in measured)
            say(f"{data}, seed {seed}: done")
            if not options.quick:
                keep([file], RUNS, SEEDS)
    means = list(_means(rows))
    print(figures.table(means, COLUMNS))
    if not options.quick:
        merge_rows(means, FILE, ("data",))
    print(json.dumps({"rows": means}))


def _file(data: str, examples: Examples, config: RefreshConfig) -> Path:
    """Return where a seed's figures are cached, by examples, recipe and code."""
    digest = digest_of(examples.digest, config, code_digest(*CODE))
    return RUNS / f"{data}-seed{config.seed}-{digest}.json"


def _examples(data: str, config: RefreshConfig, is_part: bool) -> tuple[Examples, int]:
    """Return slates whose training part ends in the middle, and when judging begins."""
    source = read(data).part(QUICK_EVENTS) if is_part else read(data)
    shown = [e.occurred_at for e in source.events if isinstance(e, Impression)]
    if (judged_ms := source.judged_from_ms) is None:
        judged_ms = int(np.quantile(shown, 1.0 - JUDGED_SHARE))
    before = [at for at in shown if at < judged_ms]
    middle = int(np.quantile(before, TAUGHT_SHARE))
    source = replace(source, name=f"{data}-own", judged_from_ms=middle)
    examples = load(examples_of(source, config, ROOT / "examples"))
    return examples.with_size() if source.is_always_clicked else examples, judged_ms


def _rows(examples: Examples, judged_ms: int, config: RefreshConfig) -> list[Row]:
    """Return a row for each of your models and what it is given, and for SRP4CTR itself."""
    torch.manual_seed(config.seed)
    model = SRP4CTR(config.model, examples.sizes)
    pretrained(model, examples, config, ROOT / "pretrained")
    finetune(model, examples.train.slates, config, FitOptions())

    known = _parts(knowing(model, config.model, examples.judge), judged_ms)
    whole = replace(known, learn=_joined(examples, known.learn))
    found: list[Row] = [{"model": "SRP4CTR", "given": ""}]
    found[0] |= _judged(examples, known, _served)
    for name, learns in (
        ("LightGBM", trees),
        ("DCNv2", functools.partial(network, examples.sizes)),
    ):
        for given, tensors in GIVEN.items():
            parts = whole if given == WHOLE_TIME else known
            scorer = learns(parts.learn, parts.stop, tensors, config)
            row = {"model": name, "given": given}
            found.append(row | _judged(examples, parts, scorer))
    return found


def _served(part: Part) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = part.slates.tensors[LOGIT].astype(np.float32)
    return logits


@torch.no_grad()
def knowing(model: SRP4CTR, config: ModelConfig, part: Part) -> Part:
    """Return ``part`` with what serving would have given: vectors (R, …) and logits."""
    model.eval()
    slates, (count, most) = part.slates, part.slates.clicked.shape
    made: dict[str, NDArray[np.float32]] = {
        QUERIES: np.zeros((count, config.num_queries, config.width), dtype=np.float32),
        STATES: np.zeros((count, most, config.width), dtype=np.float32),
        LOGIT: np.zeros((count, most), dtype=np.float32),
    }
    lengths = slate_lengths(slates)
    device = next(model.parameters()).device
    for rows in in_order(np.lexsort(lengths.T), SCORING_ROWS):
        batch = slate_batch(slates, rows, lengths[rows].max(axis=0), device)
        inputs = {**batch.tensors, **model.encode(batch.tensors)}
        probability, queries, states = score_with_vectors(model, inputs)
        shown = states.shape[1]
        made[QUERIES][rows] = queries.numpy()
        made[STATES][rows, :shown] = states.numpy()
        made[LOGIT][rows, :shown] = torch.logit(probability, eps=1e-6).nan_to_num().numpy()
    return replace(part, slates=replace(slates, tensors={**slates.tensors, **made}))


def _parts(part: Part, judged_ms: int) -> Parts:
    """Return the slates before judging begins in two, by time, and those that judge."""
    judged = int(np.searchsorted(part.slates.request_at_ms, judged_ms))
    stop = round(judged * (1.0 - STOP_SHARE))
    return Parts(
        learn=part.take(slice(0, stop)),
        stop=part.take(slice(stop, judged)),
        judge=part.take(slice(judged, None)),
    )


def _joined(examples: Examples, later: Part) -> Part:
    """Return all slates that your model could learn from, had it given none away."""
    parts = examples.train, examples.calibrate, later
    slates = [each.slates for each in parts]

    def joined(of: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
        return {name: np.concatenate([getattr(x, name) for x in of]) for name in names}

    tensors = {
        name: np.concatenate([slate.tensors[name] for slate in slates])
        for name in examples.train.slates.tensors
    }
    labels = joined(slates, (*SLATE_ARRAYS, "log_draw"))
    whole = replace(later.slates, tensors=tensors, **labels)
    return Part(slates=whole, **joined(parts, PART_ARRAYS))


def _judged(examples: Examples, parts: Parts, score: Scorer) -> Row:
    """Return what the newest slates say of a model, calibrated on those before."""
    stop, judge = parts.stop, parts.judge
    platt = calibration_of(stop, score(stop)[stop.slates.shown])
    logits = score(judge)[judge.slates.shown]
    found = calibrated_figures(examples, judge, one_score(logits), platt)
    return {name: found[name] for name in FIGURES}


def _means(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield a row for each model and what it was given: means, and gains over nothing."""
    by_place: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        by_place.setdefault((row["data"], row["model"], row["given"]), []).append(row)
    for (data, model, given), own in by_place.items():
        bare = by_place.get((data, model, "nothing"), [])
        mean: Row = {"data": data, "model": model, "given": given, "seeds": len(own)}
        for name in FIGURES:
            mean[name] = figures.mean([row[name] for row in own], 4)
        if model != "SRP4CTR" and given != "nothing":
            for name in GAINED:
                gains = [a[name] - b[name] for a, b in zip(own, bare, strict=True)]
                mean[f"{name}_gain"] = figures.mean(gains, 4)
                if len(gains) > 1:
                    mean[f"{name}_gain_error"] = figures.error(gains, 4)
        yield mean


if __name__ == "__main__":
    main()
