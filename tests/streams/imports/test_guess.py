import json
import tomllib
from pathlib import Path

import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.schema import Click, Impression, ItemUpdate
from srp4ctr.streams.events.vectors import vector_text
from srp4ctr.streams.imports.guess import guess_mapping
from srp4ctr.streams.imports.mapping import CsvForm, as_mapping
from tests.streams.imports.written import (
    HEADER,
    ROWS,
    events_in,
    guessed,
    imported,
    written,
)


def test_a_guess_names_columns_with_reasons_and_can_be_imported(tmp_path: Path) -> None:
    source, out = written(tmp_path, HEADER + ROWS), tmp_path / "events.jsonl"
    text, mapping = guessed(source)
    assert (mapping.user, mapping.item, mapping.time) == ("user_id", "item_id", "timestamp")
    assert (mapping.time_unit, mapping.action, mapping.value) == ("s", "rate", "rating")
    assert "only in this unit are all of them between 1990 and 2050" in text
    imported(source, mapping, out)
    assert len(events_in(out)) == 20


def test_values_of_an_action_are_listed(tmp_path: Path) -> None:
    rows = "visitorid,itemid,ts,event\n1,2,1600000000123,pv\n1,3,1600000000124,buy\n"
    text, mapping = guessed(written(tmp_path, rows))
    assert (mapping.user, mapping.item, mapping.action) == ("visitorid", "itemid", "$event")
    assert mapping.time_unit == "ms"
    assert "# Its values: buy (1), pv (1)" in text


def shop(*actions: str) -> str:
    """Return a log in which users act on items in this order, each by five users."""
    rows = (
        f"{user},i{user % 3},{1_600_000_000 + n},{action}\n"
        for user in range(5)
        for n, action in enumerate(actions)
    )
    return "user_id,item_id,ts,behavior\n" + "".join(rows)


@pytest.mark.parametrize(
    ("actions", "click", "reason"),
    [
        (("pv", "pv", "fav", "buy"), "pv", "'pv' is the click, by its name; 50% of the"),
        (("view", "view", "click", "buy"), "click", "'click' is the click, by its name"),
        (("VIEW", "LIKE"), "VIEW", "another action of the user on the item follows 5"),
        (("x", "x", "y"), "x", "'x' may be the click: 67% of the rows, and another"),
        (("x", "x"), None, "every row; click = … would make some clicks"),
    ],
)
def test_one_action_is_the_click_with_a_reason(
    actions: tuple[str, ...], click: str | None, reason: str, tmp_path: Path
) -> None:
    source, out = written(tmp_path, shop(*actions)), tmp_path / "events.jsonl"
    text, mapping = guessed(source)
    assert mapping.click == (click and f"behavior = '{click}'")
    assert reason in text
    imported(source, mapping, out)
    clicks = sum(event.__struct_config__.tag == "click" for event in events_in(out))
    assert clicks == 5 * actions.count(click or "")


def test_sampled_negatives_are_proposed_and_never_set(tmp_path: Path) -> None:
    """The log does not record what was shown: its owner decides."""
    for content in (shop("view", "buy"), HEADER + ROWS, "user,item,ts\n1,2,1600000000\n"):
        text, _ = guessed(written(tmp_path, content))
        assert '#   negatives = "sampled"' in text
        assert not [line for line in text.splitlines() if line.startswith("negatives")]
    shown = "user,item,ts,request_id,type\n1,2,1600000000,r,impression\n"
    text, mapping = guessed(written(tmp_path, shown + "1,2,1600000001,r,click\n"))
    assert "negatives" not in text
    assert (mapping.impression, mapping.click) == ("type = 'impression'", "type = 'click'")
    assert mapping.behavior is None


def test_actions_get_the_names_that_the_model_knows(tmp_path: Path) -> None:
    _, mapping = guessed(written(tmp_path, shop("view", "add_to_cart", "hate", "zoom")))
    assert mapping.actions == {"add_to_cart": "cart", "hate": "dislike"}


def test_a_flag_without_a_request_makes_requests_of_moments(tmp_path: Path) -> None:
    rows = "user_id,video_id,ts,is_click\n1,2,1600000000,0\n1,3,1600000000,1\n"
    source, out = written(tmp_path, rows), tmp_path / "events.jsonl"
    text, mapping = guessed(source)
    assert "no column says what was shown together" in text
    assert dict(imported(source, mapping, out).counts) == {"impression": 2, "click": 1}


