"""Which events come of rows, and in which order."""

import json
from pathlib import Path

import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.schema import Behavior
from srp4ctr.streams.imports.importing import ImportJob, import_files
from srp4ctr.streams.imports.mapping import Mapping, as_mapping
from srp4ctr.streams.imports.report import refuse_bad
from tests.streams.imports.written import (
    HEADER,
    ROWS,
    dropped,
    events_in,
    imported,
    plain,
    ratings,
    written,
)


def test_duplicates_are_dropped_and_counted_with_their_lines(tmp_path: Path) -> None:
    report = imported(written(tmp_path, HEADER + ROWS + ROWS), ratings())
    assert report.counts.total() == 20
    assert dropped(report) == {"duplicate": 20}
    assert report.dropped["duplicate"].places[0] == "ratings.csv line 22"
    refuse_bad(report, skip_bad=False)  # a duplicate is nothing bad


def test_events_are_ordered_by_time_if_the_mapping_says_so(tmp_path: Path) -> None:
    out = tmp_path / "events.jsonl"
    lines = HEADER + "".join(reversed(ROWS.splitlines(keepends=True)))
    imported(written(tmp_path, lines), ratings(), out)
    assert events_in(out)[0].occurred_at == 1_600_000_019_000
    imported(written(tmp_path, lines), ratings(sort=True), out)
    times = [event.occurred_at for event in events_in(out)]
    assert times == sorted(times)
    assert len(times) == 20


def test_of_two_files_the_events_are_ordered_by_time(tmp_path: Path) -> None:
    """Else all clicks would come after all impressions, too late for their labels."""
    head = "user,item,at,request\n"
    rows = [f"u{n},i{n},{1_600_000_000 + 90_000 * n},r{n}\n" for n in range(5)]
    paths = [
        written(tmp_path, head + "".join(rows), f"{name}.csv")
        for name in ("shown", "clicked")
    ]
    columns = {"user": "user", "item": "item", "time": "at", "request": "request"}
    rules = [
        {"type": "impression", "files": ["shown.csv"], "position": "0"},
        {"type": "click", "files": ["clicked.csv"]},
    ]
    mapping = as_mapping({**columns, "time_unit": "s", "events": rules}, "import.toml")
    out = tmp_path / "O'Neil" / "events.jsonl"
    out.parent.mkdir()
    imported(paths, mapping, out)
    times = [event.occurred_at for event in events_in(out)]
    assert times == sorted(times)
    assert len(times) == 10


def test_two_items_of_one_row_are_two_events(tmp_path: Path) -> None:
    pairs = written(tmp_path, "user,left,right,at\nu,a,b,1600000000\nu,b,b,1600000001\n")
    mapping = as_mapping(
        {
            "user": "user",
            "time": "at",
            "time_unit": "s",
            "request": "at",
            "events": [
                {"type": "impression", "item": "left", "position": "0"},
                {"type": "impression", "item": "right", "position": "1"},
                {"type": "behavior", "action": "view", "item": "left"},
            ],
        },
        "import.toml",
    )
    out = tmp_path / "events.jsonl"
    report = imported(pairs, mapping, out)
    shown = [e["item_id"] for e in plain(out) if e["type"] == "impression"]
    assert shown == ["a", "b", "b", "b"]
    assert not dropped(report)


def test_an_attribute_may_go_back_to_what_it_was(tmp_path: Path) -> None:
    rated = written(tmp_path, HEADER + "7,i,1600000000,4\n")
    prices = "i,A,1600000600\ni,B,1600000700\ni,A,1600000800\ni,A,1600000800\n"
    listed = written(tmp_path, "id,price,at\n" + prices, "items.csv")
    items = {
        "files": ["items.csv"],
        "item": "id",
        "time": "at",
        "attributes": {"price": "price"},
    }
    mapping = ratings(items=items, files=["ratings.csv"])
    out = tmp_path / "events.jsonl"
    report = imported([rated, listed], mapping, out)
    found = [e["attributes"]["price"] for e in plain(out) if e["type"] == "item"]
    assert (found, dropped(report)) == (["A", "B", "A"], {"duplicate": 1})


