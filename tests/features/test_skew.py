"""Serving's features from the store equal training's from the log."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srp4ctr.features import columns
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.offline import point_in_time
from srp4ctr.features.offline.event_tables import opened
from srp4ctr.features.online.item_cache import ItemTable
from srp4ctr.features.online.item_map import ItemMemory
from srp4ctr.features.online.request_features import RequestFeatures
from srp4ctr.features.tensors import item_fields, schema, transforms, vocabulary
from srp4ctr.features.tensors.arrays import CandidateArrays
from srp4ctr.streams.config import StreamConfig
from srp4ctr.streams.events.schema import (
    NO_CODES,
    ActionCodes,
    UserEvent,
    action_code,
    action_name,
    action_names,
)
from srp4ctr.streams.state.partition_state import PartitionState
from srp4ctr.testing.raw_logs import label_of, write_log
from tests.builders import NOON_MS, a_behavior, a_click, a_profile, an_impression
from tests.features.stored import fold_into, store_events

pytestmark = pytest.mark.redis
LENGTH = 5
TOWNS = ("Ulm", "Köln", "Bonn")
WORDS = replace(
    vocabulary.build({}, []),
    utc_offset_minutes=60,
    actions=(("click", action_code("click")), ("view", action_code("view"))),
    visit_gap_ms=20_000,
    user_fields=item_fields.build(
        {"age": str(20 + n), "towns": TOWNS[n % 3 :]} for n in range(40)
    ),
)
OFFSET = schema.UTC_OFFSET_FIELD
REQUESTED_AT_MS = NOON_MS + 3_600_000


def events_of(partition: int, rng: random.Random) -> list[UserEvent]:
    """Return the events of one partition's two users, a few of them late."""
    events: list[UserEvent] = []
    for index in range(60):
        at_ms = NOON_MS + 1000 * index - rng.choice([0, 0, 5000])
        fields = {
            "event_id": f"{partition}-{index}",
            "user_id": f"skew-{partition}-{index % 2}",
        }
        item = f"skew-item-{rng.randrange(6)}"
        slate = f"r{index // 4}"
        kind = rng.choice(["shown", "clicked", "did", "is"])
        if kind == "shown":
            events.append(an_impression(item, at_ms=at_ms, request_id=slate, **fields))
        elif kind == "clicked":
            events.append(a_click(item, at_ms=at_ms, request_id=slate, **fields))
        elif kind == "is":
            age, towns = str(rng.randrange(15, 65)), rng.sample([*TOWNS, "Rome"], 2)
            user = fields["user_id"]
            events.append(a_profile(at_ms=at_ms, user_id=user, age=age, towns=towns))
        else:
            events.append(
                a_behavior(item, at_ms=at_ms, value=rng.choice([None, 3.0]), **fields)
            )
    return events


def test_serving_and_training_make_the_same_tensors(
    store_config: FeatureConfig, tmp_path: Path
) -> None:
    from srp4ctr.features.online.store import FeatureStoreSink

    sink, rng = FeatureStoreSink(store_config), random.Random(7)
    for partition in (0, 3):
        events = events_of(partition, rng)
        known = [(event, event.occurred_at) for event in events]
        write_log(tmp_path, known, partition=partition)
        store_events(sink, events, length=LENGTH, partition=partition)

    users = ["skew-0-0", "skew-0-1", "skew-3-0", "skew-3-1"]
    items = [f"skew-item-{i}" for i in range(7)]  # the last was never seen
    contexts = [{}, {OFFSET: "330"}, {OFFSET: "-300", "page": "home"}, {OFFSET: "0"}]
    served = serve(store_config, users, items, contexts)
    # The same requests as impressions in a partition of their own.
    shown = [
        an_impression(
            item,
            at_ms=REQUESTED_AT_MS,
            user_id=user,
            request_id="r",
            position=i,
            context=context,
        )
        for user, context in zip(users, contexts, strict=True)
        for i, item in enumerate(items)
    ]
    write_log(tmp_path, [(each, each.occurred_at) for each in shown], partition=1)
    write_log(tmp_path, [(label_of(each), each.occurred_at) for each in shown])
    trained = train(tmp_path, users)
    for name, tensor in trained.items():
        np.testing.assert_allclose(served[name], tensor, rtol=1e-6, atol=1e-6, err_msg=name)
    assert served["user_attribute_rows"].any(axis=1).all()
    clock = [columns.REQUEST.place(each) for each in ("hour_sin", "hour_cos")]
    hours = served["request_features"][:, clock]
    np.testing.assert_array_equal(hours, trained["request_features"][:, clock])
    assert len(np.unique(hours, axis=0)) == 4  # the default is an hour ahead of UTC


