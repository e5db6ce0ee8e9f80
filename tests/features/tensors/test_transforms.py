import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srp4ctr.features import columns
from srp4ctr.features.columns import CandidateColumns
from srp4ctr.features.tensors import transforms, vocabulary
from srp4ctr.features.tensors.arrays import (
    ActivityArrays,
    CandidateArrays,
    ExposureArrays,
    ItemExposures,
    SequenceArrays,
    empty_sequences,
)
from srp4ctr.features.tensors.schema import (
    CONTEXT_SLOTS,
    NUM_CONTEXT_ROWS,
    NUM_GAP_BUCKETS,
    NUM_VALUE_BUCKETS,
)

NOON_MS = 1_700_049_600_000  # 2023-11-15 12:00 UTC
HOUR_MS = 3_600_000


def a_sequence(gaps_s: list[float], values: list[float] | None = None) -> SequenceArrays:
    """Return one sequence (1, L) whose events are ``gaps_s`` apart, with 2 slots padded."""
    count = len(gaps_s)
    at = NOON_MS + np.cumsum(np.array(gaps_s) * 1000).astype(np.int64)
    values = [math.nan] * count if values is None else values
    return SequenceArrays(
        item_keys=np.array([[0, 0, *range(101, 101 + count)]], dtype=np.int64),
        action_codes=np.array([[9, 9, *[3] * count]], dtype=np.int64),
        occurred_at_ms=np.array([[0, 0, *at]], dtype=np.int64),
        values=np.array([[math.nan, math.nan, *values]]),
    )


def an_activity(impressions: float, clicks: float, at_ms: int) -> ActivityArrays:
    return ActivityArrays(
        counts=np.array([[[impressions] * 4, [clicks] * 4]]),
        counted_at_ms=np.array([at_ms]),
        first_seen_ms=np.array([at_ms]),
    )


def empty_activity(*shape: int) -> ActivityArrays:
    """Return the activity of what was never seen."""
    never = np.zeros(shape, dtype=np.int64)
    counts = np.zeros((*shape, 2, 4))
    return ActivityArrays(counts=counts, counted_at_ms=never, first_seen_ms=never)


def test_padding_has_no_codes_and_the_first_event_no_gap() -> None:
    codes = transforms.behavior_codes(a_sequence([0, 0, 1, 1000]))[0]
    assert codes[:2].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert codes[2:, 0].tolist() == [3, 3, 3, 3]
    assert codes[2:, 1].tolist() == [1, 2, 3, 11]  # first, 0 s, 1 s, 1000 s


def test_no_history_at_all_has_no_codes() -> None:
    """Windows of a log without behaviours."""
    assert transforms.behavior_codes(empty_sequences(0, 4)).shape[:2] == (0, 4)


def test_values_fall_in_buckets_and_none_in_its_own() -> None:
    codes = transforms.behavior_codes(a_sequence([0, 1, 1, 1, 1], [math.nan, 0, 1, 5, -3]))
    assert codes[0, 2:, 2].tolist() == [1, 2, 6, 12, 2]


@given(
    st.lists(st.tuples(st.floats(0, 1e9), st.floats(-1e300, 1e300)), min_size=1, max_size=9)
)
def test_every_bucket_is_inside_its_table(events: list[tuple[float, float]]) -> None:
    gaps, values = zip(*events, strict=True)
    codes = transforms.behavior_codes(a_sequence(list(gaps), list(values)))
    assert 0 <= codes[..., 1].min() <= codes[..., 1].max() < NUM_GAP_BUCKETS
    assert 0 <= codes[..., 2].min() <= codes[..., 2].max() < NUM_VALUE_BUCKETS


