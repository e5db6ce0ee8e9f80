"""Erasure: no row in the log has an erased user, and items lose no count."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srp4ctr.errors import OutageError
from srp4ctr.features.consistency import replay
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.codec import LoggedEvent
from srp4ctr.streams.events.schema import (
    BEHAVIOR_EVENTS_TOPIC,
    FORGOTTEN_USER,
    LABELS_TOPIC,
    Impression,
    UserEvent,
    item_key,
)
from srp4ctr.streams.raw_log import erasure
from srp4ctr.streams.raw_log.compaction import compact, overwrite
from srp4ctr.streams.raw_log.delta_tables import (
    Log,
    append,
    created,
    dataset,
    read_rows,
    reading,
)
from srp4ctr.streams.raw_log.erasure import erase_forgotten, erasure_requests_in, is_erased
from srp4ctr.streams.raw_log.log_tables import event_of, table_of
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.worker.rebuild import Span, rebuild_rows
from srp4ctr.testing.raw_logs import AnyLog, Published, label_of, write_log
from tests.builders import NOON_MS, a_behavior, a_click, a_forget, a_profile, an_impression
from tests.fuzzing import examples

SHOWN = an_impression(
    "i1",
    event_id="secret-e",
    user_id="ann",
    request_id="secret-r",
    context={"town": "Ulm"},
    numbers={"distance": 3.5},
    score=0.25,
)
A_LIFE: list[UserEvent] = [
    SHOWN,
    an_impression("i1", user_id="bob"),
    a_click("i1", user_id="ann", request_id="secret-r"),
    a_click("i1", user_id="ann", request_id="secret-r"),  # delivered twice
    a_behavior("i2", user_id="ann"),
    a_profile(user_id="ann", town="secret-town"),
    a_forget(user_id="ann", at_ms=NOON_MS + 10_000),
    an_impression("i1", user_id="ann", request_id="late", at_ms=NOON_MS + 9_000),
    a_behavior("i3", user_id="ann", at_ms=NOON_MS + 20_000),
]


def a_log(log: AnyLog, events: list[UserEvent], step: int = 3) -> AnyLog:
    """Write ``events`` as commits of ``step`` each, with a label of each impression."""
    for start in range(0, len(events), step):
        known: list[Published] = [
            (e, NOON_MS + 60_000) for e in events[start : start + step]
        ]
        write_log(log, known, start=start)
    labels = [label_of(event) for event in events if isinstance(event, Impression)]
    write_log(log, [(label, NOON_MS + 60_000) for label in labels])
    return log


def rows(folder: Log, topic: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = dataset(folder, topic).to_table().to_pylist()
    return sorted(rows, key=lambda row: row["offset"])


def counters(folder: Log) -> dict[tuple[str, int], Any]:
    """Return what each item's share of each partition counted, by the stream's own fold."""
    places = replay.places(folder, "item_id", 1000)
    events = replay.events_of(folder, "item_id", places)
    shares = (replay.item_share_at(events[p], 1 << 40, p[1]) for p in places)
    return {p: each for p, each in zip(places, shares, strict=True) if each.first_seen_ms}


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


def test_what_a_forgotten_user_did_is_gone_or_nobodys(tmp_path: Path) -> None:
    log = a_log(tmp_path, A_LIFE)
    found = erase_forgotten(log)
    assert (found.users, found.removed, found.anonymized) == (1, 5, 3)
    left = rows(log, BEHAVIOR_EVENTS_TOPIC)
    of_ann = [(row["type"], row["item_id"]) for row in left if row["user_id"] == "ann"]
    assert of_ann == [("forget", None), ("behavior", "i3")]
    nobodys = [row for row in left if row["user_id"] == FORGOTTEN_USER]
    assert [row["type"] for row in nobodys] == ["impression", "click", "click"]
    assert len({row["request_id"] for row in nobodys}) == 1
    for path, content in everything(log).items():
        for secret in (b"secret", b"Ulm", b"late"):
            assert secret not in content, path
    assert {row["user_id"] for row in rows(log, LABELS_TOPIC)} == {"bob"}


def test_items_keep_their_counters_and_users_theirs(raw_log: Log) -> None:
    log = a_log(raw_log, A_LIFE)
    before, users = counters(log), replay.places(log, "user_id", 1000).keys()
    erase_forgotten(log)
    assert counters(log) == before
    assert replay.places(log, "user_id", 1000).keys() == users


def parquet_files(folder: Path) -> dict[Path, bytes]:
    return {at: each for at, each in everything(folder).items() if at.suffix == ".parquet"}


def test_again_it_finds_nothing_and_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    log = a_log(tmp_path, A_LIFE)
    before = everything(log)
    found = erase_forgotten(log, dry_run=True)
    assert everything(log) == before
    assert erase_forgotten(log) == found
    once = parquet_files(log)
    again = erase_forgotten(log)
    assert (again.users, again.folders) == (1, 0)
    assert parquet_files(log) == once


def test_earlier_files_are_gone_though_nothing_is_left_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    log = a_log(tmp_path, A_LIFE)
    with monkeypatch.context() as patched:
        patched.setattr(erasure, "vacuum", killed)
        with pytest.raises(KeyboardInterrupt):
            erase_forgotten(log)
    assert any(b"secret" in each for each in everything(log).values())
    erase_forgotten(log)
    assert not any(b"secret" in each for each in everything(log).values())


def test_who_read_before_tries_again_and_finds_the_erased_log(tmp_path: Path) -> None:
    log = a_log(tmp_path, A_LIFE)
    before = dataset(log, BEHAVIOR_EVENTS_TOPIC)
    erase_forgotten(log)
    with pytest.raises(OutageError, match="try again"), reading(log):
        before.to_table()
    assert "secret-e" not in [row["event_id"] for row in rows(log, BEHAVIOR_EVENTS_TOPIC)]


def test_what_is_written_and_compacted_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = list[int]()

    def overwrite_late(*arguments: Any) -> None:
        if not done:
            done.append(compact(log, BEHAVIOR_EVENTS_TOPIC, 0))
            late = a_behavior("i9", user_id="bob")
            write_log(log, [(late, NOON_MS + 60_000)], start=len(A_LIFE))
        overwrite(*arguments)

    log = a_log(tmp_path, A_LIFE)
    monkeypatch.setattr(erasure, "overwrite", overwrite_late)
    monkeypatch.setattr("srp4ctr.retries.FIRST_PAUSE_S", 0.01)
    found = erase_forgotten(log)
    assert done == [3]
    assert (found.removed, found.anonymized) == (5, 3)
    left = rows(log, BEHAVIOR_EVENTS_TOPIC)
    assert [row["item_id"] for row in left if row["type"] == "behavior"] == ["i3", "i9"]
    assert not any(b"secret" in each for each in everything(log).values())


def test_who_has_an_erased_users_offset_keeps_the_row(raw_log: Log) -> None:
    log, of_bob = a_log(raw_log, A_LIFE), a_behavior("i9", user_id="bob")
    table, end = created(log, BEHAVIOR_EVENTS_TOPIC), len(A_LIFE)
    # As a writer does whose broker has lost what was logged.
    assert append(table, table_of(BEHAVIOR_EVENTS_TOPIC, []), {0: range(end, 0)})
    write_log(log, [(of_bob, NOON_MS + 60_000)] * end)
    found = erase_forgotten(log)
    assert (found.removed, found.anonymized) == (5, 3)
    users = [row["user_id"] for row in rows(log, BEHAVIOR_EVENTS_TOPIC)]
    assert users.count("bob") == end + 1


def test_a_log_without_requests_or_files_stays_as_it_is(tmp_path: Path) -> None:
    assert erase_forgotten(tmp_path).users == 0
    log = a_log(tmp_path, A_LIFE[:5])
    before = everything(log)
    assert erase_forgotten(log).folders == 0
    assert everything(log) == before


@pytest.mark.parametrize(
    ("user", "at_ms", "expected"),
    [("ann", NOON_MS, True), ("ann", NOON_MS + 10_001, False), ("bob", NOON_MS, False)],
)
def test_a_request_is_of_one_user_until_its_time(
    tmp_path: Path, user: str, at_ms: int, expected: bool
) -> None:
    assert is_erased(erasure_requests_in(a_log(tmp_path, A_LIFE)), user, at_ms) is expected


@st.composite
def lives(draw: st.DrawFn) -> list[UserEvent]:
    """Return what two users do; what is published twice happened at one time."""
    made: list[UserEvent] = []
    times: dict[tuple[str, ...], int] = {}
    for _ in range(draw(st.integers(5, 30))):
        user, request, item = (draw(st.sampled_from(each)) for each in ("ab", "rs", "xy"))
        kind = draw(st.sampled_from(("shown", "clicked", "forget")))
        at_ms = NOON_MS + draw(st.integers(0, 9))
        if kind == "forget":
            made.append(a_forget(at_ms=at_ms, user_id=user))
            continue
        at_ms = times.setdefault((kind, user, request, item), at_ms)
        make = an_impression if kind == "shown" else a_click
        made.append(make(item, at_ms=at_ms, user_id=user, request_id=request))
    return made


@settings(deadline=None, max_examples=examples(10))
@given(lives())
def test_whatever_happened_items_keep_their_counters(
    tmp_path_factory: pytest.TempPathFactory, events: list[UserEvent]
) -> None:
    log = a_log(tmp_path_factory.mktemp("log"), events, step=20)
    before = counters(log)
    erase_forgotten(log)
    assert counters(log) == before


class AsLogged:
    """A past that is nothing but a raw log: what Kafka held is gone."""

    is_whole, missing = True, 0

    def __init__(self, log: Path) -> None:
        self.log_dir = log

    async def events(self, since_ms: int, end: int) -> AsyncIterator[list[LoggedEvent]]:
        for found in read_rows(self.log_dir, BEHAVIOR_EVENTS_TOPIC, 0, since_ms):
            yield [event_of(row) for row in found if row["offset"] < end]


def rebuilt(log: Path) -> Rows:
    """Return what a rebuild of partition 0 writes into an empty store."""
    written = Rows()

    async def read(users: object, shares: object) -> Rows:
        return Rows()

    async def write(rows: Rows) -> None:
        written.update(rows)

    span = Span(partition=0, since_ms=0, end=99)
    past: Any = AsLogged(log)
    asyncio.run(rebuild_rows(past, span, StreamConfig(), read, write))
    return written


def test_a_rebuild_gives_items_their_counters_and_anonymous_events_no_row(
    tmp_path: Path,
) -> None:
    log = a_log(tmp_path, A_LIFE)
    before = rebuilt(log)
    erase_forgotten(log)
    after = rebuilt(log)
    assert after.users.keys() <= before.users.keys() == {"ann", "bob"}
    (kept,) = after.users["ann"].sequence.elements
    assert kept.item_key == item_key("i3")
    for share, activity in before.shares.items():
        assert after.shares[share].impressions == activity.impressions
        assert after.shares[share].clicks == activity.clicks
