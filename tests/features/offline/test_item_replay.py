"""All items' counters at successive instants, compared with ``counters_as_of``."""

from pathlib import Path

import ibis
import numpy as np
import pyarrow as pa
import pytest

from srp4ctr.features.offline import item_replay
from srp4ctr.features.offline.counters_as_of import activity_of, activity_table
from srp4ctr.features.offline.event_tables import EventLog, opened
from srp4ctr.features.offline.item_replay import ItemReplay, best
from srp4ctr.features.offline.visible_events import counted_events
from srp4ctr.features.tensors.arrays import ActivityArrays
from srp4ctr.streams.events.schema import Click, Impression, item_key
from srp4ctr.testing.raw_logs import Published, write_log
from tests.builders import NOON_MS, a_click, an_impression

HOUR_MS = 3_600_000
START_MS = NOON_MS + 30 * HOUR_MS
WINDOWS_MS = {"2h": 2 * HOUR_MS}


def published() -> list[Published]:
    """Three days of clicks and impressions, of which every tenth arrives an hour late."""
    chance = np.random.default_rng(0)
    found: list[Published] = []
    for n in range(400):
        at_ms = NOON_MS + n * HOUR_MS // 6
        item, user, request = f"i{chance.integers(12)}", f"u{n}", f"r{n}"
        event: Click | Impression
        if n % 3 == 0:
            event = an_impression(item, at_ms=at_ms, user_id=user, request_id=request)
        else:
            event = a_click(item, at_ms=at_ms, user_id=user, request_id=request)
        found.append((event, at_ms + (HOUR_MS if n % 10 == 0 else 0)))
    return sorted(found, key=lambda each: each[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log"), published())


def computed(log: EventLog, keys: np.ndarray, at_ms: int) -> ActivityArrays:
    """Return the counters of ``keys`` as training's examples have them."""
    rows = {"row": np.arange(len(keys)), "at_ms": np.full(len(keys), at_ms), "owner": keys}
    counted = counted_events(log).rename(owner="item_key")
    table = activity_table(log, counted, ibis.memtable(pa.table(rows)))
    return activity_of(log.rows(table.order_by("row")))


def test_counters_follow_the_events_as_the_examples_compute_them(folder: Path) -> None:
    with opened(folder) as log:
        replay = ItemReplay(item_replay.counted_since(log, START_MS), WINDOWS_MS)
        assert len(replay.item_keys) == 12
        for hours in (0.0, 0.5, 3.0, 3.0, 30.0):
            at_ms = START_MS + round(hours * HOUR_MS)
            found, expected = replay.advance(at_ms), computed(log, replay.item_keys, at_ms)
            np.testing.assert_allclose(found.counts, expected.counts, atol=1e-9)
            np.testing.assert_array_equal(found.first_seen_ms, expected.first_seen_ms)


def test_windows_count_the_clicks_that_became_visible_in_them(folder: Path) -> None:
    at_ms = START_MS + 5 * HOUR_MS
    with opened(folder) as log:
        replay = ItemReplay(item_replay.counted_since(log, START_MS), WINDOWS_MS)
    replay.advance(at_ms - HOUR_MS)
    replay.advance(at_ms)
    clicks = [(event, at) for event, at in published() if isinstance(event, Click)]
    for place, key in enumerate(replay.item_keys.tolist()):
        of_item = [known for e, known in clicks if item_key(e.item_id) == key]
        recent = [known for known in of_item if at_ms - 2 * HOUR_MS <= known < at_ms]
        assert replay.clicks_within["2h"][place] == len(recent)
        assert replay.clicks[place] == sum(known < at_ms for known in of_item)


def test_an_event_is_not_visible_at_its_own_instant(tmp_path: Path) -> None:
    click = a_click("i1", at_ms=START_MS + 1)
    folder = write_log(tmp_path, [(click, click.occurred_at)])
    with opened(folder) as log:
        replay = ItemReplay(item_replay.counted_since(log, START_MS), WINDOWS_MS)
    assert not replay.advance(START_MS + 1).counts.any()
    assert replay.advance(START_MS + 2).counts.any()


def test_the_best_are_in_order_without_those_left_out_and_without_zeros() -> None:
    scores = np.array([0.0, 3.0, 5.0, 3.0, 4.0])
    assert best(scores, 9, []).tolist() == [2, 4, 1, 3]
    assert best(scores, 2, [2]).tolist() == [4, 1]
    assert scores[2] == 5.0
