"""Claim: a request's history is encoded once, so that a candidate costs almost nothing.

The same weights answer the same request of 100 candidates folded (encode once, score all)
and unfolded (the history tiled onto every candidate), by onnxruntime on one thread, turn
by turn in one run. The ratio is what counts: these times are of this machine.

    make bench NAME=folding
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import parser_of
from benchmarks.harness.figures import table
from srp4ctr.features.tensors.schema import Field
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.export.bundle_writer import CANDIDATES, count_flops, sizes_of
from srp4ctr.training.export.onnx_export import export, sample, scorer
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR

LENGTHS = (50, 200)
NUM_ITEMS = 2_000
ITEM_FIELDS = (
    Field(name="genres", kind="multi", size=30, slots=6),
    Field(name="year", kind="categorical", size=70),
)
COLUMNS = {
    "L": "length",
    **{f"{each} FLOPs": f"{each}_flops:,.0f" for each in ("folded", "unfolded")},
    **{f"{each} ms": f"{each}_ms:.2f" for each in ("folded", "unfolded")},
    **{f"ratio of {each}": f"{each}_ratio:.1f" for each in ("flops", "time")},
}
Arrays = Mapping[str, NDArray[Any]]


def main() -> None:
    """Print a table, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="timed pairs per length")
    rounds = parser.parse_args().rounds
    rows = [measure(length, rounds) for length in LENGTHS]
    print(table(rows, COLUMNS))
    print(json.dumps({"candidates": CANDIDATES, "rows": rows}))


def measure(length: int, rounds: int) -> dict[str, float]:
    """Return FLOPs and the median time of a request, folded and unfolded."""
    torch.manual_seed(0)
    config = ModelConfig()
    tables = TableSizes(item_rows=NUM_ITEMS, item_fields=ITEM_FIELDS, length=length)
    sizes = sizes_of(config, tables)
    model = SRP4CTR(config, tables).eval()
    with tempfile.TemporaryDirectory() as folder:
        export(model, sizes, Path(folder))
        score = scorer(Path(folder))
    one = _arrays(sample(sizes, requests=1, candidates=CANDIDATES))
    tiled = _arrays(sample(sizes, requests=CANDIDATES, candidates=1))

    def answer(inputs: Arrays) -> NDArray[Any]:
        return score(inputs).click.ravel()

    assert np.allclose(answer(one), answer(tiled), atol=1e-5)
    pairs = [(_seconds(answer, one), _seconds(answer, tiled)) for _ in range(rounds)]
    cost = count_flops(model, sizes, CANDIDATES)
    return {
        "length": length,
        "folded_flops": cost.folded,
        "unfolded_flops": cost.unfolded,
        "flops_ratio": round(cost.unfolded / cost.folded, 2),
        "folded_ms": round(statistics.median(a for a, _ in pairs) * 1000, 3),
        "unfolded_ms": round(statistics.median(b for _, b in pairs) * 1000, 3),
        "time_ratio": round(statistics.median(b / a for a, b in pairs), 2),
    }


def _arrays(tensors: Mapping[str, torch.Tensor]) -> Arrays:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _seconds(answer: Callable[[Arrays], NDArray[Any]], inputs: Arrays) -> float:
    started = time.perf_counter()
    answer(inputs)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