def test_request_features_have_the_columns_of_the_schema() -> None:
    sequence = a_sequence([0, 60])
    activity = an_activity(4.0, 2.0, NOON_MS - HOUR_MS)
    features = transforms.request_features(sequence, activity, [NOON_MS + 120_000])[0]
    named = dict(zip(columns.REQUEST.names, features.tolist(), strict=True))
    decay = 2 ** -(62 / 60 / 4)
    rate = (2 * decay + 2.5) / (4 * decay + 5)
    assert named["user_click_rate_4h"] == pytest.approx(rate)
    assert named["user_log_impressions_4h"] == pytest.approx(math.log1p(4 * decay))
    assert named["log_sequence_length"] == pytest.approx(math.log(3))
    assert named["log_seconds_since_last_behavior"] == pytest.approx(math.log1p(60))
    assert named["hour_cos"] == pytest.approx(-1, abs=1e-3)


def test_the_hour_is_that_of_the_user_s_clock() -> None:
    offsets_ms = np.array([0, 330 * 60_000, -300 * 60_000])  # UTC, India, New York
    features = transforms.request_features(
        empty_sequences(3, 5),
        empty_activity(3),
        [NOON_MS] * 3,
        utc_offset_ms=offsets_ms,
    )
    clock = features[:, [columns.REQUEST.place(each) for each in ("hour_sin", "hour_cos")]]
    hours = np.degrees(np.arctan2(*clock.T)) / 15 % 24
    assert hours == pytest.approx([12.0, 17.5, 7.0], abs=1e-5)


def test_a_user_never_seen_has_the_prior_and_a_year_of_silence() -> None:
    features = transforms.request_features(
        empty_sequences(1, 5), empty_activity(1), [NOON_MS]
    )[0]
    assert features[:4].tolist() == [0.5] * 4
    assert features[4:9].tolist() == [0.0] * 5
    assert features[9] == pytest.approx(math.log1p(transforms.NEVER_S))


def test_candidate_features_have_the_columns_of_the_table() -> None:
    counts = [[[number] * 4] * 2 for number in (1.0, 0.0, 9.0)]
    activity = dataclasses.replace(
        empty_activity(1, 3),
        counts=np.array([counts]),
        first_seen_ms=np.array([[NOON_MS - HOUR_MS, 0, 5]]),
        counted_at_ms=np.full((1, 3), NOON_MS),
    )
    history = a_sequence([0, 0])
    inputs = CandidateArrays(
        request_time_ms=np.array([NOON_MS]),
        item_keys=np.array([[101, 7, 0]]),
        attribute_rows=np.zeros((1, 3, 1), dtype=np.int64),
        activity=activity,
        total=an_activity(0.0, 9.0, NOON_MS),
        exposures=ItemExposures(
            counts=np.array([[1, 0, 5]]), last_shown_ms=np.array([[NOON_MS, 0, 9]])
        ),
        sequences=history,
        history_attribute_rows=np.zeros((*history.item_keys.shape, 1), dtype=np.int64),
        number_columns=np.empty((1, 3, 0), dtype=np.float32),
    )
    features = transforms.candidate_features(inputs, CandidateColumns())
    names = columns.CANDIDATE.names
    known, new, padding = (dict(zip(names, e.tolist(), strict=True)) for e in features[0])
    for life in columns.HALF_LIVES:
        assert known[f"item_click_share_{life}"] == pytest.approx(math.log1p(1000.0))
        assert new[f"item_click_share_{life}"] == 0.0
        assert known[f"item_click_rate_{life}"] == pytest.approx(3.5 / 6)
        assert known[f"item_log_clicks_{life}"] == pytest.approx(math.log(2))
        assert new[f"item_click_rate_{life}"] == 0.5
        assert new[f"item_log_impressions_{life}"] == 0.0
    assert known["item_log_hours_since_first_seen"] == pytest.approx(math.log(2))
    assert known["user_item_log_exposures"] == pytest.approx(math.log(2))
    assert [known["item_in_sequence"], new["item_in_sequence"]] == [1.0, 0.0]
    never = math.log1p(transforms.NEVER_S)
    assert known["item_log_seconds_since_behavior"] < 10.0
    assert new["item_log_seconds_since_behavior"] == pytest.approx(never)
    assert not any(padding.values())  # whatever its counters say


