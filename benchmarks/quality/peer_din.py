"""Question: does a library's own DIN, on the same examples, do as well as ours?

torch-rechub's DIN learns from the examples that ``click_quality`` cut: by its own trainer,
in an environment of its own (uv makes it), for as many epochs as our DIN and in batches as
large. Of three learning rates that with the least log loss of the calibrating slates is
used; the judge is the same. An impression is a row: item and attributes, each compared
with the history's; past the attention go the context and the counters. The library's DIN
takes nothing but embeddings there, so a counter is cut at its 16 quantiles. What ours
know besides: what was done in the history and when, the position, how to do without an id.

    python -m benchmarks click_quality --data ebnerd --variants srp4ctr,din
    python -m benchmarks peer_din --data ebnerd --epochs 6 --batch-requests 32 --with-size
    python -m benchmarks peer_din --data ebnerd --quick
"""

import argparse
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks import FOLDER, parser_of, say
from benchmarks.harness.code_fingerprint import code_digest
from benchmarks.harness.runner import RUNS, Job, Result, choose, run
from benchmarks.harness.saved_result import merge_rows
from benchmarks.models.peers.impressions import save_impressions
from benchmarks.quality.click_quality import FILE, ROOT
from benchmarks.quality.clicks import click_report
from benchmarks.quality.clicks.click_examples import CARD, Examples, Part, load, name_of
from benchmarks.quality.clicks.click_scores import (
    calibrated_figures,
    calibrated_loss,
    calibration_of,
)
from benchmarks.quality.clicks.variants import REFERENCE
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import Arrays

