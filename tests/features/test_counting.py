"""What counts is one set of events for the stream, a rebuild, the check and training.

The stream's worker is played in memory by the parts of the real one. Its log has late and
doubled backfills, copies at any distance, erasure requests and quiet spans; it restarts
and rebuilds anywhere. Few records are remembered, so that copies come back as news, too.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.consistency.check import check_features
from srp4ctr.features.offline.event_tables import opened
from srp4ctr.features.offline.point_in_time import snapshot
from srp4ctr.features.tensors.arrays import ActivityArrays
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import TOTAL_KEY, Impression, UserEvent, item_key
from srp4ctr.streams.raw_log.erasure import erase_forgotten
from srp4ctr.streams.state import duplicates
from srp4ctr.streams.state.counters import Activity, decayed
from srp4ctr.streams.state.partition_state import PartitionState
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.user_state import UserState
from srp4ctr.streams.worker import rebuild as rebuilding
from srp4ctr.testing.raw_logs import label_of, write_log
from tests.builders import NOON_MS, a_behavior, a_click, a_forget, an_impression
from tests.features.stored import rebuild, store_events
from tests.streams.memory_sink import MemorySink
from tests.streams.worker.rebuilds import assert_equal

CONFIG = StreamConfig(
    sequence_length=4, exposure_length=3, label_window_s=60, correction_window_s=3600
)
DAY_MS = 86_400_000
REMEMBERED = 20
USERS, ITEMS = ("u1", "u2", "eve"), ("a", "b", "c")
FORGETFUL = "eve"  # whose events have one time each: see docs/privacy.md
END_MS = NOON_MS + 1000 * DAY_MS
_Known = tuple[UserEvent, int]


def a_log(draw: random.Random, size: int) -> list[_Known]:
    """Return events by offset, and when each became known."""
    log: list[_Known] = []
    now_ms = NOON_MS
    while len(log) < size:
        now_ms += draw.choice((0, 1, 1000, 90_000, DAY_MS))
        what = draw.random()
        if what < 0.1 and log:  # a part of the log is published again
            begin = draw.randrange(len(log))
            again = [event for event, _ in log[begin : begin + draw.randrange(12)]]
            log += [(each, each.occurred_at) for each in again]
        elif what < 0.3 and log:
            event = draw.choice(log)[0]
            if event.user_id != FORGETFUL and draw.random() < 0.5:
                event = replace(event, occurred_at=now_ms)
            log.append((event, now_ms))
        elif what < 0.36:
            until_ms = now_ms - draw.choice((0, 1, DAY_MS))
            log.append((a_forget(user_id=FORGETFUL, at_ms=until_ms), now_ms))
        else:
            log.append((an_event(draw, now_ms, len(log)), now_ms))
    return log


def an_event(draw: random.Random, now_ms: int, number: int) -> UserEvent:
    at_ms = now_ms - draw.choice((0, 0, 0, 1, 5000, 3 * DAY_MS))
    user = draw.choice(USERS)
    fields: dict[str, Any] = {"user_id": user, "at_ms": at_ms, "event_id": str(number)}
    kind = draw.choice((an_impression, an_impression, a_click, a_behavior))
    if kind is not a_behavior:
        request = number if user == FORGETFUL else draw.randrange(3)
        fields["request_id"] = f"r{request}"
    made: UserEvent = kind(draw.choice(ITEMS), **fields)
    return made


@dataclass(slots=True)
class Worker:
    """Follows ``log`` into ``sink``, and is stopped and rebuilt anywhere."""

    log: Sequence[LoggedEvent]
    sink: MemorySink = field(default_factory=MemorySink)
    committed: int = 0

    def run(self, draw: random.Random) -> None:
        state = self.begin()
        while state.next_offset < len(self.log):
            end = state.next_offset + draw.randrange(1, 9)
            self.take(state, self.log[state.next_offset : end])
            if draw.random() < 0.5:
                self.store(state)
            if draw.random() < 0.2:  # nothing comes for days
                state.decided += state.labels.advance(END_MS)
            if draw.random() < 0.2:
                state = self.begin()
            if draw.random() < 0.1:
                self.store(state)
                rebuild(self.log[: state.next_offset], self.sink, CONFIG)
        self.store(state)

    def begin(self) -> PartitionState:
        state = PartitionState(0, self.committed, CONFIG)
        first = max(0, self.committed - REMEMBERED)
        state.replay(self.log[first : self.committed], END_MS)
        return state

    def take(self, state: PartitionState, events: Sequence[LoggedEvent]) -> None:
        users, shares = state.missing_rows(events)
        state.cache_rows(users, shares, self.sink.read(users, shares))
        state.fold(events, END_MS)
        state.next_offset += len(events)

    def store(self, state: PartitionState) -> None:
        self.sink.write(state.take_pending().rows)
        self.committed = state.next_offset
        state.evict(0)


def assert_checked(
    folder: Path, sink: MemorySink, end: int, streams: StreamConfig = CONFIG
) -> None:
    """Assert that the check finds the rows of ``sink`` as the raw log has them."""
    config = FeatureConfig(log_dir=str(folder))
    features = check_features(config, sink, streams, {0: end})
    assert (features.wrong_rows, features.waiting, features.details) == (0, 0, ())


def assert_counted_offline(folder: Path, rows: Rows) -> None:
    """Assert that training counts what ``rows`` do, as of the end."""
    with opened(folder) as log:
        found = snapshot(log, CONFIG.sequence_length, 9999.0, CONFIG.exposure_length)
    assert found.user_ids.tolist() == sorted(USERS)
    for number, user in enumerate(found.user_ids):
        assert_same(found.user_activity, number, rows.users.get(user, UserState()))
        assert_same(
            found.total_activity, number, rows.shares.get((TOTAL_KEY, 0), Activity())
        )
    for number, key in enumerate(found.candidate_item_keys.tolist()):
        share = rows.shares.get((key, 0), Activity())
        assert_same(found.candidate_activity, number, share)


def assert_same(found: ActivityArrays, number: int, row: Activity) -> None:
    elapsed_ms = END_MS - row.counted_at_ms
    both = ((found.impressions, row.impressions), (found.clicks, row.clicks))
    for counts, stored in both:
        np.testing.assert_allclose(counts[number], decayed(stored, elapsed_ms), rtol=1e-9)
    assert found.first_seen_ms[number] == row.first_seen_ms


def requests_at_the_end() -> list[Impression]:
    return [
        an_impression(item, at_ms=END_MS, user_id=user, request_id="end", position=place)
        for user in USERS
        for place, item in enumerate(ITEMS)
    ]


@pytest.fixture
def _few_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "DUPLICATE_RECORDS", REMEMBERED)
    monkeypatch.setattr(rebuilding, "EVENTS_IN_MEMORY", 5)


# A log of a seed has nothing to shrink.
@pytest.mark.usefixtures("_few_records")
@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(seed=st.integers(0, 2**32), size=st.integers(1, 120))
def test_all_count_the_same_events(
    tmp_path_factory: pytest.TempPathFactory, seed: int, size: int
) -> None:
    draw = random.Random(seed)
    known = a_log(draw, size)
    log = [
        LoggedEvent(event=event, offset=offset, known_at_ms=known_ms)
        for offset, (event, known_ms) in enumerate(known)
    ]
    worker = Worker(log)
    worker.run(draw)
    fresh = MemorySink()
    rebuild(log, fresh, CONFIG)
    assert_equal(fresh.rows, worker.sink.rows)
    checked, trained = (write_log(tmp_path_factory.mktemp("log"), known) for _ in range(2))
    shown = requests_at_the_end()
    write_log(trained, [(each, END_MS) for each in shown], partition=1)
    write_log(trained, [(label_of(each), END_MS) for each in shown])
    for _ in range(2):
        assert_checked(checked, worker.sink, len(log))
        assert_counted_offline(trained, worker.sink.rows)
        erase_forgotten(checked)
        erase_forgotten(trained)


def test_a_backfill_of_four_days_that_is_published_twice_counts_once(
    tmp_path: Path,
) -> None:
    """Each record is known since it happened: the second time begins four days earlier."""
    hours = range(96)
    days = [
        an_impression("a", at_ms=NOON_MS + hour * 3_600_000, request_id=f"r{hour}")
        for hour in hours
    ]
    twice, once, sink = [*days, *days], MemorySink(), MemorySink()
    store_events(once, days, length=4)
    store_events(sink, twice, length=4)
    key = (item_key("a"), 0)
    counts = once.rows.users["u1"].impressions
    assert sink.rows.users["u1"].impressions == pytest.approx(counts)
    assert sink.rows.shares[key].impressions == pytest.approx(counts)
    folder = write_log(tmp_path, [(each, each.occurred_at) for each in twice])
    assert_checked(folder, sink, len(twice), StreamConfig(sequence_length=4))
