"""The runbook: an entry for every alert; its metrics, commands and links exist."""

import re

from tests.monitoring.metric_names import rules
from tests.structure.source_tree import ROOT

MONITORING = ROOT / "monitoring"
RUNBOOK = (MONITORING / "runbook.md").read_text(encoding="utf-8")


def entries() -> dict[str, str]:
    """Return the text under each alert's heading."""
    found = re.split(r"^##? (\w[\w ]*)$", RUNBOOK, flags=re.MULTILINE)[1:]
    texts = dict(zip(found[::2], found[1::2], strict=True))
    return {name: text for name, text in texts.items() if name.startswith("Srp4ctr")}


def test_every_alert_has_its_entry_and_every_entry_its_alert() -> None:
    assert entries().keys() == rules("alert").keys()


def test_an_entry_has_the_severity_and_steps() -> None:
    for name, rule in rules("alert").items():
        assert entries()[name].lstrip().startswith(f"**{rule['labels']['severity']}.**")
        assert re.search(r"^1\. .+$", entries()[name], re.MULTILINE), name
        assert len(entries()[name].strip().splitlines()) <= 8, name


def test_every_command_that_it_names_exists() -> None:
    files = [
        ROOT / "srp4ctr" / "cli" / "main.py",
        *(ROOT / "srp4ctr" / "cli").glob("*.py"),
    ]
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    nouns = "stack|events|stream|features|model|monitor"
    named = re.findall(rf"srp4ctr ({nouns}) ([a-z-]+)\b", RUNBOOK)
    missing = {f"{n} {v}" for n, v in named if f'.command("{v}")' not in source}
    assert len(set(named)) > 10
    assert missing == set()


def test_every_option_that_it_names_exists() -> None:
    source = "".join(
        file.read_text(encoding="utf-8") for file in (ROOT / "srp4ctr" / "cli").glob("*.py")
    )
    of_others = {"since", "scale", "alertmanager"}  # Docker's, and amtool's
    for option in set(re.findall(r"--([a-z]+(?:-[a-z]+)*)", RUNBOOK)) - of_others:
        declared = f'"--{option}"' in source or f"{option.replace('-', '_')}:" in source
        assert declared, option


def test_every_link_leads_somewhere() -> None:
    anchors = {name.lower() for name in entries()}
    for path, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", RUNBOOK):
        if not path:
            assert anchor in anchors, anchor
            continue
        target = MONITORING / path
        assert target.exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor in {h.lower().replace(" ", "-") for h in headings}, anchor
