from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from srp4ctr.features.offline.event_tables import opened
from srp4ctr.features.offline.point_in_time import histories, snapshot
from srp4ctr.features.tensors import item_fields
from srp4ctr.features.tensors.caller_numbers import FROM_LAST
from srp4ctr.features.tensors.vocabulary import Vocabulary, build
from srp4ctr.streams.events.schema import item_key
from srp4ctr.streams.state.label_join import CLICKED_LATE
from srp4ctr.testing.raw_logs import Published, write_log
from srp4ctr.training.dataset import examples, item_attributes
from srp4ctr.training.dataset.batches import EXAMPLE_NAMES, Slates
from srp4ctr.training.dataset.examples import MAX_SLATE, Cutting
from tests.builders import NOON_MS, a_behavior, a_profile, an_impression
from tests.training.logs import a_label

NAMES = [f"i{n}" for n in range(200)]
WORDS = build({item_key(name): 9 for name in NAMES}, [{"colour": "red"}] * 5)


def the_slates(folder: Path, *published: Published) -> Slates:
    log_dir = write_log(folder, published)
    profiles = {item_key("i1"): {"colour": "red"}}
    with opened(log_dir) as log:
        snapshots = snapshot(log, length=4, ttl_days=90.0)
    return examples.slates(snapshots, WORDS, item_attributes.of_profiles(profiles, WORDS))


def row_of(item_id: str, words: Vocabulary = WORDS) -> int:
    return int(words.item_rows(item_key(item_id)))


def shown(item_id: str, at_ms: int = NOON_MS, **fields: object) -> Published:
    return an_impression(item_id, at_ms=at_ms, **fields), at_ms


def label(item_id: str, request_id: str = "r1", **fields: Any) -> Published:
    return a_label(request_id, "u1", item_id, **fields), NOON_MS + 60_000


def test_an_impression_without_a_matured_label_is_no_example(tmp_path: Path) -> None:
    slates = the_slates(tmp_path, shown("i1"), shown("i2", position=1), label("i2"))
    rows = slates.tensors["candidate_item_rows"]
    assert rows.tolist() == [[row_of("i2")]]


def test_labels_and_positions_have_the_order_of_their_items(tmp_path: Path) -> None:
    slates = the_slates(
        tmp_path,
        shown("i2", position=4),
        shown("i1", position=0),
        label("i1"),
        label("i2", clicked=True),
    )
    assert slates.tensors["candidate_item_rows"].tolist() == [[row_of("i1"), row_of("i2")]]
    assert slates.clicked.tolist() == [[0.0, 1.0]]
    assert slates.positions.tolist() == [[0, 4]]
    assert slates.tensors["candidate_attribute_rows"][0, :, 0].tolist() == [2, 0]


def test_a_label_that_a_late_click_corrected_is_used_corrected(tmp_path: Path) -> None:
    late = label("i1", clicked=True, within_window=False, revision=CLICKED_LATE)
    corrected = the_slates(tmp_path, shown("i1"), late, label("i1"))
    assert corrected.clicked.tolist() == [[1.0]]


def test_the_same_request_id_of_another_user_is_another_slate(tmp_path: Path) -> None:
    other = a_label("r1", "u2", "i1", clicked=True), NOON_MS + 60_000
    slates = the_slates(
        tmp_path, shown("i1"), shown("i1", user_id="u2"), label("i1"), other
    )
    by_user = dict(zip(slates.user_ids.tolist(), slates.clicked.tolist(), strict=True))
    assert by_user == {"u1": [0.0], "u2": [1.0]}


def test_short_slates_are_padded_and_long_ones_cut_in_pieces(tmp_path: Path) -> None:
    long = [shown(NAMES[n], position=n) for n in range(MAX_SLATE + 3)]
    labels = [label(NAMES[n]) for n in range(MAX_SLATE + 3)]
    slates = the_slates(tmp_path, *long, *labels)
    assert slates.shown.sum(1).tolist() == [MAX_SLATE, 3]
    assert not slates.clicked[1, 3:].any()
    assert not slates.tensors["candidate_features"][1, 3:].any()


def test_every_tensor_of_the_schema_is_there_with_one_row_a_request(
    tmp_path: Path,
) -> None:
    later = NOON_MS + 5_000
    slates = the_slates(
        tmp_path,
        shown("i1"),
        shown("i2", later, request_id="r2", context={"page": "home"}),
        label("i1"),
        label("i2", "r2"),
    )
    assert set(slates.tensors) == set(EXAMPLE_NAMES)
    assert {len(array) for array in slates.tensors.values()} == {2}
    assert slates.request_at_ms.tolist() == [NOON_MS, later]
    assert slates.tensors["context_rows"].any(axis=1).tolist() == [False, True]


def test_user_fields_are_rows_of_the_attributes_at_the_request(tmp_path: Path) -> None:
    names = NAMES[:3]
    towns = [{"town": town} for town in ("Ulm", "Bonn") for _ in range(5)]
    words = replace(WORDS, user_fields=item_fields.build(towns))
    log_dir = write_log(
        tmp_path,
        [
            *(
                shown(name, NOON_MS + n, request_id=name)
                for n, name in enumerate(NAMES[:3])
            ),
            (a_profile(town="Ulm", at_ms=NOON_MS), NOON_MS),
            (a_profile(town="Rome", at_ms=NOON_MS + 1), NOON_MS + 1),
            *(label(name, name) for name in names),
        ],
    )
    with opened(log_dir) as log:
        snapshots = snapshot(log, length=4, ttl_days=90.0)
    made = examples.slates(snapshots, words, item_attributes.of_profiles({}, words))
    ulm = words.user_attribute_rows('{"town": "Ulm"}').tolist()
    # At noon nothing was known, and of Rome's users there are too few.
    assert made.tensors["user_attribute_rows"].tolist() == [[0], ulm, [0]]
    assert made.take(slice(1, 2)).tensors["user_attribute_rows"].tolist() == [ulm]


