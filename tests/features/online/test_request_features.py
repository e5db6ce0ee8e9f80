import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srp4ctr.embedded import ports
from srp4ctr.features import columns
from srp4ctr.features.bundles import bundle
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online import request_features
from srp4ctr.features.online.request_features import RequestFeatures
from srp4ctr.features.tensors import item_fields, schema, vocabulary
from srp4ctr.features.tensors.schema import ItemStatus
from srp4ctr.retries import CircuitBreaker
from srp4ctr.streams.events.schema import item_key
from srp4ctr.streams.state.counters import Activity, count
from srp4ctr.streams.state.reducers import Rows
from srp4ctr.streams.state.sequences import SequenceElement, sequence_of
from srp4ctr.streams.state.state_store import ItemProfile
from srp4ctr.streams.state.user_state import UserState
from tests.features.readers import MemoryReader, table_of

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
SIZES = {"L": 6, "W": 4, "N": 3, "A": 1, "C": columns.CANDIDATE.width}
KNOWN = [item_key(str(i)) for i in range(10)]


def a_reader() -> MemoryReader:
    return MemoryReader(
        histories={
            "u1": [(NOW_MS - 2000, KNOWN[1]), (NOW_MS - 1000, KNOWN[2])],
            "looker": [],
            "old": [(NOW_MS - 91 * DAY_MS, KNOWN[1])],
        },
        attributes={KNOWN[1]: {"genre": "War"}},
        impressions={KNOWN[1]: 3.0},
    )


def the_features(reader: MemoryReader) -> RequestFeatures:
    known = vocabulary.build(dict.fromkeys(KNOWN, 1), [{"genre": "War"}] * 5)
    table = table_of(reader, known)
    return RequestFeatures(reader, known, table, sizes=SIZES, ttl_days=90)


def test_tensors_are_those_of_the_schema() -> None:
    batch = the_features(a_reader()).assemble(
        [b"u1", "nobody"], [["1", "2", "3"], ["4", "", ""]], [NOW_MS, NOW_MS]
    )
    layout = the_features(a_reader()).vocabulary.candidate_columns.layout
    sizes = {**SIZES, "C": layout.width}
    tables = schema.HISTORY_TENSORS + schema.REQUEST_TENSORS + schema.CANDIDATE_TENSORS
    assert set(batch.tensors) == {spec.name for spec in tables}
    for spec in tables:
        assert batch.tensors[spec.name].shape == (2, *spec.dims(sizes)), spec.name
        assert batch.tensors[spec.name].dtype == spec.dtype, spec.name


def test_the_history_stands_on_the_right_with_its_attributes() -> None:
    batch = the_features(a_reader()).assemble(["u1"], [["1"]], [NOW_MS])
    rows = batch.tensors["history_item_rows"][0]
    assert np.count_nonzero(rows) == 2
    assert rows[-1] != rows[-2]
    assert not rows[:4].any()
    assert batch.tensors["history_attribute_rows"][0, -2:, 0].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("user_id", "status"),
    [
        ("u1", "ok"),
        ("nobody", "cold_user"),
        ("looker", "empty_sequence"),
        ("old", "stale_sequence"),
    ],
)
def test_the_status_says_what_is_known_of_the_user(user_id: str, status: str) -> None:
    batch = the_features(a_reader()).assemble([user_id], [["1"]], [NOW_MS])
    assert batch.statuses == (status,)


def test_a_stale_sequence_is_served_as_no_history() -> None:
    batch = the_features(a_reader()).assemble(["old", "looker"], [["1"]] * 2, [NOW_MS] * 2)
    assert not batch.tensors["history_item_rows"].any()
    old, looker = batch.tensors["request_features"]
    np.testing.assert_array_equal(old, looker)


def test_an_expired_behaviour_is_not_seen_among_newer_ones() -> None:
    reader = a_reader()
    expires_at = NOW_MS - 90 * DAY_MS
    reader.histories["old"] = [
        (expires_at, KNOWN[1]),
        (expires_at + 1, KNOWN[2]),
        (NOW_MS - 1000, KNOWN[3]),
    ]
    batch = the_features(reader).assemble(["old"], [["1", "2"]], [NOW_MS])
    assert batch.statuses == ("ok",)
    assert np.count_nonzero(batch.tensors["history_item_rows"]) == 2
    place = columns.CANDIDATE.place("item_in_sequence")
    assert batch.tensors["candidate_features"][0, :, place].tolist() == [0.0, 1.0]


