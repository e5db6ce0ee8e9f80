"""Question: do a library's own DIN and DIEN, on the same examples, do as well as ours?

torch-rechub's models learn from the examples of ``click_quality``: by its own trainer,
in an environment of its own (uv makes it), for as many epochs as our DIN and in batches as
large. Of three learning rates that with the least log loss of the calibrating slates is
used; the judge is the same. An impression is a row: item and attributes, each compared
with the history's; past the attention go context, counters and the user's attributes. The
library's models take nothing but embeddings there, so a counter is cut at its 16 quantiles.
DIEN has its auxiliary loss, with items of other histories as what was not met. What ours
know besides: what was done in the history and when, the position, how to do without an id.

    python -m benchmarks peer_models --data ebnerd --with-size --epochs 6 \
        --batch-requests 32
    python -m benchmarks peer_models --data kuairand --epochs 1 --models dien
    python -m benchmarks peer_models --data ebnerd --quick
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import FOLDER, parser_of, say
from benchmarks.harness.runner import RUNS, TESTS, Result
from benchmarks.harness.runs import code_digest, digest_of
from benchmarks.harness.saved_result import merge_rows
from benchmarks.quality.click_quality import FILE, LOOKS, ROOT, note_look
from benchmarks.quality.clicks import click_report
from benchmarks.quality.clicks.click_cutting import examples_of
from benchmarks.quality.clicks.click_examples import (
    PARTS,
    Examples,
    Part,
    load,
    name_of,
)
from benchmarks.quality.clicks.click_scores import (
    calibrated_figures,
    calibrated_loss,
    calibration_of,
    one_score,
)
from benchmarks.quality.clicks.click_sources import SOURCES, read
from srp4ctr.features import columns as feature_columns
from srp4ctr.features.tensors import item_fields
from srp4ctr.features.tensors.schema import NUM_CONTEXT_ROWS, Field
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset.batches import USER_NAMES, Arrays

LIBRARY, PINNED = "torch-rechub", "0.9.0"
MODELS = ("din", "dien")
WORKER = FOLDER / "models" / "rechub.py"
CODE = ("benchmarks/models/rechub.py", "benchmarks/quality/peer_models.py")
RATES = (5e-4, 1e-3, 2e-3)
QUICK_SHARE = 20  # one request in
(USER,) = USER_NAMES
SPANS = 16  # as many as our variants cut a counter into
Edges = list[NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One training of the peer."""

    inputs: Path
    """What the worker reads."""
    cache_dir: Path
    """The folder where results are cached, by what they depend on."""
    data: str
    model: str
    """One of ``MODELS``."""
    epochs: int
    rate: float
    seed: int
    batch: int

    @property
    def name(self) -> str:
        """What its rows are called."""
        return f"{self.model} ({LIBRARY} {PINNED.rpartition('.')[0]})"

    @property
    def meaning(self) -> str:
        """What its rows say that it is."""
        own = f"{LIBRARY} {PINNED} has it, by its own trainer, on the same examples"
        return f"{self.model.upper()} as {own}"

    @property
    def file(self) -> Path:
        """Where its logits are cached."""
        code = code_digest(*CODE)
        digest = digest_of(self.data, self.epochs, self.rate, self.batch, code)
        return self.cache_dir / f"peer-{self.model}-seed{self.seed}-{digest}.npz"

    def outputs(self) -> Arrays:
        """Return what the worker made of it, from its file if it ran before."""
        if not self.file.is_file():
            say(f"{self.name}: {self.data}, rate {self.rate:g}, seed {self.seed}")
            self.file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self.file.with_suffix(f".{os.getpid()}.tmp.npz")
            run_worker(self, unfinished)
            unfinished.rename(self.file)
        return dict(np.load(self.file, allow_pickle=False))


def main() -> None:
    """Print the table, then one JSON object."""
    options = _options()
    rows: list[dict[str, Any]] = []
    for data in options.data:
        folder = examples_of(read(data), RefreshConfig(), options.resume / "examples")
        for model in options.models:
            results = _measure(folder, model, options)
            rows += click_report.rows_of(results, {results[0]["arm"]: len(results)})
    print(click_report.table(rows))
    if not options.quick:
        merge_rows(rows, FILE, ("data", "model"))
    print(json.dumps({"rows": rows}))


def _measure(folder: Path, model: str, options: argparse.Namespace) -> list[Result]:
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
            model=model,
            epochs=1 if options.quick else options.epochs,
            rate=RATES[1],
            seed=0,
            batch=round(options.batch_requests * per_slate),
        )
        save_impressions(examples, first.inputs)
        rates = RATES[1:2] if options.quick else options.rates
        tried = [replace(first, rate=rate) for rate in rates]
        best = min(
            tried,
            key=lambda fit: calibrated_loss(examples.calibrate, fit.outputs()["calibrate"]),
        )
        seeds = range(1 if options.quick else options.seeds)
        fits = [replace(best, seed=seed) for seed in seeds]
        for fit in fits if name_of(folder).startswith(TESTS) else ():
            note_look(fit.file.relative_to(options.resume / RUNS).as_posix(), LOOKS)
        return [result_of(examples, fit, options.frozen) for fit in fits]


