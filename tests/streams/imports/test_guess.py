import tomllib
from pathlib import Path

import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.streams.imports.guess import guess_mapping
from srp4ctr.streams.imports.mapping import Mapping, as_mapping
from tests.streams.imports.written import HEADER, ROWS, events_in, imported, written


def guessed(path: Path) -> tuple[str, Mapping]:
    text = guess_mapping([str(path)])
    return text, as_mapping(tomllib.loads(text), "import.toml")


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
    assert "# buy, pv" in text


def test_a_request_and_a_flag_are_impressions_and_clicks(tmp_path: Path) -> None:
    rows = "user_id,video_id,time_ms,request_id,is_click\n1,2,1600000000123,r,0\n"
    _, mapping = guessed(written(tmp_path, rows + "1,3,1600000000123,r,1\n"))
    assert (mapping.request, mapping.position) == ("request_id", "0")
    assert (mapping.impression, mapping.click) == ("true", "is_click = 1")


def test_a_time_without_a_time_s_name_is_known_by_its_values(tmp_path: Path) -> None:
    rows = "user,item,n,stamp_x\n1,2,3,1600000000\n1,3,4,1600000001\n"
    text, mapping = guessed(written(tmp_path, rows))
    assert (mapping.time, mapping.time_unit) == ("stamp_x", "s")
    assert "by its values" in text


def test_what_is_not_clear_is_left_open(tmp_path: Path) -> None:
    text, mapping = guessed(written(tmp_path, "who,what,number\n1,2,3\n4,5,6\n"))
    assert (mapping.user, mapping.item, mapping.time) == (None, None, None)
    assert "no column has a name of a user: fill it in" in text
    with pytest.raises(MistakeError, match="no `user` for click"):
        mapping.rules()