def test_each_kind_of_file_of_a_folder_is_looked_at(tmp_path: Path) -> None:
    """The log by its columns, catalogues by name or by the log's ids; the rest by name."""
    out = tmp_path / "events.jsonl"
    folder = tmp_path / "files"
    folder.mkdir()
    for name, content in {
        "a_tree.csv": "parent,child\n1,2\n",
        "log_1.csv": shop("view", "buy"),
        "log_2.csv": shop("view", "like", "buy"),
        "people.csv": "user_id,city\n0,Rome\n1,Oslo\n",
        "things.csv": "sku_code,colour\ni0,red\ni1,blue\ni2,red\n",
        "votes.csv": "user_id,item_id,at,action\n1,i1,1600000000,hide\n",
        "empty.csv": "user_id,city\n",
    }.items():
        written(folder, content, name)
    text, mapping = guessed(folder)
    assert mapping.files == ["log_*.csv"]
    assert "the first of 2 files with its columns" in text
    assert (
        "# Left out, for no column has users or items: a_tree.csv (parent, child)" in text
    )
    assert mapping.items
    assert mapping.users
    assert (mapping.items.item, mapping.items.files) == ("sku_code", ["things.csv"])
    assert (mapping.users.user, mapping.users.attributes) == ("user_id", {"city": "city"})
    assert [rule.files for rule in mapping.events] == [["votes.csv"]]
    report = imported(folder, mapping, out)
    assert report.num_bad == 0
    assert report.counts["behavior hide"] == 1
    assert (report.counts["item"], report.counts["user"]) == (3, 2)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    written(tmp_path, shop("view", "buy"), "log.csv")
    written(tmp_path, b"PAR1 and no more", "broken.parquet")
    assert "# Not looked at: " in (text := guessed(tmp_path)[0])
    assert "broken.parquet" in text


def test_what_an_item_has_one_value_of_is_its_attribute(tmp_path: Path) -> None:
    rows = [f"{n},{n % 4},160000000{n},view,c{n % 2},s{n}\n" for n in range(8)]
    header = "user_id,item_id,ts,event,category,session_key\n"
    _, mapping = guessed(written(tmp_path, header + "".join(rows)))
    assert mapping.items
    assert mapping.items.attributes == {"category": "category"}


def test_without_a_header_columns_are_named_by_their_values(tmp_path: Path) -> None:
    rows = [
        f"{n % 9},{n % 7},4,{'pv' if n % 3 else 'buy'},16000000{n:02}\n" for n in range(60)
    ]
    source, out = written(tmp_path, "".join(rows)), tmp_path / "events.jsonl"
    text, mapping = guessed(source)
    names = ["user_id", "item_id", "column2", "action", "timestamp"]
    assert mapping.csv.columns == names
    assert "The file has no header" in text
    assert imported(source, mapping, out).counts["click"] == 40
    named = CsvForm(columns=["who", "item", "kind", "behavior", "ts"])
    assert "kind" in guess_mapping([str(source)], named)


def test_a_ready_mapping_that_fits_is_named(tmp_path: Path) -> None:
    rows = "timestamp,visitorid,event,itemid,transactionid\n1600000000000,1,view,2,\n"
    text, _ = guessed(written(tmp_path, rows, "events.csv"))
    assert "needs no guess: --format retailrocket" in text


def test_a_request_and_a_flag_are_impressions_and_clicks(tmp_path: Path) -> None:
    rows = "user_id,video_id,time_ms,request_id,is_click\n1,2,1600000000123,r,0\n"
    _, mapping = guessed(written(tmp_path, rows + "1,3,1600000000123,r,1\n"))
    assert (mapping.request, mapping.position) == ("request_id", "0")
    assert (mapping.impression, mapping.click) == ("true", "is_click = 1")


@pytest.mark.parametrize(("first", "column"), [(0, "place"), (1, "place - 1")])
def test_the_top_is_0_wherever_a_log_begins_to_count(
    first: int, column: str, tmp_path: Path
) -> None:
    rows = "user_id,video_id,time_ms,request_id,place,is_click\n" + "".join(
        f"1,{n},1600000000123,r,{first + n},{n % 2}\n" for n in range(4)
    )
    source, out = written(tmp_path, rows), tmp_path / "events.jsonl"
    text, mapping = guessed(source)
    assert mapping.position == column
    assert ("; the top is 0" in text) == (first == 1)
    imported(source, mapping, out)
    shown = [event for event in events_in(out) if isinstance(event, Impression)]
    assert [each.position for each in shown] == [0, 1, 2, 3]


def test_a_time_without_a_time_s_name_is_known_by_its_values(tmp_path: Path) -> None:
    rows = "user,item,n,stamp_x\n1,2,3,1600000000\n1,3,4,1600000001\n"
    text, mapping = guessed(written(tmp_path, rows))
    assert (mapping.time, mapping.time_unit) == ("stamp_x", "s")
    assert "by its values" in text


def test_what_is_not_clear_is_left_open(tmp_path: Path) -> None:
    text, mapping = guessed(written(tmp_path, "left,right,number\n1,2,3\n4,5,6\n"))
    assert (mapping.user, mapping.item, mapping.time) == ("?", "?", "?")
    assert "no column is named like the user: fill it in" in text
    message = 'user = "\\?" and item = "\\?" and time = "\\?".*fill in which column'
    with pytest.raises(MistakeError, match=message):
        mapping.rules()


