"""Clicks in windows are counted as a loop over all clicks counts them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pytest

from srp4ctr.features.offline import click_windows
from srp4ctr.features.offline.event_tables import EventLog, opened

HOUR_MS = 3_600_000
NOON_MS = 1_700_000_000_000


def columns(seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return clicks of three days, some known late, and instants of the last day.

    All on five items of a few minutes, so that bounds and ties are met.
    """
    random = np.random.default_rng(seed)
    occurred = NOON_MS + random.integers(0, 72 * 4, 400) * HOUR_MS // 4
    late = random.choice([0, 1, HOUR_MS, 3 * HOUR_MS, 30 * HOUR_MS], 400)
    clicks = {
        "item_key": random.integers(0, 5, 400),
        "occurred_at": occurred,
        "visible_at": occurred + late,
    }
    at_ms = NOON_MS + random.integers(48 * 4, 72 * 4, 150) * HOUR_MS // 4
    instants = {
        "row": np.arange(7, 157),
        "item_key": random.integers(0, 6, 150),  # the sixth has no click
        "at_ms": at_ms,
    }
    return clicks, instants


def counted(log: EventLog, clicks: dict[str, Any], instants: dict[str, Any]) -> Any:
    tables = (ibis.memtable(pa.table(each)) for each in (clicks, instants))
    return log.rows(click_windows.click_counts(log, *tables).order_by("row"))


def by_hand(clicks: dict[str, Any], item: int, at_ms: int) -> list[int]:
    known = (clicks["item_key"] == item) & (clicks["visible_at"] < at_ms)
    ages = at_ms - clicks["occurred_at"][known]
    return [int((ages <= hours * HOUR_MS).sum()) for hours in (2, 24, 10**6)]


@pytest.mark.parametrize("rows_at_once", [10**9, 200])
def test_clicks_are_counted_as_by_hand(tmp_path: Path, rows_at_once: int) -> None:
    for seed in range(3):
        clicks, instants = columns(seed)
        with opened(tmp_path) as log:
            found = counted(replace(log, rows_at_once=rows_at_once), clicks, instants)
        assert found["row"].to_pylist() == instants["row"].tolist()
        expected = [
            by_hand(clicks, *pair)
            for pair in zip(instants["item_key"], instants["at_ms"], strict=True)
        ]
        names = ("clicks_2h", "clicks_24h", "clicks_all")
        assert np.stack([found[n] for n in names], axis=1).tolist() == expected
        assert 0 < sum(row[0] for row in expected) < sum(row[1] for row in expected)


def test_a_click_of_the_instant_itself_is_not_seen(tmp_path: Path) -> None:
    same = {"item_key": [1], "occurred_at": [NOON_MS], "visible_at": [NOON_MS]}
    clicks = {name: np.array(values) for name, values in same.items()}
    instants = {
        "row": np.arange(3),
        "item_key": np.ones(3, dtype=np.int64),
        "at_ms": NOON_MS + np.array([0, 1, 2 * HOUR_MS + 1]),
    }
    with opened(tmp_path) as log:
        found = counted(log, clicks, instants)
    assert found["clicks_2h"].to_pylist() == [0, 1, 0]
    assert found["clicks_all"].to_pylist() == [0, 1, 1]
