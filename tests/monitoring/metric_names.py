"""Existing metrics, and the metrics that rules, the runbook and dashboards name."""

import ast
import re
from collections.abc import Iterable
from typing import Any

import yaml

from srp4ctr.metric_aliases import RENAMED
from srp4ctr.monitoring.collector.metric_definitions import METRICS
from tests.structure.source_tree import ROOT, product_files

RULES = ROOT / "monitoring" / "rules"
NAME = re.compile(r"(?:[a-z_]+:)?srp4ctr[a-z0-9_]*(?::[a-z0-9_]+)*")
SUFFIX = re.compile(r"_(?:bucket|sum|count|total)$")


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """Return the rules of ``kind``, ``record`` or ``alert``, by name."""
    return {
        rule[kind]: rule
        for file in sorted(RULES.glob("*.yml"))
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if kind in rule
    }


def declared_names() -> set[str]:
    """Return every metric that the product declares, without old names and suffixes."""
    constants = {
        node.value
        for file in product_files()
        if not file.path.startswith("monitoring/dashboards/")
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    declared = {value for value in constants if re.fullmatch(r"srp4ctr_[a-z_0-9]+", value)}
    declared |= {name for name, _, _ in METRICS}
    return {SUFFIX.sub("", name) for name in declared - RENAMED.keys()}


def known_names() -> set[str]:
    """Return declared and recorded names, without deprecated ones."""
    recorded = rules("record")
    aliases = {name for name, rule in recorded.items() if rule["expr"] in recorded}
    return declared_names() | (recorded.keys() - aliases)


def names_in(texts: Iterable[str]) -> set[str]:
    """Return the metrics that ``texts`` name, without suffixes."""
    return {SUFFIX.sub("", n) for text in texts for n in NAME.findall(text)}