def test_windows_hold_every_behaviour_before_the_boundary_once(tmp_path: Path) -> None:
    seen: list[Published] = [
        (a_behavior(NAMES[n], at_ms=NOON_MS + n), NOON_MS + n) for n in range(7)
    ]
    seen.append((a_behavior("i9", at_ms=NOON_MS, user_id="u2"), NOON_MS))
    seen.append((a_behavior("i8", at_ms=NOON_MS + 500), NOON_MS + 500))
    with opened(write_log(tmp_path, seen)) as log:
        past = histories(log, before_ms=NOON_MS + 500)
    windows = examples.windows(
        past, Cutting(length=4, step=4), WORDS, item_attributes.of_profiles({}, WORDS)
    )
    rows = windows.tensors["history_item_rows"]
    named = [row_of(name) for name in NAMES[:7]]
    expected = [[0, *named[:3]], named[3:], [0, 0, 0, row_of("i9")]]
    assert sorted(rows.tolist()) == sorted(expected)
    assert row_of("i8") not in rows


def test_each_behaviour_of_overlapping_windows_is_once_among_their_newest(
    tmp_path: Path,
) -> None:
    seen: list[Published] = [
        (a_behavior(NAMES[n], at_ms=NOON_MS + n), NOON_MS + n) for n in range(7)
    ]
    seen.append((a_behavior("i9", at_ms=NOON_MS, user_id="u2"), NOON_MS))
    with opened(write_log(tmp_path, seen)) as log:
        past = histories(log, before_ms=NOON_MS + 500)
    cutting = Cutting(length=4, step=3)
    none = item_attributes.of_profiles({}, WORDS)
    windows = examples.windows(past, cutting, WORDS, none)
    named = [row_of(name) for name in NAMES[:7]]
    rows = windows.tensors["history_item_rows"].tolist()
    assert rows == [
        named[3:],
        named[:4],
        [0, 0, 0, named[0]],
        [0, 0, 0, row_of("i9")],
    ]
    users, ends = cutting.ends(past.starts)
    assert users.tolist() == [0, 0, 0, 1]
    assert past.behaviors.item_keys[ends - 1].tolist() == [
        item_key(name) for name in (NAMES[6], NAMES[3], NAMES[0], "i9")
    ]


def numbered(item_id: str, numbers: dict[str, float] | None, position: int) -> Published:
    return shown(item_id, position=position, numbers=numbers)


def number_columns_of(
    folder: Path, *impressions: Published, before: Sequence[Published] = ()
) -> list[list[float]]:
    """Return the columns of ``price`` of one request, whose labels have matured."""
    words = replace(WORDS, candidate_numbers=("price",))
    items = [event.item_id for event, _ in impressions]  # type: ignore[union-attr]
    log_dir = write_log(folder, [*before, *impressions, *map(label, items)])
    with opened(log_dir) as log:
        snapshots = snapshot(log, length=4, ttl_days=90.0)
    made = examples.slates(snapshots, words, item_attributes.of_profiles({}, words))
    features = made.tensors["candidate_features"]
    assert features.shape[-1] == words.candidate_columns.layout.width
    found: list[list[float]] = features[0, :, -5:].tolist()
    return found


def test_numbers_are_the_columns_that_the_answer_returned(tmp_path: Path) -> None:
    """The caller had ranked more items than these two."""
    columns = {"price": 80.0, "price_rank": 0.875, "price_difference": 12.5}
    columns["price_from_last"] = -30.0
    found = number_columns_of(tmp_path, numbered("i1", columns, 0), numbered("i2", None, 1))
    assert found == [[80.0, 0.875, 12.5, -30.0, 0.0], [0.0, 0.5, 0.0, 0.0, 1.0]]


def test_numbers_without_an_answer_s_columns_are_of_the_shown_list(tmp_path: Path) -> None:
    found = number_columns_of(
        tmp_path,
        numbered("i1", {"price": 80.0}, 0),
        numbered("i2", {"price": 60.0}, 1),
        numbered("i3", {"other": 1.0}, 2),
    )
    assert found == [[80, 0.5, 10, 0, 0], [60, 0, -10, 0, 0], [0, 0.5, 0, 0, 1]]


def test_numbers_are_compared_with_those_of_the_item_touched_last(tmp_path: Path) -> None:
    done = [
        (a_behavior(item, at_ms=NOON_MS - ago_ms), NOON_MS - ago_ms)
        for item, ago_ms in (("i1", 9_000), ("i2", 5_000), ("not-shown", 1_000))
    ]
    found = number_columns_of(
        tmp_path,
        *(numbered(f"i{n}", {"price": 80.0 - 15 * n}, n) for n in (1, 2, 3)),
        before=done,
    )
    assert [row[FROM_LAST] for row in found] == [15.0, 0.0, -15.0]


def test_a_long_list_of_numbers_is_one_list_though_its_slate_is_cut(tmp_path: Path) -> None:
    count = MAX_SLATE + 6
    found = number_columns_of(
        tmp_path, *(numbered(NAMES[n], {"price": float(n)}, n) for n in range(count))
    )
    assert found[0] == [0.0, 0.0, -(count - 1) / 2, 0.0, 0.0]
    assert found[MAX_SLATE - 1][1] == np.float32((MAX_SLATE - 1) / count)
