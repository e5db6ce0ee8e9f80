import random
from typing import Any

from srp4ctr.monitoring.quality.ab_test import AbTest
from srp4ctr.monitoring.quality.live_quality import LiveQuality
from srp4ctr.monitoring.quality.quality_sums import ModelQuality
from srp4ctr.monitoring.quality.version_order import MAX_OTHERS, OTHER, UNRANKED
from srp4ctr.streams.events.schema import Click, Impression, UserEvent
from srp4ctr.streams.state.label_join import ImpressionLabel, LabelJoin
from tests.monitoring.conftest import LABEL_WINDOW_MS, MINUTE_MS, START_MS, a_label
from tests.monitoring.same_figures import assert_same

HOUR_MS = 60 * MINUTE_MS


def a_window(window_ms: int = HOUR_MS) -> LiveQuality:
    return LiveQuality(window_ms=window_ms, label_window_ms=LABEL_WINDOW_MS)


def quality_of(*labels: ImpressionLabel, window_ms: int = HOUR_MS) -> ModelQuality:
    live = a_window(window_ms)
    for label in labels:
        live.add(label, partition=0)
    (quality,) = live.quality()
    return quality


def test_a_repeated_label_changes_nothing() -> None:
    quality = quality_of(a_label("i1"), a_label("i2"), a_label("i1"))
    assert quality.impressions == 2


def test_equal_request_ids_of_two_users_are_two_impressions() -> None:
    labels = [a_label("i1", user_id=f"u{number}") for number in range(10)]
    assert quality_of(*labels).impressions == 10


def test_a_click_counts_only_when_its_window_has_closed() -> None:
    live = a_window()
    live.add(a_label("i1", after_ms=5000, clicked=True), partition=0)
    assert live.quality() == ()  # or the newest impressions would all look clicked
    live.add(a_label("i2", after_ms=5001), partition=0)
    (quality,) = live.quality()
    assert (quality.impressions, quality.clicks) == (2, 1)


def test_another_partition_proves_nothing() -> None:
    live = a_window()
    live.add(a_label("i1", after_ms=5000, clicked=True), partition=0)
    live.add(a_label("i2", after_ms=9000), partition=1)
    (quality,) = live.quality()
    assert quality.impressions == 1


def test_an_idle_partition_settles_by_the_clock() -> None:
    live = a_window()
    live.add(a_label("i1", after_ms=5000, clicked=True), partition=0)
    live.advance(START_MS + 5000 + LABEL_WINDOW_MS - 1)
    assert live.quality() == ()
    live.advance(START_MS + 5000 + LABEL_WINDOW_MS)
    assert live.quality()[0].clicks == 1


def test_a_click_in_time_that_arrives_late_replaces_the_label() -> None:
    quality = quality_of(a_label("i1"), a_label("i2"), a_label("i1", clicked=True))
    assert (quality.impressions, quality.clicks) == (2, 1)


def test_a_click_after_the_window_is_shown_apart() -> None:
    late = a_label("i1", clicked=True, within_window=False)
    quality = quality_of(a_label("i1"), late)
    assert (quality.clicks, quality.late_clicks, quality.click_rate) == (0, 1, 0.0)


def test_an_older_revision_never_replaces_a_newer_one() -> None:
    quality = quality_of(a_label("i1", clicked=True), a_label("i1"))
    assert quality.clicks == 1


def test_what_has_left_the_window_is_gone() -> None:
    old = a_label("i1", model_version="v6", clicked=True)
    later = a_label("i2", after_ms=HOUR_MS)
    assert quality_of(old, later).model_version == "v7"
    at_the_edge = a_label("i2", after_ms=HOUR_MS - 1, model_version="v6")
    assert quality_of(old, at_the_edge).impressions == 2


def test_a_correction_for_an_impression_outside_the_window_is_ignored() -> None:
    live = a_window()
    for label in (a_label("i1"), a_label("i2", after_ms=2 * HOUR_MS)):
        live.add(label, partition=0)
    live.add(a_label("i1", clicked=True), partition=0)
    assert [quality.impressions for quality in live.quality()] == [1]


def test_impressions_without_a_model_are_named_so() -> None:
    assert quality_of(a_label(model_version=None, score=None)).model_version == UNRANKED


def test_a_producer_cannot_make_a_thousand_time_series() -> None:
    live = a_window()
    for number in range(1000):
        live.add(a_label(f"i{number}", model_version=f"x{number}"), partition=0)
    versions = [quality.model_version for quality in live.quality()]
    assert len(versions) == MAX_OTHERS + 1
    assert OTHER in versions


def test_a_version_has_its_name_again_when_others_have_left_the_window() -> None:
    live = a_window()
    for number in range(MAX_OTHERS + 1):
        live.add(a_label(f"i{number}", model_version=f"x{number}"), partition=0)
    live.add(a_label("later", after_ms=2 * HOUR_MS, model_version="x0"), partition=0)
    live.add(a_label("next", after_ms=2 * HOUR_MS, model_version="new"), partition=0)
    assert [quality.model_version for quality in live.quality()] == ["new", "x0"]


