"""Claim: training's memory grows with the log by less than a hundred bytes an event.

A synthetic raw log (that of ``point_in_time``, a matured label for every impression) is
refreshed on from scratch by a process of its own, with a small model and a limit of
DuckDB's memory, the same for each size. Every 20 ms the process's anonymous memory is
read: what the kernel cannot drop, as it can drop pages of the examples on disk; and what
DuckDB has spilled. The two sizes give bytes an event.

    make bench NAME=training_memory ARGS="--events 3000000 10000000"
"""

import contextlib
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks import parser_of, say
from benchmarks.streaming.point_in_time import LENGTH, write_world
from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.config import StreamConfig
from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.export.bundle_writer import unfinished
from srp4ctr.training.refresh.pipeline import RefreshOptions, refresh

MEMORY_GB = 0.25
# Its size and its epochs are not what grows with the log.
MODEL = ModelConfig(width=16, num_layers=1, num_queries=2, head_width=16)
RECIPE = RefreshConfig(
    model=MODEL,
    pretrain_epochs=1,
    finetune_epochs=1,
    batch_users=256,
    batch_requests=1024,
    sampled_items=256,
)
SAMPLED_EVERY_S = 0.02
MB = 2**20
Row = dict[str, Any]


class MemoryMeter:
    """The greatest anonymous memory of this process, by step, and what it spilled."""

    def __init__(self, spilled: Path) -> None:
        self.step = "start"
        self.peaks_mb: dict[str, float] = {}
        self.spilled_mb = 0
        self._spilled = spilled
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more samples."""
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(SAMPLED_EVERY_S):
            now = anonymous_mb()
            self.peaks_mb[self.step] = max(self.peaks_mb.get(self.step, 0.0), now)
            self.spilled_mb = max(self.spilled_mb, disk_mb(self._spilled))


def anonymous_mb() -> float:
    """Return how much memory of this process is backed by no file."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("RssAnon:"))
    return int(kilobytes) / 1024


def disk_mb(folder: Path) -> int:
    """Return how much of the disk the files below ``folder`` have, as they come and go."""
    blocks = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            blocks += path.stat().st_blocks
    return blocks * 512 // MB


def main() -> None:
    """Print a row per size, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 3_000_000])
    parser.add_argument("--memory-gb", type=float, default=MEMORY_GB, help="of DuckDB")
    options = parser.parse_args()
    rows = [measured(events, options.memory_gb) for events in sorted(options.events)]
    found: Row = {"memory_gb": options.memory_gb, "rows": rows}
    if len(rows) > 1:
        found |= growth(rows[-2], rows[-1])
    print(json.dumps(found))


def measured(events: int, memory_gb: float) -> Row:
    """Refresh on a new log of ``events`` events; return what it took."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        say(f"writing a log of {events:,} events")
        _run(spawn.Process(target=write_world, args=(Path(folder), events, events)))
        say("refreshing")
        ours, theirs = spawn.Pipe()
        arguments = (Path(folder), memory_gb, theirs)
        _run(spawn.Process(target=refresh_and_measure, args=arguments))
        row: Row = {"events": events, **ours.recv()}
    print(
        f"{events:>12,} events  {row['impressions']:>12,} impressions  "
        f"{row['peak_mb']:>6,} MB  {row['seconds']:>6,} s  examples "
        f"{row['examples_mb']:,} MB, spilled {row['spilled_mb']:,} MB on disk"
    )
    return row


def _run(process: Any) -> None:
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"a process ended with status {process.exitcode}")


def refresh_and_measure(folder: Path, memory_gb: float, results: Connection) -> None:
    """Refresh on the log in ``folder``, and send what it took."""
    torch.set_num_threads(1)
    config = replace(RECIPE, bundles_dir=str(folder / "bundles"))
    spilled = folder / "spilled"
    spilled.mkdir()
    features = FeatureConfig(
        log_dir=str(folder),
        registry=str(folder / "registry.db"),
        offline_memory_gb=memory_gb,
        offline_temp_dir=str(spilled),
    )
    meter, sizes_mb = MemoryMeter(spilled), [0]

    def listen(step: str, done: int, total: int, note: str = "") -> None:
        meter.step = step
        if step == "judge":  # they are removed with the checkpoints
            files = unfinished(config).rglob("*.npy")
            sizes_mb.append(sum(file.stat().st_size for file in files) // MB)

    began = time.monotonic()
    streams = StreamConfig(sequence_length=LENGTH)
    report = refresh(config, features, streams, RefreshOptions(progress=listen))
    seconds = time.monotonic() - began
    meter.stop()
    peaks = {step: round(peak) for step, peak in meter.peaks_mb.items()}
    results.send(
        {
            "impressions": report.counts["impressions"],
            "requests": report.counts["requests"],
            "peak_mb": max(peaks.values()),
            "peaks_mb": peaks,
            "seconds": round(seconds),
            "seconds_of": {step: round(s, 1) for step, s in report.seconds.items()},
            "examples_mb": max(sizes_mb),
            "spilled_mb": meter.spilled_mb,
        }
    )


def growth(smaller: Row, larger: Row) -> Row:
    """Return the bytes an event between two sizes: of the peak, and of each step's."""
    more = larger["events"] - smaller["events"]
    before, after = smaller["peaks_mb"], larger["peaks_mb"]
    grown = {step: (after[step] - before.get(step, 0)) * MB / more for step in after}
    return {
        "peak_bytes_an_event": round((larger["peak_mb"] - smaller["peak_mb"]) * MB / more),
        "spilled_bytes_an_event": round(larger["spilled_mb"] * MB / larger["events"]),
        "bytes_an_event": {step: round(each, 1) for step, each in grown.items()},
    }


if __name__ == "__main__":
    main()
