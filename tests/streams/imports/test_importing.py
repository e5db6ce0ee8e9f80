import gzip
import json
from pathlib import Path

import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.streams.imports.report import ImportReport, refuse_bad
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


def refusal(report: ImportReport) -> str:
    with pytest.raises(MistakeError) as refused:
        refuse_bad(report, skip_bad=False)
    return str(refused.value)


def test_a_row_becomes_the_event_that_the_mapping_says(tmp_path: Path) -> None:
    out = tmp_path / "events.jsonl"
    imported(written(tmp_path, HEADER + "007,08,1600000000,4\n"), ratings(), out)
    assert plain(out) == [
        {
            "type": "behavior",
            "user_id": "007",
            "item_id": "08",
            "action": "rate",
            "occurred_at": 1_600_000_000_000,
            "value": 4.0,
        }
    ]


def test_impressions_clicks_and_context_of_one_row(tmp_path: Path) -> None:
    out = tmp_path / "events.jsonl"
    mapping = ratings(
        impression="true",
        click="rating >= 4",
        request="user_id || '-' || timestamp",
        position="0",
        context={"stars": "rating"},
    )
    imported(
        written(tmp_path, HEADER + "u,i,1600000000,4\nu,j,1600000000,1\n"), mapping, out
    )
    found = plain(out)
    assert [each["type"] for each in found] == [
        *("impression", "click", "behavior", "impression", "behavior")
    ]
    assert found[0]["request_id"] == found[1]["request_id"] == "u-1600000000"
    assert (found[0]["position"], found[0]["context"]) == (0, {"stars": "4"})


def test_a_second_import_writes_the_same_file(tmp_path: Path) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    imported(written(tmp_path, HEADER + ROWS), ratings(), first)
    imported(written(tmp_path, HEADER + ROWS), ratings(), second)
    assert first.read_bytes() == second.read_bytes()


def test_an_event_s_id_is_of_its_content_and_not_of_its_place(tmp_path: Path) -> None:
    forwards, backwards = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    lines = ROWS.splitlines(keepends=True)
    imported(written(tmp_path, HEADER + ROWS), ratings(), forwards)
    turned = written(tmp_path, HEADER + "".join(reversed(lines)), "other.csv")
    imported(turned, ratings(), backwards)
    ids = {event.event_id for event in events_in(forwards)}
    assert len(ids) == 20
    assert ids == {event.event_id for event in events_in(backwards)}


def test_parquet_and_json_lines_are_the_same_events(tmp_path: Path) -> None:
    source = written(tmp_path, HEADER + ROWS)
    lines, table = tmp_path / "events.jsonl", tmp_path / "events.parquet"
    mapping = ratings(
        impression="true", request="user_id", position="0", context={"r": "rating"}
    )
    imported(source, mapping, lines)
    imported(source, mapping, table)
    assert events_in(lines) == events_in(table)
    again = tmp_path / "again.jsonl"
    columns = {"user": "user_id", "item": "item_id", "time": "occurred_at"}
    kinds = {"time_unit": "ms", "behavior": "type = 'behavior'", "value": "value"}
    imported(table, ratings(**columns, **kinds), again)
    assert len(events_in(again)) == 20


def test_gzip_other_delimiters_and_a_missing_header(tmp_path: Path) -> None:
    packed = written(tmp_path, gzip.compress((HEADER + ROWS).encode()), "ratings.csv.gz")
    assert imported(packed, ratings()).counts.total() == 20
    semicolons = written(tmp_path, (HEADER + ROWS).replace(",", ";"))
    assert imported(semicolons, ratings()).counts.total() == 20
    csv = {"columns": HEADER.strip().split(",")}
    for content in (ROWS, HEADER + ROWS):  # the names are not read as a row
        found = imported(written(tmp_path, content), ratings(csv=csv))
        assert (found.counts.total(), found.num_bad) == (20, 0)