def test_an_action_with_its_own_code_is_served_as_it_is_trained(
    store_config: FeatureConfig, tmp_path: Path
) -> None:
    from srp4ctr.features.online.store import FeatureStoreSink

    codes = {"wink": 32, "zap2": 63}
    user, names = "skew-codes", ["zap2", "wink", "skip", "view"]
    done: list[UserEvent] = [
        a_behavior(
            f"skew-item-{n}",
            user_id=user,
            action=name,
            at_ms=NOON_MS + n,
            event_id=f"b{n}",
            value=4.0 if n % 2 else None,
        )
        for n, name in enumerate(names)
    ]
    config = StreamConfig(sequence_length=LENGTH, action_codes=codes)
    fold_into(FeatureStoreSink(store_config), done, PartitionState(0, 0, config))
    served = serve(store_config, [user], ["skew-item-0"], [{}])["history_behavior_codes"]

    shown = an_impression("skew-item-0", at_ms=REQUESTED_AT_MS, user_id=user)
    write_log(tmp_path, [(each, each.occurred_at) for each in [*done, shown]])
    write_log(tmp_path, [(label_of(shown), shown.occurred_at)])
    trained = train(tmp_path, [user], codes)["history_behavior_codes"]
    assert served[0, :, 0].tolist() == [0, 63, 32, action_code("skip"), action_code("view")]
    np.testing.assert_array_equal(served, trained)


def test_a_row_from_before_a_code_was_assigned_reads_as_it_was_stored(
    store_config: FeatureConfig,
) -> None:
    from srp4ctr.features.online.store import FeatureStoreSink, OnlineViews

    sink, user, codes = FeatureStoreSink(store_config), "skew-old-row", {"wink": 32}
    done = [
        a_behavior("i", user_id=user, action="wink", at_ms=NOON_MS + n, event_id=f"b{n}")
        for n in range(2)
    ]
    for n, config in enumerate((StreamConfig(), StreamConfig(action_codes=codes))):
        fold_into(sink, done[n : n + 1], PartitionState(0, n, config), n)
    row = OnlineViews(store_config).read_users([user])[user]
    stored = [element.action for element in row.sequence.elements]
    assert stored == [action_code("wink"), 32]
    names = action_names(["wink"], codes)
    assert [action_name(each, names) for each in stored] == ["wink", "wink"]


def serve(
    config: FeatureConfig,
    users: list[str],
    items: list[str],
    contexts: list[dict[str, str]],
) -> dict[str, np.ndarray]:
    from srp4ctr.features.online.item_refresher import Refresher
    from srp4ctr.features.online.store import OnlineViews

    views, known = OnlineViews(config), WORDS
    memory = ItemMemory()
    Refresher(views, memory).fill()
    table = ItemTable(memory, known)
    features = RequestFeatures(views, known, table, sizes={"L": LENGTH, "W": 100})
    texts = list(map(json.dumps, contexts))
    requests = (users, [items] * len(users), [REQUESTED_AT_MS] * len(users), texts)
    batch = features.assemble(*requests)
    assert set(batch.statuses) == {"ok"}
    return dict(batch.tensors)


def train(
    log_dir: Path, users: list[str], codes: ActionCodes = NO_CODES
) -> dict[str, np.ndarray]:
    with opened(log_dir, codes=codes) as log:
        found = point_in_time.snapshot(log, LENGTH, ttl_days=90.0)
    rows = np.array([found.user_ids.tolist().index(user) for user in users])
    sequences = found.sequences.take(rows)
    activity = found.user_activity.take(rows)
    candidates = np.stack([np.flatnonzero(found.candidate_requests == row) for row in rows])
    times_ms = found.times_ms[rows]
    no_attributes, nor_candidates = (
        np.zeros((*keys.shape, 1), dtype=np.int64)
        for keys in (sequences.item_keys, candidates)
    )
    inputs = CandidateArrays(
        request_time_ms=times_ms,
        item_keys=found.candidate_item_keys[candidates],
        attribute_rows=nor_candidates,
        total=found.total_activity.take(rows),
        activity=found.candidate_activity.take(candidates),
        exposures=found.candidate_exposures.take(candidates),
        sequences=sequences,
        history_attribute_rows=no_attributes,
        number_columns=np.empty((*candidates.shape, 0), dtype=np.float32),
    )
    offsets_ms = WORDS.utc_offsets_ms(found.contexts[rows].tolist())
    texts = found.user_attributes[rows].tolist()
    return {
        "user_attribute_rows": np.stack([*map(WORDS.user_attribute_rows, texts)]),
        "history_behavior_codes": transforms.behavior_codes(sequences),
        "history_item_rows": WORDS.item_rows(sequences.item_keys),
        "request_features": transforms.request_features(
            sequences, activity, times_ms, utc_offset_ms=offsets_ms
        ),
        "candidate_features": transforms.candidate_features(
            inputs, WORDS.candidate_columns
        ),
    }
