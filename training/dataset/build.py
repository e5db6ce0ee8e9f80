"""Event log → all that a refresh is trained and evaluated on, cut at one boundary in time.

In: the raw log and items' profiles. Out: files of a vocabulary and pre-training windows of
what was known before the boundary, and of slates on both sides of it. The engine computes
the features, within its limits; a part of the requests, or of the users, is read at a time.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from ibis import _
from numpy.typing import NDArray

from srp4ctr.errors import OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.offline import event_tables, item_replay, point_in_time
from srp4ctr.features.offline.click_windows import COUNTS, click_counts
from srp4ctr.features.offline.event_tables import EventLog, Table
from srp4ctr.features.offline.point_in_time import RequestTables
from srp4ctr.features.offline.profiles import item_profiles, item_updates, user_profiles
from srp4ctr.features.offline.sampled_slates import with_sampled_slates
from srp4ctr.features.offline.visible_events import distinct_events
from srp4ctr.features.tensors import item_fields, vocabulary
from srp4ctr.features.tensors.item_fields import Attributes
from srp4ctr.features.tensors.vocabulary import Vocabulary, parse_attributes
from srp4ctr.streams.config import StreamConfig
from srp4ctr.training.config import MIN_REQUESTS, RefreshConfig
from srp4ctr.training.dataset import (
    cache,
    caller_order,
    examples,
    item_attributes,
    log_notes,
)
from srp4ctr.training.dataset.batches import Slates
from srp4ctr.training.dataset.cache import ArrayFiles
from srp4ctr.training.dataset.catalogue_clicks import (
    MAX_CLICKS,
    WINDOWS_MS,
    CatalogueClicks,
)
from srp4ctr.training.dataset.examples import Cutting
from srp4ctr.training.evaluation.evaluate import boundary_ms
from srp4ctr.training.evaluation.rules import INPUTS

REQUESTS_AT_ONCE = 10_000  # a hundred megabytes or two, with histories of 50
BEHAVIORS_AT_ONCE = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """The log's requests, computed but not read, and what is known before the boundary."""

    log: EventLog
    tables: RequestTables
    times_ms: NDArray[np.int64]
    boundary_ms: int
    profiles: Mapping[int, Attributes]
    """Items' attributes that were known before the boundary: of these are the fields."""
    updates: pa.Table
    """All that items were known to be, before and after it."""
    folder: Path
    labels: int
    """Of the log's own impressions."""
    is_sampled: bool
    exposure_length: int

    @classmethod
    def of(
        cls,
        log: EventLog,
        config: RefreshConfig,
        features: FeatureConfig,
        streams: StreamConfig,
        folder: Path,
    ) -> "_Cut":
        """Return the cut of ``log``; ``OutageError`` if there is too little to cut yet."""
        labels = log.rows(log.labels.count()).as_py()
        is_sampled = config.negatives == "sampled" and labels < config.enough_labels
        if is_sampled:
            log = with_sampled_slates(log)
        tables = point_in_time.request_tables(
            log,
            streams.sequence_length,
            features.sequence_ttl_days,
            streams.exposure_length,
        )
        times_ms = tables.times_ms()
        if len(times_ms) < MIN_REQUESTS:
            window_s = streams.label_window_s
            raise OutageError(_lack(log, config, features.raw_log, len(times_ms), window_s))
        newest_ms = tables.newest_clicks_ms(config.held_out_clicks)
        boundary = boundary_ms(times_ms, config.held_out_share, newest_ms)
        return cls(
            log=log,
            tables=tables,
            times_ms=times_ms,
            boundary_ms=boundary,
            # Item counters of held-out clicks are not known yet.
            profiles=item_profiles(log, features, boundary - 1),
            updates=item_updates(log),
            folder=folder,
            labels=labels,
            is_sampled=is_sampled,
            exposure_length=streams.exposure_length,
        )

    def vocabulary(
        self,
        config: RefreshConfig,
        features: FeatureConfig,
        former: Vocabulary | None = None,
    ) -> Vocabulary:
        """Return the vocabulary of what was known before the boundary."""
        found = vocabulary.build(
            point_in_time.item_counts(self.log, self.boundary_ms),
            profiles=(),  # the fields are built here, as those of users
            min_item_count=config.min_item_count,
        )
        before = self.tables.requests.filter(_.at_ms < self.boundary_ms)
        contexts = self.log.rows(before.select("context").distinct())
        texts = contexts["context"].to_pylist()
        of_items = self.profiles.values()
        of_users = map(parse_attributes, user_profiles(self.log, self.boundary_ms))
        old_items, old_users = (
            (former.item_fields, former.user_fields) if former else ((), ())
        )
        return replace(
            found,
            item_fields=item_fields.build(of_items, features.item_fields, old_items),
            user_fields=item_fields.build(of_users, features.user_fields, old_users),
            context_numbers=vocabulary.numbers_of(texts),
            context_fields=vocabulary.fields_of(texts),
            candidate_numbers=tuple(number.name for number in features.candidate_numbers),
            utc_offset_minutes=features.utc_offset_minutes,
            actions=point_in_time.frequent_actions(self.log, self.boundary_ms),
            visit_gap_ms=round(features.visit_gap_minutes * 60_000),
        )

    def slates(self, words: Vocabulary, first: int = 0) -> Iterator[Slates]:
        """Yield the slates of the requests from row ``first`` on, in parts."""
        longest = self._longest()
        name_length = self.log.rows(self.tables.requests.user_id.length().max()).as_py()
        attributes = item_attributes.of_updates(self.updates, words)
        total = len(self.times_ms)
        for start in range(first, total, REQUESTS_AT_ONCE):
            part = self.tables.read(start, min(start + REQUESTS_AT_ONCE, total))
            made = examples.slates(part, words, attributes, longest)
            yield replace(made, user_ids=made.user_ids.astype(f"<U{name_length}"))

    def write_slates(self, words: Vocabulary) -> dict[str, int]:
        """Write all slates; return what they count."""
        shown = clicked = 0
        with closing(ArrayFiles(self.folder, cache.SLATES)) as files:
            for slates in self.slates(words):
                files.append(_arrays(slates))
                shown += int(slates.shown.sum())
                clicked += int(slates.clicked.sum())
        users = self.log.rows(self.tables.requests.user_id.nunique()).as_py()
        return {
            "requests": files.rows,
            "impressions": shown,
            "clicks": clicked,
            "users": users,
        }

    def number_counts(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return of each number how many impressions have it, and how many of these carry
        no columns of an answer."""
        counts = {}
        for name in names:
            key, rank = (f"{json.dumps(each)}:" for each in (name, f"{name}_rank"))
            present = self.tables.candidates.filter(_.numbers.contains(key))
            raw = present.filter(~_.numbers.contains(rank))
            both = (self.log.rows(each.count()).as_py() for each in (present, raw))
            counts[name] = (next(both), next(both))
        return counts

    def write_champion_judge(self, words: Vocabulary) -> None:
        """Write the held-out slates in the rows of ``words``; the newer half is judged."""
        first = int(np.searchsorted(self.times_ms, self.boundary_ms))
        with closing(ArrayFiles(self.folder, cache.CHAMPION_JUDGE)) as files:
            for slates in self.slates(words, first):
                files.append(_arrays(slates))

    def write_rule_inputs(self) -> None:
        """Write what one-line rules need of the held-out slates; half of it is judged."""
        total = len(self.times_ms)
        first = int(np.searchsorted(self.times_ms, self.boundary_ms))
        offered = self.tables.candidates.filter(_.request >= first)
        instants = offered.select("request", "row", "item_key", "at_ms")
        counted = click_counts(self.log, self.tables.clicks, instants)
        counted = counted.inner_join(instants.select("row", "request"), "row")
        longest = self._longest()
        with (
            self.log.kept(counted.order_by("row")) as clicks,
            self.log.kept(self._ranked_requests(first)) as ranked,
            closing(ArrayFiles(self.folder, cache.RULES)) as files,
        ):
            for start in range(first, total, REQUESTS_AT_ONCE):
                stop = min(start + REQUESTS_AT_ONCE, total)
                made = examples.rule_inputs(
                    self.tables.read(start, stop),
                    self._counts(clicks, start, stop),
                    self._flags(ranked, start, stop),
                    longest,
                )
                files.append({name: getattr(made, name) for name in INPUTS})

    def _ranked_requests(self, first: int) -> Table:
        """Return the requests from row ``first`` on that a model ordered."""
        by_model = self.log.shown.filter(_.model_version.notnull(), _.model_version != "")
        requests = self.tables.requests.filter(_.row >= first)
        ranked = requests.semi_join(by_model, ("user_id", "request_id"))
        return ranked.select("row")

    def _counts(self, clicks: Table, start: int, stop: int) -> dict[str, NDArray[np.int64]]:
        wanted = clicks.filter(clicks.request >= start, clicks.request < stop)
        rows = self.log.rows(wanted.order_by("row"))
        return {name: rows[name].to_numpy() for name in COUNTS}

    def _flags(self, ranked: Table, start: int, stop: int) -> NDArray[np.bool_]:
        rows = self.log.rows(ranked.filter(ranked.row >= start, ranked.row < stop))
        flags = np.zeros(stop - start, dtype=np.bool_)
        flags[rows["row"].to_numpy() - start] = True
        return flags

    def _longest(self) -> int:
        """Return the size of the longest slate."""
        sizes = self.tables.candidates.group_by("request").aggregate(impressions=_.count())
        return int(self.log.rows(sizes.impressions.max()).as_py())

    def write_catalogue(self, words: Vocabulary) -> None:
        """Write what retrieval needs to know of each item of ``words``."""
        named = self.log.rows(self.log.events.select("item_key", "item_id").distinct())
        columns = (named[name].to_pylist() for name in ("item_key", "item_id"))
        id_of = dict(zip(*columns, strict=True))
        counts = point_in_time.item_counts(self.log, self.boundary_ms)
        keys = words.item_keys.tolist()
        ids = [id_of[key].encode() for key in keys]
        attributes = item_attributes.of_updates(self.updates, words)
        cache.Catalogue(
            id_letters=np.frombuffer(b"".join(ids), dtype=np.uint8),
            id_ends=np.cumsum([len(each) for each in ids], dtype=np.int64),
            attribute_rows=attributes.of(words.item_keys, np.int64(self.boundary_ms)),
            counts=np.array([counts[key] for key in keys], dtype=np.int64),
        ).write(self.folder)

    def write_catalogue_clicks(self, words: Vocabulary) -> None:
        """Write clicks of the newer half of what is held out, evenly from all of them.

        A request of a sampled slate is a user's first click on an item.
        """
        first = int(np.searchsorted(self.times_ms, self.boundary_ms))
        middle, total = first + (len(self.times_ms) - first) // 2, len(self.times_ms)
        snapshots = self.tables.read(middle, total)
        number = min(MAX_CLICKS, total - middle)
        chosen = np.linspace(0, total - middle, number, endpoint=False).astype(np.int64)
        snapshots = snapshots.take(chosen)
        attributes = item_attributes.of_updates(self.updates, words)
        start_ms = int(snapshots.times_ms[0]) - max(WINDOWS_MS.values())
        slates = examples.slates(snapshots, words, attributes)
        CatalogueClicks(
            slates=slates,
            clicked_keys=snapshots.candidate_item_keys[snapshots.candidate_clicked],
            sequences=snapshots.sequences,
            total=snapshots.total_activity,
            exposures=point_in_time.exposures_before(
                self.log, self.tables, chosen + middle, self.exposure_length
            ),
            counted=item_replay.counted_since(self.log, start_ms),
            attributes=attributes,
        ).write(self.folder)

    def write_windows(self, words: Vocabulary, cutting: Cutting) -> int:
        """Write every user's windows; return how many."""
        past = point_in_time.history_table(self.log, self.boundary_ms)
        attributes = item_attributes.of_updates(self.updates, words)
        with closing(ArrayFiles(self.folder, cache.WINDOWS)) as files:
            for first, last in _user_ranges(past.counts):
                users = past.read(first, last)
                made = examples.windows(users, cutting, words, attributes)
                _, ends = cutting.ends(users.starts)
                newest = users.behaviors.occurred_at_ms[ends - 1]
                files.append({**made.tensors, cache.NEWEST_MS: newest})
        return files.rows


def cutting_of(config: RefreshConfig, length: int) -> Cutting:
    """Return how behaviours become windows: each has a state of its own in one of them."""
    return Cutting(length=length, step=min(length, config.model.encoded_length))


def write_training_set(
    config: RefreshConfig,
    features: FeatureConfig,
    streams: StreamConfig,
    folder: Path,
    champion: Vocabulary | None = None,
) -> dict[str, Any]:
    """Write the training set of the raw log to ``folder``; return its numbers.

    ``champion`` is the vocabulary of the bundle that is evaluated on the same requests.
    Raises ``OutageError`` with what to do when there is too little to train on yet.
    """
    with event_tables.opened_by(features) as log:
        cut = _Cut.of(log, config, features, streams, folder)
        words = cut.vocabulary(config, features, champion)
        vocabulary.save(words, folder / cache.VOCABULARY)
        cut.write_catalogue(words)
        counts = {"events": log.rows(distinct_events(log).count()).as_py()}
        cutting = cutting_of(config, streams.sequence_length)
        windows = cut.write_windows(words, cutting)
        counts |= {"windows": windows, "items": len(words.item_keys)}
        counts |= cut.write_slates(words) | {"labels": cut.labels}
        if champion is not None:
            cut.write_champion_judge(champion)
        if cut.is_sampled:
            cut.write_catalogue_clicks(words)
        else:
            cut.write_rule_inputs()
        numbers = cut.number_counts(words.candidate_numbers)
        notes = [*log_notes.notes_of(log), *caller_order.notes_of(numbers, counts)]
    return {
        "notes": notes,
        "boundary_ms": cut.boundary_ms,
        "exposure_length": streams.exposure_length,
        "counts": counts,
        "negatives": "sampled" if cut.is_sampled else "impressions",
        "train_window_days": config.train_window_days,
    }


def _lack(
    log: EventLog, config: RefreshConfig, log_dir: str, requests: int, window_s: float
) -> str:
    """Return a sentence on what the log lacks, and what to do."""
    clicks = log.rows(distinct_events(log).filter(_.type == "click").count()).as_py()
    if config.negatives == "sampled":
        return (
            f"a click model with sampled negatives needs {MIN_REQUESTS} first clicks of"
            " users on items that others clicked before, and"
            f" {log_dir} has {requests} of {clicks:,} clicks: publish more clicks"
        )
    return (
        f"a click model needs {MIN_REQUESTS} requests with matured labels, and {log_dir}"
        f" has {requests} (and {clicks:,} clicks): publish impressions and clicks while"
        " `srp4ctr stream run` follows them. A label has matured when its impression's"
        f" window of {window_s / 60:g} minutes (streams.label_window_s) has closed."
        ' Clicks are enough with training.negatives = "sampled"'
    )


def _user_ranges(counts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield ranges of users with about ``BEHAVIORS_AT_ONCE``; one, if there is no user."""
    reached, first = np.cumsum(counts), 0
    while True:
        seen = int(reached[first - 1]) if first else 0
        last = int(np.searchsorted(reached, seen + BEHAVIORS_AT_ONCE, "right"))
        last = min(max(last, first + 1), len(counts))
        yield first, last
        first = last
        if first >= len(counts):
            return


def _arrays(slates: Slates) -> dict[str, NDArray[Any]]:
    own = {name: getattr(slates, name) for name in cache.OF_A_SLATE}
    return {**slates.tensors, **own}