def test_a_behaviour_expires_by_the_requests_time_not_by_the_clock() -> None:
    features = the_features(a_reader())
    batch = features.assemble(["old"] * 2, [["1"]] * 2, [NOW_MS, NOW_MS - 2 * DAY_MS])
    assert batch.statuses == ("stale_sequence", "ok")


def test_item_status_says_why_a_score_knows_less() -> None:
    batch = the_features(a_reader()).assemble(["u1"], [["1", "2", "new", ""]], [NOW_MS])
    without = ItemStatus.NO_ATTRIBUTES | ItemStatus.NO_ACTIVITY
    assert batch.item_status.dtype == np.uint8
    assert batch.item_status.tolist() == [
        [0, without, without | ItemStatus.UNKNOWN_ITEM, ItemStatus.PADDING]
    ]
    rows = batch.tensors["candidate_item_rows"][0]
    assert rows[2] >= 2  # out of vocabulary, yet scored
    assert rows[3] == 0


def test_a_store_that_is_down_gives_a_status_and_finite_features() -> None:
    reader = a_reader()
    reader.down = True
    batch = the_features(reader).assemble(["u1"], [["1"]], [NOW_MS])
    assert batch.statuses == ("store_unavailable",)
    assert all(np.isfinite(tensor).all() for tensor in batch.tensors.values())


def test_a_store_that_keeps_failing_is_not_read_for_a_while() -> None:
    reader = a_reader()
    features = the_features(reader)
    features._breaker = CircuitBreaker(clock=lambda: 100.0)
    reader.down = True
    for _ in range(3):
        features.assemble(["u1"], [["1"]], [NOW_MS])
    reader.down = False
    batch = features.assemble(["u1"], [["1"]], [NOW_MS])
    assert (batch.statuses, reader.user_reads) == (("store_unavailable",), 0)


def test_after_one_failed_read_the_next_request_reads_again() -> None:
    reader = a_reader()
    features = the_features(reader)
    reader.down = True
    features.assemble(["u1"], [["1"]], [NOW_MS])
    reader.down = False
    assert features.assemble(["u1"], [["1"]], [NOW_MS]).statuses == ("ok",)


def test_the_version_names_the_user_and_the_table() -> None:
    batch = the_features(a_reader()).assemble(["u1"], [["1"]], [NOW_MS])
    (version,) = batch.feature_versions
    assert re.fullmatch(rf"user={(NOW_MS - 1000) * 1000}@0,items=\d+", version)


def test_the_version_of_an_unknown_user_names_only_the_table() -> None:
    batch = the_features(a_reader()).assemble(["nobody"], [["1"]], [NOW_MS])
    assert re.fullmatch(r"items=\d+", batch.feature_versions[0])


def test_without_a_time_the_clock_is_used() -> None:
    features = the_features(a_reader())
    zero = features.assemble(["u1"], [["1"]], [0])
    without = features.assemble(["u1"], [["1"]])
    assert zero.statuses == without.statuses == ("stale_sequence",)  # 2023 is long ago


def test_a_request_without_a_context_has_no_context_rows() -> None:
    features = the_features(a_reader())
    rows = [
        features.assemble(["u1"], [["1"]], [NOW_MS], contexts).tensors["context_rows"]
        for contexts in (['{"page": "home"}'], [b""], None)
    ]
    assert np.count_nonzero(rows[0]) == 1
    assert not rows[1].any()
    assert not rows[2].any()