@pytest.mark.parametrize("time", ["timestamp * 1.0", "timestamp::HUGEINT"])
def test_a_time_may_be_of_any_type_of_number(time: str, tmp_path: Path) -> None:
    out = tmp_path / "events.jsonl"
    imported(written(tmp_path, HEADER + ROWS), ratings(time=time), out)
    assert events_in(out)[0].occurred_at == 1_600_000_000_000


def test_an_array_of_json_is_read_where_bad_rows_are_skipped(tmp_path: Path) -> None:
    row = {"user_id": "u", "item_id": "i", "timestamp": 1_600_000_000, "rating": 3}
    array = written(tmp_path, json.dumps([row, row | {"user_id": None}]), "rows.json")
    report = imported(array, ratings(), tmp_path / "events.jsonl", skip_bad=True)
    assert (report.counts.total(), report.num_bad) == (1, 1)


def test_a_key_of_actions_that_matches_nothing_is_named(tmp_path: Path) -> None:
    lines = "user_id,item_id,timestamp,did\nu,i,1600000000,fav\nu,i,1600000001,pv\n"
    names = {"fav": "favourite", "byu": "buy"}
    mapping = ratings(action="$did", value="timestamp", actions=names)
    source = written(tmp_path, lines)
    note = "[actions] has byu, which no behaviour of these files has (they have: fav, pv)"
    assert imported(source, mapping).notes == [note]
    ready = ImportJob(files=[str(source)], mapping=mapping, is_ready=True)
    assert import_files(ready).notes == []


def test_a_named_file_with_the_columns_is_read_under_another_name(tmp_path: Path) -> None:
    mapping = ratings(files=["ratings.csv"])
    report = imported(written(tmp_path, HEADER + ROWS, "day_2.csv"), mapping)
    assert report.counts.total() == 20
    assert report.notes == [
        "day_2.csv is read although its name is not in files = [ratings.csv]: it has the "
        "columns"
    ]


def test_a_named_file_with_other_columns_is_refused_with_the_pattern(
    tmp_path: Path,
) -> None:
    other = written(tmp_path, "a,b\n1,2\n", "other.csv")
    mapping = ratings(files=["ratings*.csv"])
    with pytest.raises(MistakeError, match=r"other\.csv .* files = \[ratings\*\.csv\]"):
        imported(other, mapping)
    both = imported([written(tmp_path, HEADER + ROWS), other], mapping)
    assert both.counts.total() == 20
    assert "its columns are others" in both.notes[0]


_ORDERS = """event,user,item,at,request
view,u1,i1,1600000000,r1
order,u1,i1,1600000060,r1
order,u1,i2,1600000120,
"""


def _orders(**settings: object) -> Mapping:
    columns = {"user": "user", "item": "item", "time": "at", "request": "request"}
    rules = {
        "impression": "event = 'view'",
        "position": "0",
        "events": [{"type": "behavior", "where": "event = 'order'", "action": "buy"}],
    }
    return as_mapping({**columns, "time_unit": "s", **rules, **settings}, "import.toml")


def test_a_behaviour_has_the_request_of_its_row_if_there_is_one(tmp_path: Path) -> None:
    out = tmp_path / "events.jsonl"
    report = imported(written(tmp_path, _ORDERS), _orders(), out)
    assert not report.dropped
    behaviours = [event for event in events_in(out) if isinstance(event, Behavior)]
    assert [event.request_id for event in behaviours] == ["r1", None]


def test_behaviours_of_another_file_have_a_request_only_if_their_rule_names_it(
    tmp_path: Path,
) -> None:
    views = written(tmp_path, "event,user,item,at,request\nview,u1,i1,1600000000,r1\n")
    orders = written(tmp_path, "user,item,at,led\nu1,i1,1600000060,r1\n", "orders.csv")
    rule = {"type": "behavior", "files": ["orders.csv"], "where": "true", "action": "buy"}
    shown = {"files": ["ratings.csv"]}
    for request, expected in ({}, None), ({"request": "led"}, "r1"):
        mapping = _orders(events=[{**rule, **request}], **shown)
        out = tmp_path / "events.jsonl"
        imported([views, orders], mapping, out)
        (order,) = (event for event in events_in(out) if isinstance(event, Behavior))
        assert order.request_id == expected
