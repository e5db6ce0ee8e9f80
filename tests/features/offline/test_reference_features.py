"""Snapshots equal a reference implementation, and the stream's reducers."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from srp4ctr.features.offline import point_in_time
from srp4ctr.features.offline.event_tables import opened
from srp4ctr.features.offline.point_in_time import RequestSnapshots
from srp4ctr.features.tensors.arrays import ActivityArrays
from srp4ctr.streams.events.schema import Click, Impression, UserEvent, item_key
from srp4ctr.streams.state.counters import Activity, count, decayed
from srp4ctr.streams.state.sequences import EMPTY, element_of, merge
from srp4ctr.testing.raw_logs import label_of, write_log
from tests.builders import NOON_MS, a_behavior, a_click, a_forget, a_profile, an_impression
from tests.features.reference_features import (
    ReferenceFeatures,
    Row,
    decayed_sums,
    sequence_of,
)

LENGTH, WIDTH = 4, 3
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
TTL_DAYS = 90.0
TTL_MS = 90 * DAY_MS
CLOSE: Any = {"rtol": 1e-9, "atol": 2.0**-500}  # 500 half-lives leave nothing
PARTITION_OF = {"u1": 0, "u2": 1, "u3": 0}


def check_snapshots(found: RequestSnapshots, rows: Sequence[Row]) -> None:
    """Assert that ``found`` equals the reference implementation, and the reducers."""
    reference = ReferenceFeatures(rows)
    requests = reference.requests()
    expected = [(each.at_ms, each.user_id) for each in requests]
    assert list(zip(found.times_ms.tolist(), found.user_ids, strict=True)) == expected
    candidates = []
    for index, request in enumerate(requests):
        user, at_ms = request.user_id, request.at_ms
        assert found.user_attributes[index] == reference.attributes_at(user, at_ms)
        sequence = sequence_of(found, index)
        assert sequence == reference.sequence_at(user, at_ms, LENGTH, TTL_MS)
        folded = EMPTY
        for element in map(element_of, reference.acted_at(user, at_ms)):
            folded = merge(folded, element, LENGTH)
        unexpired = (e for e in folded.elements if e.occurred_at > at_ms - TTL_MS)
        assert sequence == list(unexpired)
        counted = reference.of_user_at(user, at_ms)
        is_activity(found.user_activity, index, counted, at_ms)
        is_activity(found.total_activity, index, reference.of_all_at(at_ms), at_ms)
        candidates += [(index, item_key(each.item_id)) for each in request.shown]
    keys = found.candidate_item_keys.tolist()
    assert list(zip(found.candidate_requests.tolist(), keys, strict=True)) == candidates
    for index, (request_row, key) in enumerate(candidates):
        at_ms, user = requests[request_row].at_ms, requests[request_row].user_id
        shown = [at for at, k in reference.shown_at(user, at_ms, WIDTH) if k == key]
        assert found.candidate_exposures.counts[index] == len(shown)
        assert found.candidate_exposures.last_shown_ms[index] == max(shown, default=0)
        counted = reference.of_item_at(key, at_ms)
        is_activity(found.candidate_activity, index, counted, at_ms)


def is_activity(
    found: ActivityArrays, row: int, events: Sequence[Impression | Click], at_ms: int
) -> None:
    """Assert that ``found`` counts ``events``, as of ``at_ms``."""
    folded = Activity()
    for offset, event in enumerate(events):
        is_click = isinstance(event, Click)
        folded = count(folded, at_ms=event.occurred_at, is_click=is_click, offset=offset)
    elapsed_ms = at_ms - folded.counted_at_ms
    counts = found.impressions[row].tolist(), found.clicks[row].tolist()
    stream = decayed(folded.impressions, elapsed_ms), decayed(folded.clicks, elapsed_ms)
    np.testing.assert_allclose(counts, decayed_sums(events, at_ms), **CLOSE)
    np.testing.assert_allclose(counts, stream, **CLOSE)
    assert found.counted_at_ms[row] == at_ms
    assert found.first_seen_ms[row] == folded.first_seen_ms


def write_rows(folder: Path, rows: Sequence[Row], end: int) -> Path:
    """Write ``rows`` and labels: each partition in two files, the first until ``end``."""
    for partition in (0, 1):
        published = [
            (row.event, row.known_ms)
            for row in rows
            if PARTITION_OF[row.event.user_id] == partition
        ]
        write_log(folder, published[:end], partition)
        write_log(folder, published[end:], partition, start=min(end, len(published)))
    shown = [row.event for row in rows if isinstance(row.event, Impression)]
    return write_log(folder, [(label_of(each), each.occurred_at) for each in shown])


def a_row(draw: random.Random, index: int, steps_ms: Sequence[int]) -> Row:
    """Return a random event of few users, items, requests and instants: ties abound."""
    at_ms = NOON_MS + draw.choice(steps_ms) + 1000 * draw.randrange(20)
    fields: dict[str, Any] = {"event_id": str(index), "at_ms": at_ms}
    fields["user_id"] = draw.choice(list(PARTITION_OF))
    item, request = draw.choice("abcd"), f"r{draw.randrange(8)}"
    kinds = ("shown", "clicked", "did", "is", "forget")
    kind = draw.choices(kinds, (10, 5, 10, 5, 0.2))[0]
    if kind == "shown":
        position = draw.randrange(3)
        event: UserEvent = an_impression(
            item, request_id=request, position=position, **fields
        )
    elif kind == "clicked":
        event = a_click(item, request_id=request, **fields)
    elif kind == "did":
        action, value = draw.choice(("view", "buy")), draw.choice((None, 1.0, 2.0))
        event = a_behavior(item, action=action, value=value, **fields)
    elif kind == "is":
        of_user = {"at_ms": at_ms, "user_id": fields["user_id"]}
        event = a_profile(age=draw.choice("123"), **of_user)
    else:
        event = a_forget(**fields)
    late_ms = draw.choice((0, 0, 1, 1000, 7000, 40 * DAY_MS, -1000))
    return Row(event=event, known_ms=at_ms + late_ms)


# A log of a seed has nothing to shrink.
@settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(1, 150),
    days=st.lists(st.integers(0, 130), min_size=1, max_size=4),
    end=st.integers(0, 60),
)
def test_snapshots_equal_the_reference_and_the_reducers(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    size: int,
    days: list[int],
    end: int,
) -> None:
    """With ties, late arrivals, duplicates, offsets in two files, and erasure requests.

    Computed at once, or in parts of users and items.
    """
    draw, steps_ms = random.Random(seed), [day * DAY_MS for day in days]
    rows = [a_row(draw, index, steps_ms) for index in range(size)]
    folder = write_rows(tmp_path_factory.mktemp("log"), rows, end)
    with opened(folder) as whole:
        log = replace(whole, rows_at_once=draw.choice((9, 10_000)))
        found = point_in_time.snapshot(log, LENGTH, TTL_DAYS, WIDTH)
    check_snapshots(found, rows)


def test_counts_neither_overflow_nor_cancel_over_years(tmp_path: Path) -> None:
    """2^(a year of hours) overflows, and a week's count must not vanish in an old one."""
    hours = [0, 1, 700, 8_000, 8_001, 20_000, 20_000.5]
    times_ms = [NOON_MS + round(hour * HOUR_MS) for hour in hours]
    shown = [an_impression("a", request_id=str(at), at_ms=at) for at in times_ms]
    rows = [Row(event=each, known_ms=each.occurred_at) for each in shown]
    with opened(write_rows(tmp_path, rows, 0)) as log:
        check_snapshots(point_in_time.snapshot(log, LENGTH, TTL_DAYS, WIDTH), rows)