def test_what_a_request_shows_itself_was_not_shown_before() -> None:
    exposures = ExposureArrays(
        item_keys=np.array([[0, 7, 7, 8, 7]]),
        shown_at_ms=np.array([[0, NOON_MS - 2, NOON_MS - 1, NOON_MS, NOON_MS]]),
    )
    found = transforms.item_exposures(exposures, np.array([[7, 8, 0]]), [NOON_MS])
    assert found.counts.tolist() == [[2, 0, 0]]
    assert found.last_shown_ms.tolist() == [[NOON_MS - 1, 0, 0]]


def test_a_behaviour_of_a_week_ago_says_half_as_much_of_an_attribute() -> None:
    done = a_sequence([0.0])
    week_later = [NOON_MS + 168 * HOUR_MS]
    rows, wanted = np.array([[[0], [0], [5]]]), np.array([[[5], [6]]])
    alike, other = transforms.attribute_affinity(done, rows, wanted, week_later)[0]
    assert alike == pytest.approx([0.5 / 1.5, math.log(1.5)])  # a view, no click
    assert other == pytest.approx([0.5, 0.0])


def test_a_lost_impression_keeps_a_rate_below_one() -> None:
    features = transforms.request_features(
        empty_sequences(1, 5), an_activity(0.0, 40.0, NOON_MS), [NOON_MS]
    )
    assert features[0, 0] <= 1.0


def test_leading_axes_change_nothing() -> None:
    one = a_sequence([0, 60])
    activity = an_activity(4.0, 2.0, NOON_MS)
    alone = transforms.request_features(one, activity, [NOON_MS])[0]
    thrice = [0, 0, 0]
    batch = transforms.request_features(
        one.take(thrice), activity.take(thrice), [NOON_MS] * 3
    )
    np.testing.assert_array_equal(batch, np.stack([alone] * 3))


def test_context_rows_do_not_depend_on_the_order_of_fields() -> None:
    one = vocabulary.context_rows({"page": "home", "device": "phone"})
    other = vocabulary.context_rows({"device": "phone", "page": "home"})
    np.testing.assert_array_equal(one, other)
    assert np.count_nonzero(one) == 2
    assert vocabulary.context_rows({}).tolist() == [0] * CONTEXT_SLOTS


def test_more_context_than_slots_is_cut_and_stays_inside_the_table() -> None:
    rows = vocabulary.context_rows({f"f{i:02d}": str(i) for i in range(30)})
    assert rows.min() >= 1
    assert rows.max() < NUM_CONTEXT_ROWS


@pytest.mark.parametrize("text", [None, "", "{}"])
def test_no_context_is_an_empty_map(text: str | None) -> None:
    assert vocabulary.parse_context(text) == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "a JSON list; expected an object"),
        ('{"a": 1}', "'a' is not a string"),
        ('{"a": "' + "b" * 300 + '"}', "is over 256 letters"),
        ("{" + ",".join(f'"{i}": ""' for i in range(33)) + "}", "33 fields; at most 32"),
    ],
)
def test_a_bad_context_says_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        vocabulary.parse_context(text)


def test_numbers_of_the_context_stand_in_the_last_columns() -> None:
    context = {"price": "12.5", "page": "home", "huge": "1e300", "nan": "nan"}
    names = ("huge", "missing", "nan", "page", "price")
    numbers = vocabulary.context_numbers(context, names)
    assert np.isfinite(numbers).all()
    assert numbers[1:5].tolist() == [0.0, 0.0, 0.0, 12.5]
    features = transforms.request_features(
        empty_sequences(1, 3), empty_activity(1), [NOON_MS], [numbers]
    )
    assert features[0, -columns.NUM_CONTEXT_NUMBERS :].tolist() == numbers.tolist()
