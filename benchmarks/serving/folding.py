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
import onnxruntime
import torch
from numpy.typing import NDArray

from benchmarks import parser_of
from srp4ctr.features.bundles import bundle
from srp4ctr.features.tensors.schema import (
    ENCODER_INPUTS,
    HEAD_INPUTS,
    STATE_TENSORS,
    Field,
)
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.export.bundle_writer import CANDIDATES, count_flops, sizes_of
from srp4ctr.training.export.onnx_export import export, sample
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR

LENGTHS = (50, 200)
NUM_ITEMS = 2_000
ITEM_FIELDS = (
    Field(name="genres", kind="multi", size=30, slots=6),
    Field(name="year", kind="categorical", size=70),
)
Arrays = Mapping[str, NDArray[Any]]


def main() -> None:
    """Print a table, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="timed pairs per length")
    rounds = parser.parse_args().rounds
    rows = [measure(length, rounds) for length in LENGTHS]
    print(f"{'L':>4} {'folded':>22} {'unfolded':>22} {'FLOPs':>7} {'time':>7}")
    for row in rows:
        folded = f"{row['folded_flops'] / 1e6:.0f} M, {row['folded_ms']:.2f} ms"
        unfolded = f"{row['unfolded_flops'] / 1e6:.0f} M, {row['unfolded_ms']:.1f} ms"
        ratios = f"{row['flops_ratio']:>6.1f}× {row['time_ratio']:>6.1f}×"
        print(f"{row['length']:>4} {folded:>22} {unfolded:>22} {ratios}")
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
        answer = _answerer(Path(folder))
    one = _arrays(sample(sizes, requests=1, candidates=CANDIDATES))
    tiled = _arrays(sample(sizes, requests=CANDIDATES, candidates=1))
    assert np.allclose(answer(one).ravel(), answer(tiled).ravel(), atol=1e-5)
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


def _answerer(folder: Path) -> Callable[[Arrays], NDArray[Any]]:
    """Return what runs encoder and head, as the serving shells do."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    encoder, head = (
        onnxruntime.InferenceSession((folder / name).read_bytes(), options)
        for name in (bundle.ENCODER_FILE, bundle.HEAD_FILE)
    )

    def answer(inputs: Arrays) -> NDArray[Any]:
        names = [spec.name for spec in STATE_TENSORS]
        states = encoder.run(names, {s.name: inputs[s.name] for s in ENCODER_INPUTS})
        known = {**inputs, **dict(zip(names, states, strict=True))}
        feed = {spec.name: known[spec.name] for spec in HEAD_INPUTS}
        scores: NDArray[Any] = head.run(["click_probability"], feed)[0]
        return scores

    return answer


def _arrays(tensors: Mapping[str, torch.Tensor]) -> Arrays:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _seconds(answer: Callable[[Arrays], NDArray[Any]], inputs: Arrays) -> float:
    started = time.perf_counter()
    answer(inputs)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
