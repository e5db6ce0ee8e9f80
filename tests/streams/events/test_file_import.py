import gzip
import json
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.codec import decode, encode
from srp4ctr.streams.events.file_import import check_file, read_lines
from srp4ctr.streams.events.schema import Event
from srp4ctr.streams.imports import mapping
from srp4ctr.streams.imports.importing import ImportJob, import_files
from tests.builders import NOON_MS, a_behavior, a_click, an_impression, an_item

NOW_MS = NOON_MS + 60_000


def test_a_report_names_each_bad_line_and_counts_the_good_ones(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    lines = [
        encode(an_impression()),
        b"",
        b"{not json",
        encode(a_click()),
        encode(a_behavior(at_ms=NOON_MS // 1000)),
    ]
    path.write_bytes(b"\n".join(lines))
    report = check_file(path, NOW_MS)
    assert report.counts == {"impression": 1, "click": 1}
    assert report.rejected == {"broken_json": 1, "time_in_seconds": 1}
    assert [(bad.number, bad.reason) for bad in report.bad_lines] == [
        (3, "broken_json"),
        (5, "time_in_seconds"),
    ]
    assert "milliseconds" in report.bad_lines[1].detail


def test_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(encode(a_click()) + b"\r\n" + encode(a_behavior()) + b"\r\n")
    assert check_file(path, NOW_MS).total == 2


def test_a_line_that_is_not_text_is_one_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\xff\xfe\x00\n" + encode(a_click()))
    report = check_file(path, NOW_MS)
    assert (report.total, report.rejected) == (1, {"broken_json": 1})


def test_parquet_rows_are_events(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    events: list[Event] = [
        an_impression(context={"page": "home"}, numbers={"price": 1.5}),
        a_click(),
        a_behavior(value=2.5),
        an_item(genre=["war"]),
    ]
    rows = [msgspec.json.decode(encode(event)) for event in events]
    for row in rows:  # as a table has them
        for name in {"context", "numbers", "attributes"} & row.keys():
            row[name] = json.dumps(row[name])
    columns = dict.fromkeys(name for row in rows for name in row)
    filled = [dict.fromkeys(columns) | row for row in rows]
    pq.write_table(pa.Table.from_pylist(filled), path)
    assert [decode(line.payload, NOW_MS) for line in read_lines(path)] == events


def test_broken_text_in_a_parquet_row_is_one_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    row = {"type": "item", "event_id": "e", "item_id": "i", "occurred_at": NOON_MS}
    pq.write_table(pa.Table.from_pylist([row | {"attributes": "{broken"}]), path)
    assert check_file(path, NOW_MS).rejected == {"broken_json": 1}


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.jsonl is not a file"):
        check_file(tmp_path / "nowhere.jsonl", NOW_MS)


def test_a_broken_parquet_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    path.write_bytes(b"no such file at all")
    with pytest.raises(ValueError, match=r"events\.parquet cannot be read"):
        check_file(path, NOW_MS)
    path.write_bytes(b"PAR1 between is nothing PAR1")
    with pytest.raises(ValueError, match=r"events\.parquet cannot be read"):
        check_file(path, NOW_MS)


@pytest.mark.parametrize("size", [4, 8, 300])
def test_half_a_parquet_file_is_incomplete(size: int, tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"type": ["click"] * 99}), path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(MistakeError, match=r"events\.parquet is an incomplete Parquet"):
        check_file(path, NOW_MS)
    job = ImportJob(files=[str(path)], mapping=mapping.ready_format("clicks"))
    with pytest.raises(MistakeError, match=r"events\.parquet is an incomplete Parquet"):
        import_files(job)


def test_a_parquet_file_without_types_is_an_error_that_lists_its_columns(
    tmp_path: Path,
) -> None:
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"user_id": ["u1"]}), path)
    with pytest.raises(ValueError, match="no column `type`; its columns are user_id"):
        check_file(path, NOW_MS)


def test_a_compressed_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(gzip.compress(encode(a_click())))
    with pytest.raises(ValueError, match="unpack it first"):
        check_file(path, NOW_MS)