@pytest.mark.parametrize(
    ("user_id", "item_id", "time_ms", "context", "reason"),
    [
        (b"\xff", "1", NOW_MS, "", "user_id is not UTF-8"),
        ("u1", b"\xff", NOW_MS, "", "item_ids is not UTF-8"),
        ("u1", "1" * 300, NOW_MS, "", "item_ids has 300 letters"),
        ("u1", "1", NOW_MS // 1000, "", "is it in seconds"),
        ("u1", "1", -5, "", "is it in seconds"),
        ("u1", "1", NOW_MS, "[]", "expected an object"),
        ("u1", "1", NOW_MS, b"\xff", "context is not UTF-8"),
        ("u1", "1", NOW_MS, '{"utc_offset_minutes": "2h"}', "whole minutes from -720"),
    ],
)
def test_a_malformed_request_says_what_is_wrong(
    user_id: bytes | str, item_id: bytes | str, time_ms: int, context: str, reason: str
) -> None:
    features = the_features(a_reader())
    with pytest.raises(ValueError, match=reason):
        features.assemble([user_id], [[item_id]], [time_ms], [context])


def test_numpy_inputs_from_triton_are_accepted() -> None:
    batch = the_features(a_reader()).assemble(
        np.array([b"u1", b"u2"], dtype=object),
        np.array([[b"1", b""], [b"2", b"3"]], dtype=object),
        np.array([[NOW_MS], [0]]),
        np.array([b"{}", b""], dtype=object),
    )
    assert batch.statuses == ("ok", "cold_user")


def test_neither_a_worker_nor_a_server_imports_feast() -> None:
    program = (
        "import sys; from srp4ctr.features.config import FeatureConfig; "
        "from srp4ctr.features.online import request_features, store; "
        "store.FeatureStoreSink(FeatureConfig()); sys.exit('feast' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_number_in_the_context_is_read_as_one() -> None:
    features = the_features(a_reader())
    features.vocabulary = replace(features.vocabulary, context_numbers=("in_view",))
    contexts = ['{"in_view": "17"}', ""]
    batch = features.assemble(["u1"] * 2, [["1"]] * 2, [NOW_MS] * 2, contexts)
    place = columns.REQUEST.place("context_number_1")
    assert batch.tensors["request_features"][:, place].tolist() == [17.0, 0.0]


def test_a_context_field_that_training_never_saw_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    features = the_features(a_reader())
    contexts = ['{"page": "a", "city": "x"}', '{"page": "b", "utc_offset_minutes": "60"}']

    def rank() -> list[str]:
        caplog.clear()
        features.assemble(["u1"] * 2, [["1"]] * 2, [NOW_MS] * 2, contexts)
        return [record.getMessage() for record in caplog.records]

    features.vocabulary = replace(features.vocabulary, context_fields=("city",))
    [message] = rank()
    assert message.startswith("context field 'page' cannot help: no request")
    assert rank() == []


def test_no_more_than_some_unknown_context_fields_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    features = the_features(a_reader())
    features.vocabulary = replace(features.vocabulary, context_fields=())
    contexts = [f'{{"name{n}": "a"}}' for n in range(50)]
    features.assemble(["u1"] * 50, [["1"]] * 50, [NOW_MS] * 50, contexts)
    assert len(caplog.records) == 32


@pytest.mark.redis
def test_a_bundle_serves_what_the_stream_stored(
    store_config: FeatureConfig, tmp_path: Path
) -> None:
    from srp4ctr.features.online.store import FeatureStoreSink

    sink = FeatureStoreSink(store_config)
    key = item_key("film")
    elements = [
        SequenceElement(occurred_at=NOW_MS + i, item_key=100 + i, action=2)
        for i in range(3)
    ]
    user = UserState(sequence=sequence_of(elements), version_us=7, last_offset=7)
    sink.write(Rows(users={"r-served": user}))
    activity = count(Activity(), at_ms=NOW_MS, is_click=False, offset=0)
    sink.write(Rows(shares={(key, 1): activity}))
    profile = ItemProfile(
        item_key=key, item_id="film", attributes={"genre": "War"}, updated_at_ms=NOW_MS
    )
    sink.write_profiles([profile])
    known = vocabulary.build({key: 1}, [{"genre": "War"}] * 5)
    vocabulary.save(known, tmp_path / bundle.VOCABULARY_FILE)
    card = bundle.BundleManifest(version="v1", created_at_ms=NOW_MS, sizes={"L": 5, "W": 3})
    bundle.write_card(tmp_path, card)
    features = request_features.open_bundle(store_config, tmp_path)
    batch = features.assemble(["r-served"], [["film", "else"]], [NOW_MS + 60_000])
    features.close()
    assert batch.statuses == ("ok",)
    assert batch.item_status.tolist() == [[0, 7]]
    assert np.count_nonzero(batch.tensors["history_item_rows"]) == 3


@pytest.mark.redis
def test_a_bundle_opens_although_the_store_is_down(
    store_config: FeatureConfig, tmp_path: Path
) -> None:
    vocabulary.save(vocabulary.build({1: 1}, []), tmp_path / bundle.VOCABULARY_FILE)
    card = bundle.BundleManifest(version="v1", created_at_ms=NOW_MS, sizes={"L": 5, "W": 3})
    bundle.write_card(tmp_path, card)
    with ports.reserved_ports(1) as (closed,):
        down = replace(store_config, redis=f"{ports.HOST}:{closed}")
    features = request_features.open_bundle(down, tmp_path)
    batch = features.assemble(["r-served"], [["film"]])
    features.close()
    assert batch.statuses == ("store_unavailable",)


def test_a_users_attributes_are_rows_where_the_bundle_has_user_fields() -> None:
    reader = a_reader()
    reader.user_attributes["u1"] = '{"town": "Ulm", "age": "34"}'
    reader.user_attributes["looker"] = '{"town": "Rome"}'  # none of the known ones
    towns = [{"town": town} for town in ("Ulm", "Bonn") for _ in range(5)]
    plain = vocabulary.build(dict.fromkeys(KNOWN, 1), [])
    words = replace(plain, user_fields=item_fields.build(towns))
    users = ["u1", "looker", "old", "nobody"]
    request = (users, [["1"]] * len(users), [NOW_MS] * len(users))
    for known in (words, plain):
        table = table_of(reader, known)
        features = RequestFeatures(reader, known, table, sizes=SIZES, ttl_days=90)
        tensors = features.assemble(*request).tensors
        assert ("user_attribute_rows" in tensors) is (known is words)
        if known is words:
            ulm = words.user_attribute_rows('{"town": "Ulm"}').tolist()
            assert tensors["user_attribute_rows"].tolist() == [ulm, [0], [0], [0]]
    reader.down = True
    down = RequestFeatures(reader, words, table_of(reader, words), sizes=SIZES)
    assert not down.assemble(*request).tensors["user_attribute_rows"].any()


def priced_features(reader: MemoryReader) -> RequestFeatures:
    known = vocabulary.build(dict.fromkeys(KNOWN, 1), [{"genre": "War"}] * 5)
    known = replace(known, candidate_numbers=("price",))
    return RequestFeatures(reader, known, table_of(reader, known), sizes=SIZES, ttl_days=90)


def test_numbers_reach_the_model_as_columns_of_candidates_only() -> None:
    """Encoder, states and retriever see no other candidate."""
    features, requests = priced_features(a_reader()), (["u1"], [["1", "2", ""]], [NOW_MS])
    first, second = (
        features.assemble(*requests, None, np.array([[[a], [95], [7]]], np.float32))
        for a in (80, 1000)
    )
    changed = {
        name
        for name, tensor in first.tensors.items()
        if not np.array_equal(tensor, second.tensors[name])
    }
    assert changed == {"candidate_features"}
    both = first.tensors["candidate_features"], second.tensors["candidate_features"]
    np.testing.assert_array_equal(both[0][..., :-5], both[1][..., :-5])
    prices = both[0][0, :, -5:].tolist()
    assert prices == [[80, 0, -7.5, -15, 0], [95, 0.5, 7.5, 0, 0], [0] * 5]
    assert both[1][0, 1, -5:].tolist() == [95, 0, -452.5, 0, 0]  # by the other's price


def test_recommended_items_have_no_numbers_of_a_caller() -> None:
    features = priced_features(a_reader())
    users = features.read(["u1"], [NOW_MS])
    batch = features.of_candidates(users, np.array([[KNOWN[1], 0]]))
    columns_of_price = batch.tensors["candidate_features"][0, :, -5:]
    assert columns_of_price.tolist() == [[0, 0.5, 0, 0, 1], [0] * 5]
