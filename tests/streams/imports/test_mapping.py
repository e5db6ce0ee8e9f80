from pathlib import Path
from typing import Any

import pytest

from srp4ctr.errors import MistakeError
from srp4ctr.streams.imports.mapping import Mapping, as_mapping, changed, read_mapping
from tests.streams.imports.written import RATINGS, ratings

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a key": ({"behaviour": "true"}, "'behaviour'; did you mean behavior?"),
    "a key of a table": ({"items": {"itm": "x"}}, "'itm'; did you mean item?"),
    "a unit": ({"time_unit": "sec"}, "time_unit is 'sec'; one of: s, ms"),
    "a zone": ({"time_zone": "Mars/Olympus"}, "write Europe/Berlin or UTC"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_unknown_is_a_sentence_with_the_nearest_name(name: str) -> None:
    changes, said = WRONG[name]
    with pytest.raises(MistakeError) as refused:
        as_mapping(RATINGS | changes, "import.toml")
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"impression": "true"}, "no `request` for impression"),
        ({"impression": "true", "request": "r"}, "no `position` for impression"),
        ({"action": None}, "no `action` for behavior"),
        ({"user": None}, "no `user` for behavior"),
        ({"behavior": None, "click": "true"}, "`action`, which only behaviors have"),
        (
            {"value": "stars", "click": "true", "behavior": None, "action": None},
            "`value`, which only",
        ),
        ({"position": "place"}, "`position`, which only impressions have"),
        ({"behavior": None}, "does not say which rows are events"),
    ],
)
def test_what_a_kind_lacks_or_does_not_use_is_named_before_a_file_is_read(
    changes: dict[str, str], said: str
) -> None:
    with pytest.raises(MistakeError, match=said):
        ratings(**changes).rules()


def test_settings_change_a_mapping() -> None:
    settings = ["user=uid", "sort=true", "actions.pv=view", "csv.columns=a,b", "csv.skip=2"]
    found = changed(ratings(), settings)
    assert (found.user, found.sort, found.actions) == ("uid", True, {"pv": "view"})
    assert (found.csv.columns, found.csv.skip) == (["a", "b"], 2)
    assert changed(Mapping(), ["click=rating >= 4"]).click == "rating >= 4"
    with pytest.raises(MistakeError, match="write KEY=VALUE"):
        changed(Mapping(), ["user"])
    with pytest.raises(MistakeError, match="did you mean user"):
        changed(Mapping(), ["usr=x"])


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "import.toml"
    path.write_text("user = user_id\n")
    with pytest.raises(MistakeError, match=r"import\.toml is not TOML"):
        read_mapping(path)


def test_an_unknown_unit_says_which_there_are() -> None:
    with pytest.raises(MistakeError, match="time_unit is 'minutes'; one of: s, ms, us, ns"):
        ratings(time_unit="minutes")
