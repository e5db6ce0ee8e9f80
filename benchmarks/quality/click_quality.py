"""Question: on real clicks, does SRP4CTR rank as well as the usual models, for less?

Every variant learns from the same slates, cut point in time from a log, by the product's
own fine-tuning; it is calibrated on newer ones and judged on the newest. Features and
sequences move with the stream while the model stays. EB-NeRD's slates all hold a click, so
that their size says much: rows called *+size* are of variants that know it.

    SRP4CTR_DATA=../shared/data python -m benchmarks click_quality --data ebnerd --quick
    python -m benchmarks click_quality --events mine.jsonl --variants srp4ctr,din
"""

import argparse
import ast
import getpass
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import RESULTS, parser_of
from benchmarks.harness.runner import RUNS, Job, run
from benchmarks.harness.runs import keep, restore, run_all
from benchmarks.harness.saved_result import circumstances, merge_rows
from benchmarks.quality.clicks import click_report
from benchmarks.quality.clicks.click_cutting import examples_of
from benchmarks.quality.clicks.click_sources import SOURCES, read
from benchmarks.quality.clicks.variants import VARIANTS
from srp4ctr.training.config import RefreshConfig

ROOT = Path(".data/benchmarks/click_quality")
QUICK_EVENTS = 60_000
QUICK_SEEDS = 1
SIZES = {"unknown": (False,), "known": (True,), "both": (False, True)}
FILE = RESULTS / "click_quality.json"
SEEDS = FILE.with_suffix(".seeds.jsonl")
LOOKS = FILE.with_suffix(".looks.jsonl")


def main() -> None:
    """Print the tables, then one JSON object; exit with 1 if a job failed."""
    options = _options()
    jobs: list[Job] = []
    for name in [options.name] if options.events else options.data:
        try:
            jobs += jobs_of(options, name)
        except (ValueError, ConnectionError) as error:
            raise SystemExit(f"{name}: {error}") from error
    runs = options.resume / RUNS
    if not options.quick:
        restore(SEEDS, runs)
    note_looks(jobs, LOOKS)
    measured = run_all(run, jobs, options.workers)
    seeds = {variant: seeds_of(options, variant) for variant in VARIANTS}
    rows = click_report.rows_of([each for each in measured if each], seeds)
    print(click_report.table(rows))
    if not options.quick:
        merge_rows(rows, FILE, ("data", "model"))
        keep([job.file for job in jobs], runs, SEEDS)
    print(json.dumps({"rows": rows}))
    if failed := measured.count(None):
        raise SystemExit(f"{failed} of {len(measured)} runs failed: see above")


def note_looks(jobs: Sequence[Job], file: Path) -> None:
    """Append to ``file`` who measures which of ``jobs`` now, where a test may be worn out.

    A result that is there, or a run that was cut off, is no new look. A recipe is chosen
    on other data.
    """
    for job in jobs:
        if job.is_of_test and not job.file.is_file():
            name = job.file.relative_to(job.root / RUNS).as_posix()
            noted = file.read_text() if file.is_file() else ""
            if f'"{name}"' not in noted:
                who = {"who": getpass.getuser(), **circumstances()}
                with file.open("a", encoding="utf-8") as opened:
                    opened.write(json.dumps({"run": name, **who}) + "\n")


def seeds_of(options: argparse.Namespace, variant: str) -> int:
    """Return how many seeds ``variant`` runs with."""
    if options.seeds is not None:
        return int(options.seeds)
    return QUICK_SEEDS if options.quick else VARIANTS[variant].seeds


def jobs_of(options: argparse.Namespace, name: str) -> list[Job]:
    """Return the runs on one data set, which is cut here if it was not before."""
    source = read(name, options.events)
    if options.quick:
        source = source.part(QUICK_EVENTS)
    folder = examples_of(source, options.config, options.resume / "examples")
    default = "both" if source.is_always_clicked else "unknown"
    sizes = SIZES[options.slate_size or default]
    return [
        Job(
            root=options.resume,
            folder=folder,
            variant=variant,
            config=replace(options.config, seed=seed),
            with_size=with_size,
            label_share=share,
            device=options.device,
        )
        for with_size in sizes
        for share in options.labels
        for seed in range(max(seeds_of(options, each) for each in options.variants))
        for variant in options.variants
        if seed < seeds_of(options, variant)
    ]


def _names(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    if unknown := set(found) - set(VARIANTS):
        raise argparse.ArgumentTypeError(f"no {', '.join(unknown)} in {list(VARIANTS)}")
    return found


def _shares(text: str) -> tuple[float, ...]:
    return tuple(float(each) / 100.0 for each in text.split(","))


def changed(config: RefreshConfig, settings: Sequence[str]) -> RefreshConfig:
    """Return ``config`` with ``name=value`` or ``model.name=value`` changed."""
    for setting in settings:
        name, _, text = setting.partition("=")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        if name.startswith("model."):
            model = replace(config.model, **{name.removeprefix("model."): value})
            config = replace(config, model=model)
        else:
            config = replace(config, **{name: value})
    return config


def _options() -> argparse.Namespace:
    """Return the command line's options; ``config`` is the recipe that they make."""
    variants = (f"  {name:<28} {each.meaning}" for name, each in VARIANTS.items())
    parser = parser_of("\n".join([f"{__doc__}\nvariants:", *variants]))
    add = parser.add_argument
    add("--data", nargs="+", choices=list(SOURCES), default=["movielens"])
    add("--events", type=Path, help="JSON lines or Parquet, instead of --data")
    add("--name", default="events", help="what to call the data set in --events")
    add("--variants", "--arms", type=_names, default=[*VARIANTS], help="a,b; default: all")
    add("--seeds", type=int, help="of each; default: 5 of the main variants, 3 of the rest")
    add("--labels", type=_shares, default="100", help="per cent of the slates: 10,100")
    add("--slate-size", choices=list(SIZES), help="known to variants? (EB-NeRD: both)")
    add("--set", action="append", default=[], help="a setting: finetune_epochs=2")
    add("--quick", action="store_true", help="a fraction of users, few epochs")
    add("--workers", type=int, default=2)
    add("--device", default="cpu")
    add("--resume", type=Path, default=ROOT, help="where examples and results are cached")
    options = parser.parse_args()
    # All models and shares of the labels with one batch size, unless --set names another.
    config = RefreshConfig(bucket_by_length=True, batch_requests=64)
    if options.quick:
        # Few slates: small batches, so that there are steps enough to learn anything.
        config = replace(config, pretrain_epochs=2, batch_users=32)
        config = replace(config, finetune_epochs=2, batch_requests=32)
    options.config = changed(config, options.set)
    return options


if __name__ == "__main__":
    main()
