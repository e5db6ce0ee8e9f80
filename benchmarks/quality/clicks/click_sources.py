"""Real logs → events of our schema: EB-NeRD, MovieLens-100K, or a file of anyone's.

In: a name, or a file as ``srp4ctr events publish`` takes it. Out: events by time, item
updates, and the instant from which a model is judged where the data's publishers fixed it.
"""

import gzip
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from benchmarks.quality.clicks import ebnerd
from srp4ctr.demo import movielens
from srp4ctr.features.tensors.item_fields import Attributes
from srp4ctr.streams.events.codec import RejectedEvent, decode
from srp4ctr.streams.events.file_import import read_lines
from srp4ctr.streams.events.schema import (
    Behavior,
    Event,
    Impression,
    ItemUpdate,
    UserEvent,
    item_key,
)

CACHE = Path(".data/cache")
MAX_REPORTED = 10  # bad lines that are told of one by one
EBNERD_PARTS = {
    part: ebnerd.DATA / "ebnerd_demo" / f"demo_{part}_behaviors.parquet"
    for part in ("train", "validation")
}
# What the newspaper knows of a reader and a page when it shows a list.
EBNERD_CONTEXT = (
    "device_type",
    "is_subscriber",
    "is_sso_user",
    "gender",
    "age",
    "postcode",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The events of one data set."""

    name: str
    events: list[UserEvent]
    """By time."""
    updates: list[ItemUpdate] = field(default_factory=list)
    """By time."""
    judged_from_ms: int | None = None
    """Where the publishers split it; None: as a refresh would."""
    is_always_clicked: bool = False
    """Every slate holds a click, so that its size alone tells much: EB-NeRD."""

    def profiles(
        self, until_ms: int, with_later_items: bool = False
    ) -> dict[int, Attributes]:
        """Return the items' attributes as they were known at ``until_ms``.

        ``with_later_items``: and of an item first published after it, what it was
        published with, as the item table would have it when the item is shown.
        """
        found: dict[int, Attributes] = {}
        for update in self.updates:
            key = item_key(update.item_id)
            is_known = update.occurred_at <= until_ms
            if is_known or (with_later_items and key not in found):
                found[key] = {
                    name: value if isinstance(value, str) else tuple(value)
                    for name, value in update.attributes.items()
                }
        return found

    def part(self, most: int) -> "Source":
        """Return a fraction of the users, so that at most about ``most`` events remain."""
        share = most / max(len(self.events), 1)
        kept = [each for each in self.events if _draw(each.user_id) < share]
        return replace(self, events=kept)


def read(name: str, file: Path | None = None) -> Source:
    """Return the source ``name``: ebnerd, movielens, or what is in ``file``.

    Raises ``ValueError`` or ``ConnectionError`` with what to do where it is not to be had.
    """
    if file is not None:
        return of_file(name, file)
    return {"ebnerd": of_ebnerd, "movielens": of_movielens}[name]()


def of_ebnerd() -> Source:
    """Return five weeks of a newspaper; the validation week judges, as published."""
    for needed in (ebnerd.STREAM, *EBNERD_PARTS.values()):
        if not needed.is_file():
            raise ValueError(f"there is no {needed}: set SRP4CTR_DATA to where EB-NeRD is")
    contexts = _ebnerd_contexts()
    shown = (
        # The file's order is not the page's: a position tells nothing.
        msgspec.structs.replace(event, context=contexts.get(event.request_id), position=0)
        if isinstance(event, Impression)
        else event
        for event in ebnerd.a_stream()
    )
    return Source(
        name="ebnerd",
        events=_by_time([*shown, *ebnerd_reads(began_ms("train"))]),
        judged_from_ms=began_ms("validation"),
        is_always_clicked=True,
    )


def began_ms(part: str) -> int:
    """Return when EB-NeRD's train or validation week begins."""
    column = pq.read_table(EBNERD_PARTS[part], columns=["impression_time"])[0]
    return int(np.datetime64(pc.min(column).as_py(), "ms").astype(int))


def of_movielens() -> Source:
    """Return MovieLens-100K, as the demo has it."""
    return _source("movielens", movielens.read(movielens.fetch(CACHE)))


def of_file(name: str, path: Path) -> Source:
    """Return the events in ``path``: JSON lines (maybe ``.gz``) or Parquet.

    Lines that the stream would reject are left out, counted and reported on stderr.
    """
    good: list[Event] = []
    bad: Counter[str] = Counter()
    now_ms = time.time_ns() // 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        for line in read_lines(_unpacked(path, Path(folder))):
            event = decode(line.payload, now_ms)
            if not isinstance(event, RejectedEvent):
                good.append(event)
                continue
            bad[str(event.reason)] += 1
            if bad.total() <= MAX_REPORTED:
                say(f"{path}:{line.number}: {event.reason}: {event.detail}")
    if bad:
        say(f"{path}: {bad.total():,} of {bad.total() + len(good):,} lines left out: {bad}")
    if not any(isinstance(event, Impression) for event in good):
        raise ValueError(f"{path} holds no impression: there is nothing to rank")
    return _source(name, good)


def say(doing: str) -> None:
    """Tell on stderr what happens; stdout is for the results."""
    print(doing, file=sys.stderr, flush=True)


def _source(name: str, events: Iterable[Event]) -> Source:
    acted: list[UserEvent] = []
    updates: list[ItemUpdate] = []
    for event in events:
        if isinstance(event, ItemUpdate):
            updates.append(event)
        else:
            acted.append(event)
    updates.sort(key=lambda each: each.occurred_at)
    return Source(name=name, events=_by_time(acted), updates=updates)


def _by_time(events: list[UserEvent]) -> list[UserEvent]:
    events.sort(key=lambda event: event.occurred_at)
    return events


def ebnerd_reads(until_ms: int) -> Iterator[Behavior]:
    """Yield what EB-NeRD's users read before ``until_ms``, the train week's begin.

    Later reads are known of the train week alone, and hold each of its clicks once more: a
    model would learn from them what the validation week does not have. How long was read
    is known too late to be used.
    """
    table = pq.read_table(
        ebnerd.STREAM, columns=["behavior", "ts_ms", "user_id", "item_id"]
    )
    is_read = pc.equal(table["behavior"], "read")
    table = table.filter(pc.and_(is_read, pc.less(table["ts_ms"], until_ms)))
    ids = (table[name].cast("string").to_pylist() for name in ("user_id", "item_id"))
    for at_ms, user, item in zip(table["ts_ms"].to_pylist(), *ids, strict=True):
        yield Behavior(
            event_id="r", user_id=user, item_id=item, action="read", occurred_at=at_ms
        )


def _ebnerd_contexts() -> dict[str, dict[str, str]]:
    """Return the context of each request: the reader's device and standing, the page."""
    columns = ["impression_id", "article_id", *EBNERD_CONTEXT]
    found: dict[str, dict[str, str]] = {}
    for path in EBNERD_PARTS.values():
        for row in pq.read_table(path, columns=columns).to_pylist():
            known = {name: row[name] for name in EBNERD_CONTEXT if row[name] is not None}
            page = "front" if row["article_id"] is None else "article"
            context = {name: json.dumps(value) for name, value in known.items()}
            found[str(row["impression_id"])] = context | {"page": page}
    return found


def _draw(user_id: str) -> float:
    """Return a number in [0, 1) that is the user's own."""
    return xxhash.xxh3_64_intdigest(f"part {user_id}") / 2.0**64


def _unpacked(path: Path, folder: Path) -> Path:
    if path.suffix.lower() != ".gz":
        return path
    plain = folder / path.stem
    try:
        with gzip.open(path, "rb") as packed, plain.open("wb") as file:
            shutil.copyfileobj(packed, file)
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be unpacked: {error}") from error
    return plain
