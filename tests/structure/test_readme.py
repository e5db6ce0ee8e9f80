"""The README's tree names every module, and its links lead somewhere."""

import re
from pathlib import Path

from tests.structure.source_tree import product_files

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_tree_names_every_module() -> None:
    missing = [
        file.path
        for file in product_files()
        if not file.path.endswith("__init__.py")
        and not re.search(
            rf"^(?: *|srp4ctr/){re.escape(_name(file.path))} +#", README, re.MULTILINE
        )
    ]
    assert missing == []


def test_every_link_into_the_project_leads_somewhere() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_every_command_that_it_names_exists() -> None:
    files = [
        ROOT / "srp4ctr" / "cli" / "main.py",
        *(ROOT / "srp4ctr" / "cli").glob("*.py"),
    ]
    source = "".join(file.read_text() for file in files)
    nouns = "stack|events|stream|features|model|monitor"
    named = re.findall(rf"srp4ctr ({nouns}) ([a-z-]+)\b", README)
    assert len(named) > 8
    assert [f"{n} {v}" for n, v in named if f'.command("{v}")' not in source] == []


def _name(path: str) -> str:
    """Return how the tree shows ``path``: below its folder's line."""
    parts = path.split("/")
    return "/".join(parts[2:] if parts[0] == "srp4ctr" and len(parts) > 2 else parts[1:])
