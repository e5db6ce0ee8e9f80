"""A restarted monitor counts what it counted before: labels come by time."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from srp4ctr.monitoring.collector import partition_order
from srp4ctr.monitoring.collector.partition_order import PartitionOrder
from srp4ctr.monitoring.quality.ab_test import AbTest
from srp4ctr.monitoring.quality.live_quality import LiveQuality
from srp4ctr.streams.state.label_join import ImpressionLabel
from tests.builders import NOON_MS

HOUR_MS = 3_600_000
WINDOW_MS = HOUR_MS // 2  # in which a click counts
PARTITIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ALabelRecord:
    timestamp: int
    partition: int
    label: ImpressionLabel


def a_day() -> list[ALabelRecord]:
    """Return the labels of two versions by when they were published."""
    draw = random.Random(1)
    made = []
    for number in range(4000):
        shown_at = NOON_MS + int(draw.random() * 24 * HOUR_MS)
        version = draw.choice(["v1", "v2"])
        clicked = draw.random() < (0.10 if version == "v1" else 0.13)
        matured = shown_at + (draw.randrange(1000, 60_000) if clicked else WINDOW_MS)
        label = ImpressionLabel(
            request_id=f"r{number}",
            user_id=f"u{number}",
            item_id="i",
            position=0,
            score=0.1,
            propensity=None,
            model_version=version,
            impression_at=shown_at,
            clicked=clicked,
            within_window=True,
            matured_at=matured,
            revision=2 if clicked else 0,
        )
        partition = number % PARTITIONS
        made.append(ALabelRecord(timestamp=matured, partition=partition, label=label))
    return sorted(made, key=lambda each: each.timestamp)


def ordered(records: list[ALabelRecord]) -> Iterator[ALabelRecord]:
    """Yield ``records`` as a reader gets them that gets whole partitions, one by one."""
    order, unread = PartitionOrder(), dict.fromkeys(range(PARTITIONS))
    for partition in list(unread):
        order.add(
            partition, [record for record in records if record.partition == partition]
        )
        del unread[partition]
        yield from order.take(behind=unread)


def compared(records: list[ALabelRecord]) -> tuple[object, ...]:
    test = AbTest()
    live = LiveQuality(window_ms=HOUR_MS, label_window_ms=WINDOW_MS, ab_test=test)
    for record in records:
        live.add(record.label, record.partition)
    (found,) = test.differences("v1")
    return found.impressions, found.click_rate, found.verdict


def test_labels_of_whole_partitions_are_compared_as_they_were_when_they_came() -> None:
    as_they_came = a_day()
    by_partition = sorted(as_they_came, key=lambda each: each.partition)
    assert compared(by_partition) != compared(as_they_came)  # most are too old by then
    assert compared(list(ordered(by_partition))) == compared(as_they_came)


def test_a_partition_stays_in_its_own_order() -> None:
    records = a_day()
    draw = random.Random(2)
    swapped = [records[n ^ 1] if draw.random() < 0.5 else records[n] for n in range(100)]
    found = list(ordered(swapped))
    for partition in range(PARTITIONS):
        wanted = [each for each in swapped if each.partition == partition]
        assert [each for each in found if each.partition == partition] == wanted


def test_nothing_waits_long_for_a_partition_whose_broker_is_away() -> None:
    now_s = [0.0]
    order = PartitionOrder(clock=lambda: now_s[0])
    (record, *_) = a_day()
    order.add("a", [record] * (partition_order.MAX_WAITING + 1))
    assert order.take(behind=["b"]) == []
    assert order.full == {"a"}
    for _ in range(int(partition_order.MAX_WAIT_S)):
        now_s[0] += 1
        assert order.take(behind=["b"]) == []
    now_s[0] += 1
    assert len(order.take(behind=["b"])) == partition_order.MAX_WAITING + 1
    assert order.silence.longest_s > partition_order.MAX_WAIT_S
    assert order.full == set()
    order.add("b", [record])  # its broker is back
    order.add("a", [replace(record, timestamp=record.timestamp + 1)])
    assert order.take(behind=["b"]) == [record]
    assert order.silence.longest_s == 0


def test_a_process_that_did_not_run_takes_no_partition_for_silent() -> None:
    now_s = [0.0]
    order = PartitionOrder(clock=lambda: now_s[0])
    first, second, *_ = a_day()
    order.add("a", [second])
    for _ in range(int(partition_order.MAX_WAIT_S / partition_order.MAX_STEP_S)):
        now_s[0] += 60.0  # the machine is busy
        assert order.take(behind=["b"]) == []
    order.add("b", [first, second])
    assert order.take(behind=["b"]) == [first, second, second]
