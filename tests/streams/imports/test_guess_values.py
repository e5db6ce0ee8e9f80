"""What a guess finds by values, in columns with any names: times, actions, grades."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.streams.imports.written import events_in, guessed, imported, written

NOW_S = 1_600_000_000


@pytest.mark.parametrize(
    ("time", "form", "is_at"),
    [
        ("18.05.2023 09:00:17", "%d.%m.%Y %H:%M:%S", "2023-05-18 09:00:17"),
        ("18.05.2023 09:00", "%d.%m.%Y %H:%M", "2023-05-18 09:00"),
        ("9/18/2023 9:05", "%m/%d/%Y %H:%M", "2023-09-18 09:05"),
        ("18/9/2023", "%d/%m/%Y", "2023-09-18"),
        ("9/18/2023 9:05 PM", "%m/%d/%Y %I:%M %p", "2023-09-18 21:05"),
        ("2023-05-18 09:00:17", None, "2023-05-18 09:00:17"),
        ("2023-05-18T09:00:17+02:00", None, "2023-05-18 07:00:17"),
    ],
)
def test_the_format_of_a_time_is_found_by_its_values(
    time: str, form: str | None, is_at: str, tmp_path: Path
) -> None:
    rows = "".join(f"u{n % 3},i{n},{time}\n" for n in range(5))
    source = written(tmp_path, f"who,what,when\n{rows}")
    text, mapping = guessed(source)
    assert (mapping.user, mapping.item, mapping.time) == ("who", "what", "when")
    assert mapping.time_format == form
    assert time[:10] in text
    out = tmp_path / "events.jsonl"
    imported(source, mapping, out)
    at_ms = datetime.fromisoformat(is_at).replace(tzinfo=UTC).timestamp() * 1000
    assert {event.occurred_at for event in events_in(out)} == {at_ms}


def test_a_day_that_may_be_a_month_is_said(tmp_path: Path) -> None:
    rows = "Kunde;Artikel;Datum\n1;2;03.04.2023\n1;3;04.04.2023\n"
    text, mapping = guessed(written(tmp_path, rows))
    assert mapping.time_format == "%d.%m.%Y"
    rows = "uid,sku,date\n1,2,3/4/2023\n1,3,4/4/2023\n"
    text, mapping = guessed(written(tmp_path, rows))
    assert mapping.time_format == "%d/%m/%Y"
    assert "so do they %m/%d/%Y: which?" in text


def test_actions_are_found_by_their_names_in_any_column(tmp_path: Path) -> None:
    actions = ("seen", "seen", "played", "Hide")
    rows = "".join(f"u{n % 3},i,{NOW_S + n},{each}\n" for n, each in enumerate(actions))
    text, mapping = guessed(written(tmp_path, f"user_id,item_id,ts,verb\n{rows}"))
    assert mapping.action == "$verb"
    assert "by its values, which are actions" in text
    assert mapping.actions == {"Hide": "hide"}
    assert "click = \"verb = 'played'\"" in text
    rows = "".join(f"u,i,{NOW_S},{each}\n" for each in ("red", "blue", "played"))
    others = written(tmp_path, f"user_id,item_id,ts,colour\n{rows}")
    assert guessed(others)[1].action is None


def test_grades_are_ratings_and_no_clicks(tmp_path: Path) -> None:
    rows = "".join(f"{n % 3},{n % 4},{NOW_S + n},{1 + n % 5}\n" for n in range(20))
    text, mapping = guessed(written(tmp_path, f"user,item,ts,score\n{rows}"))
    assert (mapping.action, mapping.value) == ("rate", "score")
    assert 'click = "true"' not in text
    text, mapping = guessed(written(tmp_path, f"user,item,ts,price\n{rows}"))
    assert mapping.value is None
    assert '# value = "price"' in text


def test_members_with_a_job_are_no_log(tmp_path: Path) -> None:
    members = "member,job,joined_on\na,cook,2020-01-01\nb,clerk,2020-01-02\n"
    written(tmp_path, members, "members.csv")
    rows = "".join(f"{'ab'[n % 2]},f{n},{n % 5},2023-05-{n + 1:02d}\n" for n in range(9))
    written(tmp_path, f"reviewer,film,stars,reviewed_on\n{rows}")
    _, mapping = guessed(tmp_path)
    assert (mapping.user, mapping.item, mapping.time) == ("reviewer", "film", "reviewed_on")
    assert mapping.action == "rate"


def test_when_a_row_was_deleted_is_not_when_it_happened(tmp_path: Path) -> None:
    rows = "uid,sku,deleted_at,time\n1,2,2024-01-01,2023-01-01\n"
    assert guessed(written(tmp_path, rows))[1].time == "time"