LIBRARY, PINNED = "torch-rechub", "0.9.0"
NAME = f"din ({LIBRARY} {PINNED.rpartition('.')[0]})"
MEANING = f"DIN as {LIBRARY} {PINNED} has it, by its own trainer, on the same examples"
WORKER = FOLDER / "models" / "peers" / "din_rechub.py"
CODE = ("benchmarks/models/peers", "benchmarks/quality/peer_din.py")
RATES = (5e-4, 1e-3, 2e-3)
QUICK_SHARE = 20  # one request in


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One training of the peer."""

    inputs: Path
    """What the worker reads."""
    cache_dir: Path
    """The folder where results are cached, by what they depend on."""
    data: str
    epochs: int
    rate: float
    seed: int
    batch: int

    @property
    def file(self) -> Path:
        """Where its logits are cached."""
        depends = (self.data, self.epochs, self.rate, self.batch, _code())
        digest = hashlib.sha256(repr(depends).encode()).hexdigest()[:12]
        return self.cache_dir / f"peer-din-seed{self.seed}-{digest}.npz"

    def outputs(self) -> Arrays:
        """Return what the worker made of it, from its file if it ran before."""
        if not self.file.is_file():
            say(f"{NAME}: {self.data}, rate {self.rate:g}, seed {self.seed}")
            self.file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self.file.with_suffix(f".{os.getpid()}.tmp.npz")
            run_worker(self, unfinished)
            unfinished.rename(self.file)
        return dict(np.load(self.file, allow_pickle=False))


def main() -> None:
    """Print the table, then one JSON object."""
    options = _parser().parse_args()
    rows = []
    for data in options.data:
        folder = examples_folder(options.resume / "examples", data)
        results = _measure(folder, options)
        pairs = references(folder, options) if not options.quick else []
        seeds_of = {NAME: len(results), REFERENCE: len(pairs)}
        found = click_report.rows_of([*results, *pairs], seeds_of)
        rows += [row for row in found if row["model"] == NAME]
    print(click_report.table(rows))
    if not options.quick:
        merge_rows(rows, FILE, ("data", "model"))
    print(json.dumps({"rows": rows}))


def examples_folder(root: Path, data: str) -> Path:
    """Return the folder of the examples ``data``: a name, or one with its digest."""
    found = [path.parent for path in root.glob(f"{data}*/{CARD}")]
    found = [path for path in found if data in (path.name, path.name.rpartition("-")[0])]
    if not found:
        raise SystemExit(f"{root} has no examples of {data}: run click_quality first")
    if len(found) > 1:
        names = ", ".join(sorted(path.name for path in found))
        raise SystemExit(f"{data} was cut more than once; choose one with --data: {names}")
    return found[0]


def references(folder: Path, options: argparse.Namespace) -> list[Result]:
    """Return what ``click_quality`` measured of SRP4CTR on the same, where it did."""
    job = Job(
        root=options.resume,
        folder=folder,
        variant=REFERENCE,
        config=RefreshConfig(),
        with_frozen=options.frozen,
    )
    if not job.tuning_file.is_file():
        say(f"{folder.name}: {REFERENCE} has no such runs: no difference is reported")
        return []
    job = replace(job, chosen=choose(job)["chosen"], with_size=options.with_size)
    configs = [replace(job.config, seed=seed) for seed in range(options.seeds)]
    jobs = [replace(job, config=config) for config in configs]
    return [run(each) for each in jobs if each.file.is_file()]


def _measure(folder: Path, options: argparse.Namespace) -> list[Result]:
    """Return a result per seed, by the rate that serves the calibrating slates best."""
    examples = load(folder)
    if options.with_size:
        examples = examples.with_size()
    if options.quick:
        examples = _fraction(examples)
    per_slate = float(examples.train.slates.shown.sum(axis=1).mean())
    with tempfile.TemporaryDirectory() as scratch:
        first = Fit(
            inputs=Path(scratch) / "inputs.npz",
            cache_dir=options.resume / RUNS / name_of(folder),
            data=examples.name,
            epochs=1 if options.quick else options.epochs,
            rate=RATES[1],
            seed=0,
            batch=round(options.batch_requests * per_slate),
        )
        save_impressions(examples, first.inputs)
        rates = RATES[1:2] if options.quick else RATES
        tried = [replace(first, rate=rate) for rate in rates]
        best = min(
            tried,
            key=lambda fit: calibrated_loss(examples.calibrate, fit.outputs()["calibrate"]),
        )
        seeds = range(1 if options.quick else options.seeds)
        fits = [replace(best, seed=seed) for seed in seeds]
        return [result_of(examples, fit, options.frozen) for fit in fits]


def result_of(examples: Examples, fit: Fit, with_frozen: bool) -> Result:
    """Return the figures of ``fit``, calibrated as every variant is."""
    outputs = fit.outputs()
    platt = calibration_of(examples.calibrate, outputs["calibrate"])
    parts = {"judge": examples.name}
    if with_frozen:
        parts["frozen"] = f"{examples.name} frozen"
    return {
        "arm": NAME,
        "meaning": MEANING,
        "seed": fit.seed,
        "label_share": 1.0,
        "chosen": {"learning_rate": fit.rate, "epochs": fit.epochs},
        "seconds": {"finetune": float(outputs["seconds"])},
        "flops": dict(zip(("1", "100"), outputs["flops"].tolist(), strict=True)),
        "figures": {
            data: calibrated_figures(
                examples, getattr(examples, part), outputs[part], platt
            )
            for part, data in parts.items()
        },
    }


@functools.cache
def _code() -> str:
    return code_digest(*CODE)


def _fraction(examples: Examples) -> Examples:
    """Return whole requests of each part, one of ``QUICK_SHARE``."""

    def some(part: Part) -> Part:
        return part.take(np.nonzero(part.requests % QUICK_SHARE == 0)[0])

    return replace(
        examples,
        name=f"{examples.name} quick",
        train=some(examples.train),
        calibrate=some(examples.calibrate),
        judge=some(examples.judge),
        frozen=some(examples.frozen),
    )


def run_worker(fit: Fit, outputs: Path) -> None:
    """Run the peer where it has its own packages; torch is of the version that is ours."""
    here = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    uv = shutil.which("uv", path=here)
    if uv is None:
        needs = f"{LIBRARY} runs in an environment of its own, which uv makes"
        raise SystemExit(f"{needs}: install it (pip install uv) or put it on PATH")
    torch = version("torch").partition("+")[0]
    command = [uv, "run", "--quiet", "--isolated", "--no-project"]
    command += ["--python", sys.executable]
    command += ["--with", f"{LIBRARY}=={PINNED}", "--with", f"torch=={torch}"]
    command += ["python", str(WORKER), str(fit.inputs), str(outputs)]
    command += ["--rate", str(fit.rate), "--epochs", str(fit.epochs)]
    command += ["--batch", str(fit.batch), "--seed", str(fit.seed)]
    own = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}  # a core, as each of our runs
    ended = subprocess.run(command, env={**os.environ, **own}, stdout=sys.stderr)
    if ended.returncode:
        raise SystemExit(f"{NAME} failed: see above")


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--data", nargs="+", default=["movielens"], help="names, or folders of examples")
    add("--epochs", type=int, default=2, help="what our DIN's tuning chose; default: 2")
    add("--batch-requests", type=int, default=RefreshConfig().batch_requests)
    add("--seeds", type=int, default=3)
    add("--with-size", action="store_true", help="with the slate's size in the context")
    add("--frozen", action="store_true", help="also features that do not change")
    add("--quick", action="store_true", help="a 20th, one epoch, one rate; not saved")
    add("--resume", type=Path, default=ROOT, help="where examples and results are cached")
    return parser


if __name__ == "__main__":
    main()