def test_lists_are_taken_apart_and_items_have_lists_of_attributes(tmp_path: Path) -> None:
    rows = [{"u": 1, "t": "2024-01-02T03:04:05Z", "shown": ["a", "b"], "clicked": ["b"]}]
    shown = written(tmp_path, "\n".join(map(json.dumps, rows)), "shown.jsonl")
    catalogue = written(tmp_path, "id;tags;nothing\na;x|y;\nb;;\n", "catalogue.csv")
    mapping = ratings(
        user="u",
        item="each",
        time="t",
        time_unit=None,
        request="u",
        behavior=None,
        action=None,
        value=None,
        events=[
            {"type": "impression", "each": "shown", "position": "each_index"},
            {"type": "click", "each": "clicked"},
        ],
        items={
            "files": ["catalogue*"],
            "item": "id",
            "attributes": {"tags": "string_split(tags, '|')", "nothing": "nothing"},
        },
    )
    out = tmp_path / "events.jsonl"
    report = imported([shown, catalogue], mapping, out)
    found = {(e["type"], e["item_id"], e.get("position")) for e in plain(out)}
    assert found == {
        ("impression", "a", 0),
        ("impression", "b", 1),
        ("click", "b", None),
        ("item", "a", None),
    }
    (update,) = (each for each in plain(out) if each["type"] == "item")
    assert update["attributes"] == {"tags": ["x", "y"]}
    assert update["occurred_at"] == 1_704_164_645_000  # since the first event
    assert dropped(report) == {"no attribute": 1}