def result_of(examples: Examples, fit: Fit, with_frozen: bool) -> Result:
    """Return the figures of ``fit``, calibrated as every variant is."""
    outputs = fit.outputs()
    platt = calibration_of(examples.calibrate, outputs["calibrate"])
    parts = {"judge": examples.name}
    if with_frozen:
        parts["frozen"] = f"{examples.name} frozen"
    return {
        "arm": fit.name,
        "meaning": fit.meaning,
        "seed": fit.seed,
        "label_share": 1.0,
        "chosen": {"learning_rate": fit.rate, "epochs": fit.epochs},
        "seconds": {"finetune": float(outputs["seconds"])},
        "flops": dict(zip(("1", "100"), outputs["flops"].tolist(), strict=False)),
        "figures": {
            data: calibrated_figures(
                examples, getattr(examples, part), one_score(outputs[part]), platt
            )
            for part, data in parts.items()
        },
    }


def _fraction(examples: Examples) -> Examples:
    """Return whole requests of each part, one of ``QUICK_SHARE``."""

    def some(part: Part) -> Part:
        return part.take(np.nonzero(part.requests % QUICK_SHARE == 0)[0])

    parts: dict[str, Any] = {part: some(getattr(examples, part)) for part in PARTS}
    return replace(examples, name=f"{examples.name} quick", **parts)


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
    names = ("model", "rate", "epochs", "batch", "seed")
    task = json.dumps({name: getattr(fit, name) for name in names})
    command += ["python", str(WORKER), str(fit.inputs), str(outputs), task]
    own = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}  # a core, as each of our runs
    ended = subprocess.run(command, env={**os.environ, **own}, stdout=sys.stderr)
    if ended.returncode:
        raise SystemExit(f"{fit.name} failed: see above")


def _options() -> argparse.Namespace:
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--data", nargs="+", choices=list(SOURCES), default=["movielens"])
    add("--models", nargs="+", choices=MODELS, default=["din"])
    add("--epochs", type=int, default=2, help="as many as our DIN has")
    add("--rates", type=float, nargs="+", default=RATES, help="of these the best")
    add("--batch-requests", type=int, default=64)
    add("--seeds", type=int, default=3)
    add("--with-size", action="store_true", help="with the slate's size in the context")
    add("--frozen", action="store_true", help="also features that do not change")
    add("--quick", action="store_true", help="a 20th, one epoch, one rate; not saved")
    add("--resume", type=Path, default=ROOT, help="where examples and results are cached")
    return parser.parse_args()


def save_impressions(examples: Examples, file: Path) -> None:
    """Write all parts, but only the clicks of ``train``: the others are evaluated here."""
    fields, edges = examples.sizes.item_fields, edges_of(examples.train)
    rows = table_rows(examples)
    found: dict[str, Any] = {f"rows/{name}": size for name, size in rows.items()}
    for name in PARTS:
        columns = flat(getattr(examples, name), edges, fields)
        found |= {f"{name}/{column}": values for column, values in columns.items()}
    found["train/clicked"] = examples.train.clicked
    np.savez(file, **found)


def flat(part: Part, edges: Edges, fields: tuple[Field, ...]) -> Arrays:
    """Return the columns (M, …) of ``part``, in the order of its ``shown``."""
    tensors, shown = part.slates.tensors, part.slates.shown
    request = np.nonzero(shown)[0]
    columns: dict[str, NDArray[np.generic]] = {
        "target_item": tensors["candidate_item_rows"][shown],
        "history_item": tensors["history_item_rows"][request],  # (M, L)
        "profile_context": tensors["context_rows"][request].astype(np.int32),  # (M, X)
    }
    attributes = tensors["candidate_attribute_rows"][shown]
    for number, place in enumerate(item_fields.places(fields)):
        first = place.first_slot  # the commonest of its values
        columns[f"target_field{number}"] = attributes[:, first]
        of_history = tensors["history_attribute_rows"][:, :, first]
        columns[f"history_field{number}"] = of_history[request]
        if place.field.slots > 1:
            columns[f"profile_field{number}"] = attributes[:, place.slots]
    for number, column in enumerate(tensors.get(USER, np.empty((0, 0))).T):
        columns[f"profile_user{number}"] = column[request].astype(np.int32)
    for number, (column, cuts) in enumerate(zip(part.columns.T, edges, strict=True)):
        spans = np.searchsorted(cuts, column, side="right").astype(np.uint8)
        columns[f"profile_counter{number:02}"] = spans
    return columns


def edges_of(part: Part) -> Edges:
    """Return where each numeric column is cut: at the quantiles that ``part`` has."""
    shares = np.arange(1, SPANS) / SPANS
    return [np.unique(np.quantile(column, shares)) for column in part.columns.T]


def table_rows(examples: Examples) -> dict[str, int]:
    """Return the size of each column's table; a history reads its target's."""
    sizes = examples.sizes
    counters = feature_columns.REQUEST.width + sizes.candidate_width
    found = {"target_item": sizes.item_rows, "profile_context": NUM_CONTEXT_ROWS}
    found |= {f"profile_counter{number:02}": SPANS for number in range(counters)}
    for number in range(len(sizes.item_fields)):
        found[f"target_field{number}"] = sizes.attribute_rows
        found[f"profile_field{number}"] = sizes.attribute_rows
    for number in range(sizes.user_slots):
        found[f"profile_user{number}"] = item_fields.num_rows(sizes.user_fields)
    return found


if __name__ == "__main__":
    main()
