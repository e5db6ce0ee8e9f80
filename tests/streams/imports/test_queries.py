from pathlib import Path
from typing import Any

import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.schema import Impression
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
    assert [event.occurred_at for event in events_in(out)] == [expected]


HOTELS = (
    '{"u": "7", "t": 1600000000, "r": "r1", "shown": ["a", "b"], "prices": [80.5, 95],'
    ' "left": ["3", ""], "device": "phone", "hit": "b"}\n'
)


def hotels(**changes: Any) -> Any:
    """Return a mapping of ``HOTELS``: a list of hotels that was shown with its prices."""
    plain = {"user": "u", "item": "each", "time": "t", "request": "r"}
    kinds = {"behavior": None, "action": None, "value": None}
    rule = {"type": "impression", "where": "true", "each": "shown"}
    click = {"type": "click", "where": "hit IS NOT NULL", "item": "hit"}
    shown = [{**rule, "position": "each_index"}, click]
    return ratings(**plain, **kinds, **{"events": shown} | changes)


def test_numbers_of_a_candidate_are_read_from_the_list_next_to_it(tmp_path: Path) -> None:
    out = tmp_path / "events.jsonl"
    numbers = {
        "price": "prices[each_index + 1]",
        "order": "each_index",
        "left": '"left"[each_index + 1]',  # a text, of which one is empty
    }
    mapping = hotels(numbers=numbers, context={"device": "device"})
    imported(written(tmp_path, HOTELS, "log.jsonl"), mapping, out)
    shown = [e for e in events_in(out) if isinstance(e, Impression)]
    assert [each.numbers for each in shown] == [
        {"price": 80.5, "order": 0.0, "left": 3.0},
        {"price": 95.0, "order": 1.0},
    ]
    assert [each.context for each in shown] == [{"device": "phone"}] * 2
    assert len(events_in(out)) == 3


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (
            {"price": "prices[each_index + 1]"},
            r"differs between .* under \[numbers\]: price",
        ),
        ({"name": "each"}, r"\[context\] name = 'each' differs"),
        ({"price": "pricse[each_index + 1]"}, "did you mean prices"),
    ],
)
def test_a_context_that_differs_within_a_list_is_refused(
    context: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(MistakeError, match=message):
        imported(written(tmp_path, HOTELS, "log.jsonl"), hotels(context=context))


def test_a_context_may_be_the_element_s_if_the_request_is(tmp_path: Path) -> None:
    each = {"type": "impression", "where": "true", "each": "shown", "position": "0"}
    rule = {**each, "request": "r || each"}
    mapping = hotels(events=[rule], context={"name": "each"})
    assert imported(written(tmp_path, HOTELS, "log.jsonl"), mapping).counts.total() == 2


def test_a_number_that_is_none_makes_a_bad_row(tmp_path: Path) -> None:
    broken = HOTELS.replace('"3"', '"three"')
    mapping = hotels(numbers={"left": '"left"[each_index + 1]'})
    report = imported(written(tmp_path, broken, "log.jsonl"), mapping)
    [dropped] = [each for why, each in report.dropped.items() if why != "no rule"]
    assert dropped.detail == "the number left 'three' is not a number"


def test_a_number_is_not_named_as_a_column_of_answers(tmp_path: Path) -> None:
    with pytest.raises(MistakeError, match="price_rank: answers name their own columns"):
        imported(
            written(tmp_path, HOTELS, "log.jsonl"),
            hotels(numbers={"price_rank": "each_index"}),
        )
