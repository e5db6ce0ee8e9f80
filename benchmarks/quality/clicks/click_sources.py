"""Reads real logs as events of our schema: EB-NeRD, KuaiRand, MovieLens, or any file.

In: a name, or a file as ``srp4ctr events publish`` takes it. Out: events by time, item
updates, and the instant from which a model is judged where the data's publishers fixed it.
"""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import xxhash

from benchmarks import say
from benchmarks.quality.clicks import collm, kuairand
from srp4ctr.demo import movielens
from srp4ctr.features.tensors.item_fields import Attributes
from srp4ctr.streams.events.codec import RejectedEvent, decode
from srp4ctr.streams.events.file_import import read_lines
from srp4ctr.streams.events.schema import (
    Event,
    Impression,
    ItemUpdate,
    UserEvent,
    item_key,
)
from srp4ctr.testing import ebnerd

CACHE = Path(".data/cache")
VALIDATION_MS = 2 * 86_400_000
LENGTH = 50  # behaviours of a history
MAX_REPORTED = 10  # bad lines that are reported one by one


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
    """Every slate holds a click, so that its size says much: EB-NeRD."""

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
                    for name, value in update.kept_attributes().items()
                }
        return found

    def part(self, most: int) -> "Source":
        """Return a fraction of the users, so that at most about ``most`` events remain."""
        share = most / max(len(self.events), 1)
        kept = [event for event in self.events if _draw(event.user_id) < share]
        return replace(self, events=kept)


def read(name: str, file: Path | None = None) -> Source:
    """Return the source ``name`` of ``SOURCES``, or what is in ``file``.

    Raises ``ValueError`` or ``ConnectionError`` with what to do where it is not to be had.
    """
    if file is not None:
        return of_file(name, file)
    return SOURCES[name]()


def of_ebnerd() -> Source:
    """Return five weeks of a newspaper; the validation week judges, as published."""
    return Source(
        name="ebnerd",
        events=_by_time(ebnerd.events()),
        judged_from_ms=ebnerd.began_ms("validation"),
        is_always_clicked=True,
    )


def of_ebnerd_validation() -> Source:
    """Return the weeks before; the train week's last two days judge: to choose by."""
    return _first_part(of_ebnerd(), "ebnerd validation")


def of_ebnerd_attributes() -> Source:
    """Return EB-NeRD with the two attributes that are to be had of its articles."""
    updates = ebnerd.item_updates()
    return replace(of_ebnerd(), name="EB-NeRD with attributes", updates=updates)


def of_ebnerd_attributes_validation() -> Source:
    """Return its weeks before, as ``of_ebnerd_validation`` does."""
    whole = of_ebnerd_attributes()
    return _first_part(whole, f"{whole.name}, validation")


def of_movielens() -> Source:
    """Return MovieLens-100K, as the demo has it."""
    return _source("movielens", movielens.read(movielens.fetch(CACHE)))


def of_kuairand() -> Source:
    """Return a fortnight of a feed of short videos; the second week judges."""
    folder = ebnerd.DATA / kuairand.FOLDER
    return Source(
        name="KuaiRand-Pure",
        events=_by_time(kuairand.events(folder)),
        updates=kuairand.item_updates(folder),
        judged_from_ms=kuairand.judged_from_ms(folder),
    )


def of_kuairand_validation() -> Source:
    """Return the first week; its last two days judge: to choose a recipe by."""
    return _first_part(of_kuairand(), "KuaiRand-Pure validation")


def of_collm() -> Source:
    """Return MovieLens-1M as a click set; the split, by date, is CoLLM's."""
    folder = ebnerd.DATA / collm.FOLDER
    return Source(
        name="ML-1M (CoLLM)",
        events=_by_time([*collm.events(folder)]),
        updates=collm.item_updates(folder),
        judged_from_ms=collm.began_ms(folder, "test"),
    )


def of_collm_validation() -> Source:
    """Return what is before the test; CoLLM's validation set judges: to choose by."""
    begins_ms = collm.began_ms(ebnerd.DATA / collm.FOLDER, "valid")
    return _first_part(of_collm(), "ML-1M (CoLLM) validation", begins_ms)


def of_file(name: str, path: Path) -> Source:
    """Return the events in ``path``: JSON lines or Parquet.

    Lines that the stream would reject are left out, counted and reported on stderr.
    """
    good: list[Event] = []
    bad: Counter[str] = Counter()
    now_ms = time.time_ns() // 1_000_000
    for line in read_lines(path):
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


def _first_part(whole: Source, name: str, judged_from_ms: int | None = None) -> Source:
    """Return what of ``whole`` is before its judged days; its own last two judge, or what
    is from ``judged_from_ms`` on.
    """
    assert whole.judged_from_ms
    return replace(
        whole,
        name=name,
        events=[
            event for event in whole.events if event.occurred_at < whole.judged_from_ms
        ],
        judged_from_ms=judged_from_ms or whole.judged_from_ms - VALIDATION_MS,
    )


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


def _draw(user_id: str) -> float:
    """Return a number in [0, 1) that is the user's own."""
    return xxhash.xxh3_64_intdigest(f"part {user_id}") / 2.0**64


SOURCES = {
    "ebnerd": of_ebnerd,
    "ebnerd-validation": of_ebnerd_validation,
    "ebnerd-attributes": of_ebnerd_attributes,
    "ebnerd-attributes-validation": of_ebnerd_attributes_validation,
    "movielens": of_movielens,
    "collm": of_collm,
    "collm-validation": of_collm_validation,
    "kuairand": of_kuairand,
    "kuairand-validation": of_kuairand_validation,
}
