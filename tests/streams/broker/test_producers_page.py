"""docs/producers.md: its events decode, its commands exist, its lists are complete.

``tests/end_to_end`` runs its Python and types its commands.
"""

import re
from pathlib import Path

from srp4ctr.streams.events.codec import Reason, decode
from srp4ctr.streams.events.json_schema import EXAMPLES
from tests.builders import NOON_MS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "producers.md").read_text()
FAR_LATER_MS = 10 * NOON_MS


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_its_events_are_the_examples_of_the_schema() -> None:
    (lines,) = blocks("json")
    found = [decode(line.encode(), FAR_LATER_MS) for line in lines.splitlines()]
    assert found == list(EXAMPLES)


def test_its_table_names_every_reason() -> None:
    rows = re.findall(r"^\| (`[^|]*) \|", PAGE, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert named >= {str(reason) for reason in Reason}


def test_its_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", PAGE)
    assert len(targets) >= 3
    assert [target for target in targets if not (ROOT / "docs" / target).exists()] == []


def test_its_commands_exist() -> None:
    source = "".join(
        path.read_text()
        for path in (
            ROOT / "srp4ctr" / "cli" / "main.py",
            *(ROOT / "srp4ctr").glob("cli/**/*.py"),
        )
    )
    verbs = set(re.findall(r"srp4ctr [a-z]+ ([a-z-]+)", PAGE))
    assert len(verbs) >= 7
    assert [verb for verb in sorted(verbs) if f'command("{verb}")' not in source] == []


def test_the_short_way_is_six_lines() -> None:
    assert len(blocks("python")[1].splitlines()) == 6