def test_a_date_in_three_columns_is_a_time(tmp_path: Path) -> None:
    rows = "userID\tartistID\ttagID\tday\tmonth\tyear\n2\t52\t13\t1\t4\t2009\n"
    source, out = written(tmp_path, rows, "tags.dat"), tmp_path / "events.jsonl"
    _, mapping = guessed(source)
    imported(source, mapping, out)
    [event] = events_in(out)
    assert (event.user_id, event.occurred_at) == ("2", 1_238_544_000_000)  # type: ignore[union-attr]


def test_single_quotation_marks_are_plain_characters(tmp_path: Path) -> None:
    written(tmp_path, shop("view", "buy", "view", "like"), "log.csv")
    names = ['4" vinyl', "plain", '"Weird Al', *(f"x{n}" for n in range(30))]
    lines = [f"i{n}\t{name}\n" for n, name in enumerate(names)]
    written(tmp_path, "item_id\tname\n" + "".join(lines), "things.tsv")
    text, mapping = guessed(tmp_path)
    assert 'quote = ""' in text
    out = tmp_path / "events" / "all.jsonl"
    out.parent.mkdir()
    assert imported(tmp_path, mapping, out).counts["item"] == len(names)
    found = [event for event in events_in(out) if hasattr(event, "attributes")]
    assert [each.attributes["name"] for each in found] == names


def test_a_file_with_many_rows_of_a_user_is_no_catalogue(tmp_path: Path) -> None:
    written(tmp_path, shop("view", "buy"), "log.csv")
    friends = "".join(f"{n % 2},{n}\n" for n in range(20))
    written(tmp_path, "user_id,friend\n" + friends, "friends.csv")
    text, mapping = guessed(tmp_path)
    assert "it has several rows of most users: friends.csv (user_id, friend)" in text
    assert mapping.users is None


EMBEDDING = [0.25, -1.5, 0.125, 3.0, 0.0, 7.75, -0.5, 2.0]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_embeddings_of_a_catalogue_are_found_and_imported(
    tmp_path: Path, suffix: str
) -> None:
    log = written(tmp_path, HEADER + ROWS)
    catalogue = tmp_path / f"items.{suffix}"
    rows = [(str(n), [each + n for each in EMBEDDING]) for n in range(30)]
    if suffix == "csv":
        lines = ["item_id,look", *(f'{item},"{look}"' for item, look in rows)]
    else:
        lines = [json.dumps({"item_id": item, "look": look}) for item, look in rows]
    catalogue.write_text("\n".join(lines) + "\n")
    text = guess_mapping([str(log), str(catalogue)])
    assert "# embeddings" in text
    mapping, out = as_mapping(tomllib.loads(text), "import.toml"), tmp_path / "out.jsonl"
    imported([log, catalogue], mapping, out)
    updates = [event for event in events_in(out) if isinstance(event, ItemUpdate)]
    looks = {update.item_id: update.attributes["look"] for update in updates}
    assert looks["0"] == vector_text(EMBEDDING)
    assert len(looks) == 30


def test_fields_within_fields_are_columns(tmp_path: Path) -> None:
    lines = [
        {
            "event": "view" if n % 3 else "click",
            "user": {"id": f"u{n % 5}", "plan": "free"},
            "context": {"device": {"id": "d", "os": "ios"}},
            "properties": {"product_id": f"p{n % 7}", "category": f"c{n % 7 % 2}"},
            "timestamp": 1_600_000_000 + n,
        }
        for n in range(40)
    ]
    source = tmp_path / "log.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text, mapping = guessed(source)
    assert (mapping.user, mapping.item) == ("user.id", "properties.product_id")
    assert mapping.time == "timestamp"  # what is at the top comes first
    assert "(or context.device.id?)" in text
    assert mapping.items is not None
    assert mapping.items.attributes == {"properties_category": "properties.category"}
    imported(source, mapping, out := tmp_path / "events.jsonl")
    kinds = [type(event) for event in events_in(out)]
    assert kinds.count(Click) == 14
    assert kinds.count(ItemUpdate) == 7


def test_a_column_whose_name_has_a_dot_is_no_field_within_another(tmp_path: Path) -> None:
    line = {
        "user": {"id": "inner"},
        "user.id": "outer",
        "item_id": "i",
        "ts": 1_600_000_000,
    }
    source = tmp_path / "log.jsonl"
    source.write_text(json.dumps(line) + "\n")
    _, mapping = guessed(source)
    assert mapping.user == "user.id"
    imported(source, mapping, out := tmp_path / "events.jsonl")
    assert [event.user_id for event in events_in(out) if isinstance(event, Click)] == [
        "outer"
    ]
