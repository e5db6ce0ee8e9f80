"""Question: what memory does serving take for each item of the catalogue?

Three bundles of a fresh model are promoted to a Triton of its own, one after the other,
with a small catalogue and with a large one. A server keeps the bundle before the one that
it serves, for a rollback: a row has its memory with one bundle, with two, and the most that
was seen while the third was promoted. Pages that its processes share count once, by the
kernel's proportional set size. The items have no rows in the store: what is measured are
the bundles, whose graphs have the table of items.

    make bench NAME=serving_memory ARGS="--items 100000 1000000"
"""

import functools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks import parser_of, say
from benchmarks.serving.promotion_faults import NO_LOG
from srp4ctr.features.tensors import vocabulary
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.events.schema import item_key
from srp4ctr.testing.serving_stack import (
    ServingStack,
    fresh_bundle,
    running_stack,
)
from srp4ctr.triton_repo.deployment import promotion

LENGTH = 50
SAMPLED_EVERY_S = 0.05
MB = 2**20
Row = dict[str, Any]


def main() -> None:
    """Print a row for each catalogue, then one JSON object."""
    parser = parser_of(__doc__)
    parser.add_argument("--items", type=int, nargs=2, default=[100_000, 1_000_000])
    options = parser.parse_args()
    rows = [measured(items) for items in options.items]
    few, many = rows
    found: Row = {"rows": rows}
    for name in ("one_mb", "two_mb", "promotion_mb"):
        bytes_each = (many[name] - few[name]) * MB / (many["items"] - few["items"])
        found[name.replace("_mb", "_bytes_an_item")] = round(bytes_each)
    print(json.dumps(found))


def measured(items: int) -> Row:
    """Return the memory (MB) of a server whose bundles have ``items`` items."""
    words = catalogue(items)
    with running_stack(LENGTH) as stack:
        row: Row = {"items": items, "python_processes": stack.triton.instances}
        for version, name in (("v2", "one_mb"), ("v3", "two_mb"), ("v4", "three_mb")):
            say(f"{items:,} items: writing {version}")
            source = fresh_bundle(stack.folder / "bundles", LENGTH, version, 1, words)
            say(f"{items:,} items: promoting {version}")
            peak = greatest(stack.server.pid, functools.partial(promote, source, stack))
            row[name] = settled_mb(stack.server.pid)
        del row["three_mb"]  # two bundles again
        row["promotion_mb"] = peak
    print(
        f"{items:>10,} items  one bundle {row['one_mb']:>6,} MB  two {row['two_mb']:>6,} MB"
        f"  while a third is promoted {row['promotion_mb']:>6,} MB"
    )
    return row


def promote(source: Path, stack: ServingStack) -> None:
    """Let the stack serve the bundle at ``source``."""
    done = promotion.promote(source, stack.triton, stack.features, NO_LOG)
    assert not done.refusal, done.refusal


def catalogue(items: int) -> Vocabulary:
    """Return a vocabulary of so many items, with attributes as most have."""
    counts = {item_key(f"item-{number}"): 1 for number in range(items)}
    profiles = [{"brand": f"brand-{number}"} for number in range(50)]
    return vocabulary.build(counts, profiles)


def memory_mb(pid: int) -> int:
    """Return what the server ``pid`` and its processes hold; what they share, once."""
    total = 0
    for each in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        try:
            total += each.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total // MB


def settled_mb(pid: int) -> int:
    """Return its memory once it does not change."""
    before = memory_mb(pid)
    while True:
        time.sleep(3.0)
        now = memory_mb(pid)
        if abs(now - before) <= max(5, now // 200):
            return now
        before = now


def greatest(pid: int, step: Callable[[], None]) -> int:
    """Return the greatest memory of the server (MB) while ``step`` runs."""
    most, is_over = 0, threading.Event()

    def sample() -> None:
        nonlocal most
        while not is_over.wait(SAMPLED_EVERY_S):
            most = max(most, memory_mb(pid))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        step()
    finally:
        is_over.set()
        thread.join()
    return most


if __name__ == "__main__":
    main()