BROKEN = {
    "a row that is too short": ("u1,i2\n", "line 22: it has 2 columns instead of 4"),
    "a row that is too long": ("u,i,1,2,3\n", "line 22: it has 5 columns instead of 4"),
    "the end in the middle": ("u1,i", "line 22: it has 2 columns instead of 4"),
    "an open quotation": ('"u1,i2,1600000000,4\n', "line 22: a quotation mark"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_named_and_left_out_if_that_is_wanted(
    name: str, tmp_path: Path
) -> None:
    line, said = BROKEN[name]
    source, out = written(tmp_path, HEADER + ROWS + line), tmp_path / "events.jsonl"
    with pytest.raises(MistakeError, match=said):
        imported(source, ratings(), out)
    assert not out.exists()
    report = imported(source, ratings(), out, skip_bad=True)
    assert dropped(report) == {"broken_row": 1}
    assert report.dropped["broken_row"].places == ["ratings.csv line 22"]
    assert len(events_in(out)) == 20


BAD = {
    "seconds among milliseconds": ("u,i,1600000000000,4", "read as ms it is 2020-09-13"),
    "no time": ("u,i,yesterday,4", "the time 'yesterday' is not a number"),
    "a long id": (f"{'u' * 10_000},i,1600000000,4", "user_id has more than 256 characters"),
    "the user of erased rows": (
        "srp4ctr-forgotten,i,1600000000,4",
        "user_id 'srp4ctr-forgotten' is reserved",
    ),
    "no user": (",i,1600000000,4", "the row has no user"),
    "no number": ("u,i,1600000000,n/a", "the value 'n/a' is not a number"),
    "1970": ("u,i,1600000,4", "the time is 1970-01-19 12:26, before 1973"),
    "2100": ("u,i,4102444800,4", "the time is 2100-01-01 00:00, in the future"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_keeps_all_from_being_imported_unless_it_is_left_out(
    name: str, tmp_path: Path
) -> None:
    line, said = BAD[name]
    source, out = written(tmp_path, f"{HEADER}{ROWS}{line}\n"), tmp_path / "events.jsonl"
    report = imported(source, ratings(), out)
    assert not out.exists()
    message = refusal(report)
    assert said in message
    assert "1 of 21 rows are bad, the first is ratings.csv line 22" in message
    imported(source, ratings(), out, skip_bad=True)
    assert len(events_in(out)) == 20


def test_mixed_units_are_called_so(tmp_path: Path) -> None:
    mixed = HEADER + ROWS + "u,i,1600000000000,4\n"
    report = imported(written(tmp_path, mixed), ratings())
    assert "Some times are wrong, or of another unit" in refusal(report)
    whole = imported(written(tmp_path, HEADER + ROWS), ratings(time_unit="ms"))
    message = refusal(whole)
    assert "read as s it is 2020-09-13: is time_unit right?" in message
    assert "Some times" not in message


def test_a_title_is_no_action(tmp_path: Path) -> None:
    lines = "".join(f"u,i,1600000000,title {n}\n" for n in range(100))
    source = written(tmp_path, HEADER + lines)
    report = imported(source, ratings(action="$rating", value=None))
    assert "there are more than 64; is `action` the right column?" in refusal(report)


@pytest.mark.parametrize("after", ["", '\n{"user_id": "u", "item_id": "i"}\n'])
def test_a_line_of_json_that_ends_too_early_has_its_number(
    after: str, tmp_path: Path
) -> None:
    whole = '{"user_id": "u", "item_id": "i", "timestamp": 1600000000, "rating": 4}\n'
    path = tmp_path / "ratings.jsonl"
    path.write_text(f'{whole}{{"user_id": "u", "item_id":{after}')
    with pytest.raises(MistakeError, match="line 2: broken JSON: it ends too early"):
        imported(path, ratings())


FILES = {
    "utf16": ((HEADER + ROWS).encode("utf-16"), "is UTF-16; make it UTF-8: iconv"),
    "latin": ((HEADER + "é,i,1600000000,4\n").encode("latin-1"), 'encoding = "latin-1"'),
    "empty": (b"", "is empty"),
    "header": (HEADER.encode(), "the files have no rows"),
    "gzip": (gzip.compress((HEADER + ROWS * 500).encode())[:-200], "ends too early"),
    "no header": (ROWS.encode(), "has no header"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_read_is_a_sentence(name: str, tmp_path: Path) -> None:
    content, said = FILES[name]
    with pytest.raises(MistakeError) as refused:
        imported(written(tmp_path, content), ratings())
    assert said in str(refused.value)


def test_another_encoding_can_be_named(tmp_path: Path) -> None:
    out = tmp_path / "events.jsonl"
    source = written(tmp_path, (HEADER + "é,i,1600000000,4\n").encode("latin-1"))
    imported(source, ratings(csv={"encoding": "latin-1"}), out)
    assert [each["user_id"] for each in plain(out)] == ["é"]


def test_broken_json_is_named_with_its_line(tmp_path: Path) -> None:
    row = {"user_id": "u", "item_id": "i", "timestamp": 1_600_000_000, "rating": 4}
    content = json.dumps(row) + '\n{"user_id": "u", "it'
    source = written(tmp_path, content, "ratings.jsonl")
    with pytest.raises(MistakeError, match="broken JSON"):
        imported(source, ratings())
    assert imported(source, ratings(), skip_bad=True).counts.total() == 1


def test_users_have_attributes_of_a_file_of_their_own_or_of_the_events(
    tmp_path: Path,
) -> None:
    out = tmp_path / "events.jsonl"
    rated = written(tmp_path, HEADER + "7,i,1600000000,4\n8,i,1600000001,4\n")
    people = written(tmp_path, "id,age,likes\n7,34,films|travel\n8,,\n", "people.csv")
    users = {
        "files": ["people.csv"],
        "user": "id",
        "attributes": {"age": "age", "likes": "string_split(likes, '|')"},
    }
    report = imported([rated, people], ratings(users=users, files=["ratings.csv"]), out)
    assert plain(out)[2:] == [
        {
            "type": "user",
            "user_id": "7",
            "occurred_at": 1_600_000_000_000 - 1,  # before the first event
            "attributes": {"age": "34", "likes": ["films", "travel"]},
        }
    ]
    assert (report.counts["user"], dropped(report)["no attribute"]) == (1, 1)
    # Of the events' own rows, since each one's time.
    own = {"user": "user_id", "attributes": {"stars": "rating"}, "time": "timestamp"}
    imported(rated, ratings(users=own), out)
    since = {e["user_id"]: e["occurred_at"] for e in plain(out) if e["type"] == "user"}
    assert since == {"7": 1_600_000_000_000, "8": 1_600_000_001_000}
