from pathlib import Path
from typing import Any

import pytest

from srp4ctr.errors import MistakeError
from tests.streams.imports.written import (
    HEADER,
    ROWS,
    events_in,
    imported,
    ratings,
    written,
)

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a column": ({"user": "usr_id"}, "no column 'usr_id'; did you mean user_id?"),
    "a column in SQL": (
        {"behavior": "ratng > 1"},
        "no column 'ratng'; did you mean rating",
    ),
    "SQL": ({"behavior": "rating >"}, "syntax error"),
    "two expressions": ({"behavior": "user_id, item_id"}, "more than one expression"),
    "a second statement": ({"behavior": "1); DROP TABLE x; --"}, "behavior = "),
    "no unit": ({"time_unit": None}, "say their unit"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_mapping_is_a_sentence(name: str, tmp_path: Path) -> None:
    changes, said = WRONG[name]
    with pytest.raises(MistakeError) as refused:
        imported(written(tmp_path, HEADER + ROWS), ratings(**changes))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "sql",
    [
        "(SELECT count(*) FROM read_text('{secret}')) > 0",
        "(SELECT count(*) FROM '{secret}') > 0",
        "(SELECT count(*) FROM glob('{secret}')) > 0",
    ],
)
def test_sql_reads_no_other_file(sql: str, tmp_path: Path) -> None:
    secret = written(tmp_path, "secret\n1\n", "secret.csv")
    source = written(tmp_path, HEADER + ROWS)
    with pytest.raises(MistakeError, match="disabled by configuration"):
        imported(source, ratings(behavior=sql.format(secret=secret)))


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2024-07-01T12:00:00Z", "Europe/Berlin", 1_719_835_200_000),
        ("2024-07-01 14:00:00", "Europe/Berlin", 1_719_835_200_000),
        ("2024-07-01 14:00:00+02:00", "UTC", 1_719_835_200_000),
        ("2024-07-01 12:00:00 UTC", "Europe/Berlin", 1_719_835_200_000),
        ("2024-07-01 12:00:00 +0000 UTC", "Europe/Berlin", 1_719_835_200_000),
    ],
)
def test_a_zone_is_that_of_the_text_else_the_mapping_s(
    text: str, zone: str, expected: int, tmp_path: Path
) -> None:
    out = tmp_path / "events.jsonl"
    source = written(tmp_path, f"{HEADER}u,i,{text},4\n")
    imported(source, ratings(time_unit=None, time_zone=zone), out)
    assert [each.occurred_at for each in events_in(out)] == [expected]
