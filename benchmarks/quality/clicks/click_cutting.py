"""A log of events → slates in three parts by time; cut once, as a refresh cuts them.

The events become a raw log by the stream's own writer and labels by its own join. Nothing
that teaches is later than the calibrating part begins: neither a slate nor a pre-training
window nor the vocabulary. What was cut is cached under the digest of events and code;
its card has the digest of what it is.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks import say
from benchmarks.harness.runs import code_digest
from benchmarks.quality.clicks.click_examples import (
    CARD,
    ITEMS,
    VOCABULARY,
    Part,
    save,
    save_part,
)
from benchmarks.quality.clicks.click_sources import LENGTH, Source
from srp4ctr.features.offline import event_tables, point_in_time
from srp4ctr.features.offline.event_tables import EventLog
from srp4ctr.features.offline.point_in_time import RequestSnapshots
from srp4ctr.features.offline.profiles import user_profiles
from srp4ctr.features.tensors import item_fields, vocabulary
from srp4ctr.features.tensors.vocabulary import parse_attributes
from srp4ctr.streams.events.schema import UserEvent
from srp4ctr.testing.raw_logs import labels_of, punctual, write_log
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.dataset import examples, item_attributes
from srp4ctr.training.dataset.batches import Slates
from srp4ctr.training.dataset.build import cutting_of
from srp4ctr.training.evaluation.evaluate import boundary_ms

TTL_DAYS = 90.0
LABEL_WINDOW_MS, CORRECTION_MS = 1_800_000, 86_400_000
HELD_OUT_SHARE = 0.2
"""Of the requests, where no boundary is given: half calibrates, half judges."""
CALIBRATING_SHARE = 0.1
"""Of the requests before a boundary that is given."""
# A change of any of these may change what is cut.
CUTTING_CODE = (
    "streams",
    "features",
    "training/dataset/examples.py",
    *(
        f"benchmarks/quality/clicks/{name}.py"
        for name in ("click_sources", "click_cutting")
    ),
    *(f"benchmarks/quality/clicks/{name}.py" for name in ("collm", "kuairand")),
    *(f"srp4ctr/testing/{name}.py" for name in ("ebnerd", "raw_logs")),
)
_Int64s = NDArray[np.int64]


def examples_of(source: Source, config: RefreshConfig, folder: Path) -> Path:
    """Return the folder under ``folder`` with the examples of ``source``, cut if need be.

    Raises ``ValueError`` where there are too few requests to split.
    """
    target = folder / f"{source.name}-{_digest(source, config)}"
    if not (target / CARD).is_file():
        unfinished = target.with_suffix(f".{os.getpid()}.tmp")
        unfinished.mkdir(parents=True)
        try:
            _cut(source, config, unfinished)
            unfinished.rename(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return target


@contextmanager
def opened_log(events: Sequence[UserEvent]) -> Iterator[EventLog]:
    """Open a raw log of ``events`` (by time), each known as soon as it happens."""
    with tempfile.TemporaryDirectory() as folder:
        joined = labels_of(
            punctual(events), LABEL_WINDOW_MS, CORRECTION_MS, len(events) + 1
        )
        labels = [(each, each.matured_at) for each in joined]
        write_log(Path(folder), [*punctual(events), *labels])
        with event_tables.opened(Path(folder)) as log:
            log.database.raw_sql("SET enable_progress_bar = false")
            yield log


@dataclass(frozen=True, slots=True, kw_only=True)
class Instants:
    """Where time is split."""

    trained_until_ms: int
    judged_from_ms: int


def split_times(times_ms: _Int64s, judged_from_ms: int | None) -> Instants:
    """Return the instants that part the requests' times: given, or as a refresh would."""
    times_ms = np.sort(times_ms)
    if judged_from_ms is None:
        trained_until = boundary_ms(times_ms, HELD_OUT_SHARE)
        held_out = times_ms[times_ms >= trained_until]
        judged_from_ms = int(held_out[len(held_out) // 2])
    else:
        trained_until = boundary_ms(times_ms[times_ms < judged_from_ms], CALIBRATING_SHARE)
    return Instants(trained_until_ms=trained_until, judged_from_ms=judged_from_ms)


def _cut(source: Source, config: RefreshConfig, folder: Path) -> None:
    """Write into ``folder`` all that ``click_examples.load`` reads."""
    say(f"{source.name}: writing and cutting a log of {len(source.events):,} events …")
    with opened_log(source.events) as log:
        found = point_in_time.snapshot(log, LENGTH, TTL_DAYS)
        instants = split_times(found.times_ms, source.judged_from_ms)
        trained_until = instants.trained_until_ms
        counts = point_in_time.item_counts(log, trained_until)
        past = point_in_time.histories(log, trained_until)
        users = [*map(parse_attributes, user_profiles(log, trained_until))]
    words = vocabulary.build(
        counts,
        source.profiles(trained_until - 1).values(),
        min_item_count=config.min_item_count,
    )
    contexts = found.contexts[found.times_ms < trained_until].tolist()
    numbers, fields = vocabulary.numbers_of(contexts), item_fields.build(users)
    words = replace(words, context_numbers=numbers, user_fields=fields)
    vocabulary.save(words, folder / VOCABULARY)
    profiles = source.profiles(trained_until - 1, with_later_items=True)
    attributes = item_attributes.of_profiles(profiles, words)
    cutting = cutting_of(config, LENGTH)
    save(folder, "windows", examples.windows(past, cutting, words, attributes).tensors)
    keys = np.unique(found.candidate_item_keys)
    part = _part(found, examples.slates(found, words, attributes), keys)
    save_part(folder, "slates", part)
    rows = {
        "calibrate_row": _row(part, trained_until),
        "judge_row": _row(part, instants.judged_from_ms),
    }
    taught = part.items[: rows["calibrate_row"]]
    shown = np.bincount(taught[taught >= 0], minlength=len(keys))
    is_new = ~np.isin(keys, list(counts))
    save(folder, ITEMS, {"impressions": shown, "is_new": is_new})
    card = {"name": source.name, "digest": _content_digest(folder), **rows}
    (folder / CARD).write_text(json.dumps(card) + "\n")


def _row(part: Part, from_ms: int) -> int:
    return int(np.searchsorted(part.slates.request_at_ms, from_ms))


def _part(found: RequestSnapshots, slates: Slates, keys: _Int64s) -> Part:
    """Return ``slates`` with what only the evaluation needs, in the candidates' order.

    Items are numbered by their place in ``keys`` (ascending).
    """
    items = np.full(slates.clicked.shape, -1, dtype=np.int32)
    items[slates.shown] = np.searchsorted(keys, found.candidate_item_keys)
    counts = np.bincount(found.candidate_requests, minlength=len(found.times_ms))
    pieces = -(-counts // examples.MAX_SLATE)
    requests = np.repeat(np.arange(len(counts)), pieces)
    contexts = ["" if text is None else text for text in found.contexts[requests]]
    return Part(
        slates=slates, requests=requests, items=items, contexts=np.array(contexts, np.str_)
    )


def _content_digest(folder: Path) -> str:
    """Return 12 hex digits of all that was cut: other code may cut the same."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        digest.update(file.name.encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:12]


def _digest(source: Source, config: RefreshConfig) -> str:
    """Return 12 hex digits of the events, the recipe and the code that cuts them."""
    recipe = (TTL_DAYS, HELD_OUT_SHARE, CALIBRATING_SHARE, source.judged_from_ms)
    cutting = cutting_of(config, LENGTH)
    digest = hashlib.sha256(repr((recipe, config.min_item_count, cutting)).encode())
    digest.update(code_digest(*CUTTING_CODE).encode())
    encoder = msgspec.json.Encoder()
    for event in (*source.events, *source.updates):
        digest.update(encoder.encode(event))
    return digest.hexdigest()[:12]
