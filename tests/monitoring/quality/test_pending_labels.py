from typing import Any

from srp4ctr.monitoring.quality.pending_labels import (
    GRACE_MS,
    OpenImpressions,
    ProvisionalCounts,
)
from srp4ctr.monitoring.quality.version_order import MAX_OTHERS, OTHER
from tests.monitoring.conftest import (
    LABEL_WINDOW_MS,
    MINUTE_MS,
    START_MS,
    a_label,
    an_impression,
)

HOUR_MS = 60 * MINUTE_MS


def some_open() -> OpenImpressions:
    return OpenImpressions(window_ms=HOUR_MS, label_window_ms=LABEL_WINDOW_MS)


def show(
    kept: OpenImpressions,
    item: str = "i1",
    *,
    after_ms: int = 0,
    is_clicked: bool | None = None,
    known_ms: int | None = None,
    **changes: Any,
) -> None:
    known = START_MS + after_ms if known_ms is None else known_ms
    kept.add(an_impression(item, after_ms=after_ms, **changes), known, is_clicked)


def test_an_impression_is_open_until_its_label_says_that_it_was_not_clicked() -> None:
    kept = some_open()
    show(kept, "i1")
    show(kept, "i2")
    assert kept.counts() == {"v7": ProvisionalCounts(open=2)}
    kept.label(a_label("i1"))
    assert kept.counts() == {"v7": ProvisionalCounts(open=1)}


def test_a_click_is_known_at_once_and_stays_open_until_the_window_closes() -> None:
    kept = some_open()
    show(kept)
    kept.label(a_label(clicked=True))
    kept.label(a_label(clicked=True))
    assert kept.counts() == {"v7": ProvisionalCounts(open=1, clicked=1)}
    kept.advance(START_MS + LABEL_WINDOW_MS)
    assert kept.counts() == {}


def test_without_a_label_it_is_overdue_and_then_given_up() -> None:
    kept = some_open()
    show(kept)
    kept.advance(START_MS + LABEL_WINDOW_MS + GRACE_MS - 1)
    assert kept.counts() == {"v7": ProvisionalCounts(open=1)}
    kept.advance(START_MS + LABEL_WINDOW_MS + GRACE_MS)
    assert kept.counts() == {"v7": ProvisionalCounts(overdue=1)}
    kept.advance(START_MS + LABEL_WINDOW_MS + GRACE_MS + HOUR_MS)
    assert kept.counts() == {}


def test_a_label_that_comes_after_all_ends_what_was_overdue() -> None:
    kept = some_open()
    for item, clicked in (("i1", True), ("i2", False)):
        show(kept, item)
        kept.advance(START_MS + LABEL_WINDOW_MS + GRACE_MS)
        kept.label(a_label(item, clicked=clicked))
    assert kept.counts() == {}


def test_what_is_settled_leaves_the_counts_of_the_others() -> None:
    kept = some_open()
    show(kept, "clicked")
    kept.label(a_label("clicked", clicked=True))
    show(kept, "late", after_ms=1000)
    kept.advance(START_MS + LABEL_WINDOW_MS)
    assert kept.counts() == {"v7": ProvisionalCounts(open=1)}
    kept.advance(START_MS + 1000 + LABEL_WINDOW_MS + GRACE_MS)
    show(kept, "next", after_ms=2 * LABEL_WINDOW_MS)
    kept.label(a_label("next"))
    assert kept.counts() == {"v7": ProvisionalCounts(overdue=1)}


def test_what_has_its_label_already_is_not_waited_for() -> None:
    kept = some_open()
    show(kept, "i1", is_clicked=False)
    show(kept, "i2", is_clicked=True)
    assert kept.counts() == {"v7": ProvisionalCounts(open=1, clicked=1)}


def test_a_repeated_impression_is_one() -> None:
    kept = some_open()
    show(kept)
    show(kept)
    assert kept.counts() == {"v7": ProvisionalCounts(open=1)}


def test_one_wrong_clock_closes_no_window() -> None:
    kept = some_open()
    show(kept, "i1")
    show(kept, "i2", after_ms=5 * HOUR_MS, known_ms=START_MS + 1000)
    assert kept.counts() == {"v7": ProvisionalCounts(open=2)}


def test_a_producer_cannot_make_a_thousand_time_series() -> None:
    kept = some_open()
    for number in range(100):
        show(kept, f"i{number}", model_version=f"x{number}")
    assert len(kept.counts()) == MAX_OTHERS + 1
    assert kept.counts()[OTHER].open == 100 - MAX_OTHERS
