"""What a guess makes of lists of items, of too few items, and of columns left over."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.schema import Behavior, Click, Impression
from srp4ctr.streams.imports.guess import guess_mapping
from srp4ctr.streams.imports.mapping import Mapping, as_mapping, changed
from tests.streams.imports.written import events_in, guessed, imported, written

NOBODY_KNOWS = "Nobody knows what was shown"
VIEWED = ("view image", "click-out", "filter")


def hotel_visits(num_visits: int = 40) -> list[dict[str, object]]:
    """Return rows of visits: a view, a filter, then a click on one of four hotels."""
    rows: list[dict[str, object]] = []
    for visit in range(num_visits):
        shown = [str(100 + (visit + n) % 9) for n in range(4)]
        same = {
            "user": f"u{visit % 8}",
            "session": f"s{visit}",
            "city": f"c{visit % 3}",
            "device": ("phone", "desktop")[visit // 8 % 2],
        }
        for step, (action, reference) in enumerate(
            (("view image", shown[1]), ("filter", "pool"), ("click-out", shown[visit % 4]))
        ):
            row = {
                **same,
                "timestamp": 1_600_000_000 + 100 * visit + step,
                "action_type": action,
                "reference": reference,
            }
            if action == "click-out":
                row["impressions"] = shown
                row["prices"] = [50 + int(each) % 7 for each in shown]
            rows.append(row)
    return rows


COLUMNS = (
    "user",
    "session",
    "timestamp",
    "action_type",
    "reference",
    "city",
    "device",
    "impressions",
    "prices",
)


def as_csv(rows: Sequence[dict[str, object]], mark: str = "|") -> str:
    """Return ``rows`` as CSV, with lists as texts that ``mark`` separates or encloses."""

    def cell(row: dict[str, object], name: str) -> str:
        value = row.get(name, "")
        text = str(value)
        if isinstance(value, list):
            joined = (", " if mark == "[]" else mark).join(map(str, value))
            text = f"[{joined}]" if mark == "[]" else joined
        return f'"{text}"'

    lines = [",".join(cell(row, name) for name in COLUMNS) for row in rows]
    return "\n".join([",".join(COLUMNS), *lines]) + "\n"


def hotel_file(folder: Path, kind: str) -> Path:
    """Write the visits as JSON lines, Parquet, or CSV whose lists a mark separates."""
    rows = hotel_visits()
    if kind not in ("jsonl", "parquet"):
        return written(folder, as_csv(rows, kind), "visits.csv")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    source = written(folder, lines, "visits.jsonl")
    if kind == "parquet":
        target = folder / "visits.parquet"
        duckdb.sql(f"COPY (FROM '{source}') TO '{target}'")
        return target
    return source


@pytest.mark.parametrize("kind", ["|", ",", ", ", " ", "[]", "jsonl", "parquet"])
def test_lists_that_hold_the_row_s_item_are_what_was_shown(
    kind: str, tmp_path: Path
) -> None:
    source, out = hotel_file(tmp_path, kind), tmp_path / "events.jsonl"
    text, mapping = guessed(source)
    assert (mapping.user, mapping.item, mapping.time) == ("user", "reference", "timestamp")
    assert NOBODY_KNOWS not in text
    assert imported(source, mapping, out).num_bad == 0
    events = events_in(out)
    shown = [event for event in events if isinstance(event, Impression)]
    clicks = [event for event in events if isinstance(event, Click)]
    assert (len(shown), len(clicks)) == (160, 40)
    assert [event.action for event in events if isinstance(event, Behavior)] == 40 * [
        "view_image"
    ]
    rows = [row for row in hotel_visits() if "impressions" in row]
    for request in {each.request_id for each in shown}:
        of_request = sorted(
            (each for each in shown if each.request_id == request),
            key=lambda each: each.position,
        )
        row = next(r for r in rows if str(r["timestamp"]) in request)
        assert [each.position for each in of_request] == [0, 1, 2, 3]
        assert [each.item_id for each in of_request] == row["impressions"]
        assert [(each.numbers or {})["price"] for each in of_request] == row["prices"]
        [click] = [each for each in clicks if each.request_id == request]
        assert click.item_id == row["reference"]


def test_a_guess_names_where_numbers_of_candidates_are_declared(tmp_path: Path) -> None:
    text, mapping = guessed(hotel_file(tmp_path, "parquet"))
    assert mapping.numbers == {"price": "prices[each_index + 1]"}
    assert "[[features.candidate_numbers]]" in text
    assert "# order = " in text
    assert "hardly ever an item: filter (40)" in text


def test_lists_of_a_moment_are_requests_of_their_own(tmp_path: Path) -> None:
    """Two lists of a user in one second must not become one request."""
    rows = hotel_visits()
    rows += [{**row, "reference": row["impressions"][0]} for row in rows if "prices" in row]  # type: ignore[index]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    source, out = written(tmp_path, lines, "visits.jsonl"), tmp_path / "events.jsonl"
    imported(source, guessed(source)[1], out)
    shown = [event for event in events_in(out) if isinstance(event, Impression)]
    sizes = [each.request_id for each in shown]
    assert {sizes.count(size) for size in sizes} == {4}


def searches(*, with_request: bool) -> str:
    """Return lists of items in rows of their own, and clicks in others."""
    rows: list[dict[str, object]] = []
    for n in range(30):
        items = [f"a{(n + k) % 7}" for k in range(3)]
        same = {"user_id": f"u{n % 5}", **({"request_id": f"r{n}"} if with_request else {})}
        at = 1_600_000_000 + 10 * n
        rows.append({**same, "ts": at, "event": "shown", "articles": items})
        rows.append({**same, "ts": at + 1, "event": "click", "article": items[1]})
        rows.append({**same, "ts": at + 2, "event": "share", "article": items[1]})
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_lists_in_rows_of_their_own_are_joined_by_the_request(tmp_path: Path) -> None:
    source = written(tmp_path, searches(with_request=True), "log.jsonl")
    text, mapping = guessed(source)
    assert NOBODY_KNOWS not in text
    imported(source, mapping, out := tmp_path / "events.jsonl")
    events = events_in(out)
    shown = [event for event in events if isinstance(event, Impression)]
    clicks = [event for event in events if isinstance(event, Click)]
    assert (len(shown), len(clicks)) == (90, 30)
    places = {(each.request_id, each.item_id): each.position for each in shown}
    assert [places[str(click.request_id), click.item_id] for click in clicks] == 30 * [1]


def test_lists_that_no_click_can_be_joined_with_are_a_comment(tmp_path: Path) -> None:
    source = written(tmp_path, searches(with_request=False), "log.jsonl")
    text, mapping = guessed(source)
    assert not mapping.events
    assert NOBODY_KNOWS not in text
    assert "# [[events]]" in text
    assert "add it as `request`" in text
    assert imported(source, mapping).counts["click"] == 30


def test_a_list_that_several_rows_of_a_request_repeat_is_shown_once(tmp_path: Path) -> None:
    rows = [
        {
            "user_id": f"u{n % 5}",
            "request_id": f"r{n}",
            "ts": 1_600_000_000 + 10 * n + click,
            "article": f"a{(n + click) % 7}",
            "articles": [f"a{(n + k) % 7}" for k in range(3)],
        }
        for n in range(20)
        for click in range(2)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    source = written(tmp_path, lines, "log.jsonl")
    _, mapping = guessed(source)
    assert dict(imported(source, mapping).counts) == {"impression": 60, "click": 40}


def test_what_a_user_read_before_was_not_shown(tmp_path: Path) -> None:
    rows = [
        {
            "user_id": f"u{n % 5}",
            "ts": 1_600_000_000 + n,
            "article": f"a{n % 7}",
            "history": [f"a{(n // 5 - k) % 7}" for k in range(3)],
        }
        for n in range(40)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    text, mapping = guessed(written(tmp_path, lines, "log.jsonl"))
    assert (mapping.events, mapping.click) == ([], "true")
    assert NOBODY_KNOWS in text
    assert "history: leave out" in text


def news(header: str, num_rows: int = 20_000) -> str:
    """Return a log in which the third column has ten values, and the last 300."""
    rows = (
        f"u{n % 999},{1_600_000_000 + n},{n % 10},{n % 7},a{n * 31 % 300}\n"
        for n in range(num_rows)
    )
    return f"{header}\n" + "".join(rows)


def test_a_column_with_too_few_values_is_not_the_item(tmp_path: Path) -> None:
    text, mapping = guessed(written(tmp_path, news("user,ts,content,kind,headline_key")))
    assert mapping.item == "headline_key"
    assert "content has 10 values in 20,000 rows, too few for items; this is like" in text
    _, mapping = guessed(written(tmp_path, news("user,ts,article,kind,content_id")))
    assert mapping.item == "content_id"
    few = news("user,ts,content,kind,headline_key", 400)
    assert guessed(written(tmp_path, few))[1].item == "content"


def test_an_item_that_no_column_can_be_is_left_open(tmp_path: Path) -> None:
    source = written(tmp_path, news("user,ts,content,kind,words"))
    text, mapping = guessed(source)
    assert mapping.item == "?"
    assert "content has 10 values in 20,000 rows, too few for items: fill it in" in text
    with pytest.raises(MistakeError, match=r'item = "\?".*which column has the item'):
        imported(source, mapping)
    report = imported(source, changed(mapping, ["item=words"]))
    assert report.counts["click"] == 20_000


def test_a_visit_is_the_user_where_a_device_cannot_be(tmp_path: Path) -> None:
    rows = "".join(
        f"s{n // 3},{1_600_000_000 + n},b{n % 70},{('phone', 'desktop')[n // 3 % 2]}\n"
        for n in range(900)
    )
    text, mapping = guessed(written(tmp_path, "visit,seconds,book,device\n" + rows))
    assert (mapping.user, mapping.item) == ("visit", "book")
    assert "device has 2 values in 900 rows, too few for users; a visit may be" in text
    text, mapping = guessed(written(tmp_path, "entry,seconds,book,device\n" + rows))
    assert mapping.user == "?"
    assert "device has 2 values in 900 rows, too few for users: fill it in" in text


def test_a_column_that_only_a_catalogue_reads_is_unused_in_the_log(tmp_path: Path) -> None:
    source = hotel_file(tmp_path, "jsonl")
    hotels = "".join(f"{n},c{n % 3}\n" for n in range(100, 109))
    written(tmp_path, "hotel_id,city\n" + hotels, "hotels.csv")
    text = guess_mapping([str(source), str(tmp_path / "hotels.csv")])
    assert 'city = "city"' in text.splitlines()
    assert suggestions(text)["city"].startswith("a context of the request")


def suggestions(text: str) -> dict[str, str]:
    """Return the suggestion of each column that a guess lists as unused."""
    listed = text.partition("# Columns that nothing reads")[2].splitlines()[1:]
    pairs = (line.removeprefix("#   ").partition(": ") for line in listed)
    return {name: what for name, _, what in pairs if what}


def test_each_unused_column_is_listed_with_a_suggestion(tmp_path: Path) -> None:
    rows = hotel_visits(80)
    for n, row in enumerate(rows):
        row |= {"age": int(str(row["user"])[1:]) + 30, "row_hash": f"h{n}", "version": "1"}
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    text, _ = guessed(written(tmp_path, lines, "log.jsonl"))
    found = suggestions(text)
    assert found["city"] == 'a context of the request: [context] city = "city"'
    assert found["device"] == 'a context of the request: [context] device = "device"'
    assert found["age"].startswith("an attribute of users: [users]")
    assert found["session"] == 'another id of users? user = "session", or leave out'
    assert found["row_hash"] == "leave out: each row has its own"
    assert found["version"] == "leave out: it has one value"
    assert found.keys() == {"city", "device", "age", "session", "row_hash", "version"}


def test_a_number_that_differs_within_a_request_is_one_of_candidates(
    tmp_path: Path,
) -> None:
    rows = "user_id,video_id,time_ms,request_id,is_click,bid,hour\n" + "".join(
        f"{n % 3},v{n % 9},{1_600_000_000_123 + n // 4},r{n // 4},{n % 2},{n % 11},"
        f"{n // 4 % 3}\n"
        for n in range(80)
    )
    found = suggestions(guessed(written(tmp_path, rows))[0])
    assert found["bid"] == "it differs within a request: [numbers]"
    assert found["hour"] == 'a context of the request: [context] hour = "hour"'


def test_a_suggested_context_and_user_attribute_can_be_imported(tmp_path: Path) -> None:
    source, out = hotel_file(tmp_path, "jsonl"), tmp_path / "events.jsonl"
    text = guess_mapping([str(source)]) + '[context]\ncity = "city"\n'
    mapping: Mapping = as_mapping(tomllib.loads(text), "import.toml")
    imported(source, mapping, out)
    shown = [event for event in events_in(out) if isinstance(event, Impression)]
    assert {(each.context or {})["city"] for each in shown} == {"c0", "c1", "c2"}
