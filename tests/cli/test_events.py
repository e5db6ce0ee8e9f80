from pathlib import Path

from typer.testing import CliRunner

from srp4ctr.cli.main import app

ROWS = "user,item,ts,action\n1,2,1600000000,wink\n1,3,1600000000,zap2\n2,3,1600000009,buy\n"
MAPPING = """
user = "user"
item = "item"
time = "ts"
time_unit = "s"
action = "$action"
behavior = "true"
"""


def test_an_import_proposes_codes_for_the_actions_that_have_none(here: Path) -> None:
    (here / "log.csv").write_text(ROWS)
    (here / "import.toml").write_text(MAPPING)
    lines = imported()
    at = lines.index("Before they are published, add in settings.toml:")
    assert lines[at - 1].endswith("wink and zap2 are one action to the model.")
    table = "\n".join(lines[at + 1 : at + 4])
    assert table == "[streams.action_codes]\nwink = 32\nzap2 = 33"
    (here / "settings.toml").write_text(table)
    assert not [line for line in imported() if "code of their own" in line]


def imported() -> list[str]:
    done = CliRunner().invoke(app, ["events", "import", "log.csv", "--dry-run"])
    assert done.exit_code == 0, done.output
    return done.output.splitlines()