def test_a_correction_is_counted_where_its_impression_was() -> None:
    live = a_window()
    for number in range(MAX_OTHERS + 1):
        live.add(a_label(f"i{number}", model_version=f"x{number}"), partition=0)
    last = a_label(f"i{MAX_OTHERS}", model_version=f"x{MAX_OTHERS}", clicked=True)
    live.add(last, partition=0)
    clicks = {each.model_version: each.clicks for each in live.quality() if each.clicks}
    assert clicks == {OTHER: 1}


def test_what_leaves_the_window_of_quality_stays_in_the_comparison() -> None:
    ab_test = AbTest()
    live = LiveQuality(window_ms=HOUR_MS, label_window_ms=LABEL_WINDOW_MS, ab_test=ab_test)
    for version in ("v1", "v2"):
        live.add(a_label(version, model_version=version, position=0), partition=0)
    live.add(a_label("later", after_ms=2 * HOUR_MS), partition=0)
    assert [each.impressions for each in live.quality()] == [1]
    assert [difference.model_version for difference in ab_test.differences("v1")] == ["v2"]


def test_the_order_of_labels_and_their_repetition_do_not_matter() -> None:
    generator = random.Random(3)
    labels = [
        a_label(
            f"i{number}",
            after_ms=number * MINUTE_MS // 2,
            score=generator.uniform(0.01, 0.99),
            clicked=generator.random() < 0.3,
            position=number % 10,
        )
        for number in range(200)
    ]
    closing = a_label("last", after_ms=101 * MINUTE_MS)
    expected = quality_of(*labels, closing)
    for _ in range(3):
        shuffled = generator.sample(labels * 2, 400)
        assert_same(quality_of(*shuffled, closing, *shuffled), expected)


def test_pairs_of_explored_requests_are_counted_by_user() -> None:
    labels = [
        a_label(
            f"i{position}",
            user_id=f"u{user}",
            position=position,
            score=0.3 - position / 10,
            propensity=0.5,
            clicked=position == user % 4 // 3,
        )
        for user in range(200)
        for position in (0, 1)
    ]
    closing = a_label("last", after_ms=1)
    auc = quality_of(*labels, closing).request_auc
    assert auc.value == 0.75  # the lower score is clicked by one in four
    assert 0.6 < auc.interval.low < auc.value < auc.interval.high < 0.9


def labels_of(events: list[tuple[int, UserEvent]]) -> list[ImpressionLabel]:
    """Return what a worker publishes of events, each known at its own time."""
    join = LabelJoin(LABEL_WINDOW_MS, correction_ms=24 * HOUR_MS, max_kept=100_000)
    labels = []
    for known_ms, event in sorted(events, key=lambda each: each[0]):
        labels += join.add(event, known_ms)
        labels += join.advance()
    return labels + join.advance(idle_until_ms=START_MS + 48 * HOUR_MS)


Timed = list[tuple[int, UserEvent]]


def a_day(generator: random.Random) -> tuple[Timed, Timed]:
    """Return impressions of two versions over five hours, and their clicks."""
    shown: Timed = []
    clicks: Timed = []
    for number in range(600):
        at_ms = START_MS + number * MINUTE_MS // 2
        named: dict[str, Any] = {
            "user_id": f"u{number % 50}",
            "request_id": f"r{number}",
            "item_id": "i1",
        }
        impression = Impression(
            event_id=f"e{number}",
            position=number // 2 % 4,
            occurred_at=at_ms,
            model_version=f"v{1 + number % 2}",
            score=(score := generator.uniform(0.01, 0.6)),
            **named,
        )
        shown.append((at_ms, impression))
        if generator.random() < score:
            clicked_ms = at_ms + generator.randrange(LABEL_WINDOW_MS + 10 * MINUTE_MS)
            click = Click(event_id=f"c{number}", occurred_at=clicked_ms, **named)
            clicks.append((clicked_ms, click))
    return shown, clicks


def figures(events: Timed) -> tuple[LiveQuality, AbTest]:
    ab_test = AbTest()
    live = LiveQuality(
        window_ms=24 * HOUR_MS, label_window_ms=LABEL_WINDOW_MS, ab_test=ab_test
    )
    for label in labels_of(events):
        live.add(label, partition=0)
    live.advance(START_MS + 48 * HOUR_MS)
    return live, ab_test


def test_clicks_that_are_hours_late_on_their_way_end_with_the_same_figures() -> None:
    generator = random.Random(11)
    shown, clicks = a_day(generator)
    late = [(ms + generator.randrange(12 * HOUR_MS), click) for ms, click in clicks]
    (punctual, first), (delayed, second) = figures(shown + clicks), figures(shown + late)
    corrections = [label for label in labels_of(shown + late) if label.revision]
    assert any(correction.within_window for correction in corrections)
    for found, expected in zip(delayed.quality(), punctual.quality(), strict=True):
        assert expected.clicks > 20
        assert_same(found, expected)
    assert len(first.differences("v1")) == 1
    assert second.differences("v1") == first.differences("v1")


def test_the_window_ends_with_the_newest_settled_impression() -> None:
    live = a_window()
    assert live.newest_ms == 0
    live.add(a_label("i1", after_ms=5_000), partition=0)
    live.add(a_label("i2", after_ms=9_000, clicked=True), partition=0)  # waits
    assert live.newest_ms == START_MS + 5_000
