"""Samples and recorded rules that exist, and the names of them in a text."""

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import yaml

from srp4ctr.metrics import METRICS, NATIVE_STEP, SERVING_STEP
from tests.structure.source_tree import ROOT

RULES = ROOT / "monitoring" / "rules"
NAME = re.compile(r"(?:[a-z_]+:)?srp4ctr[_:][a-z0-9_]+(?::[a-z0-9_]+)*")
OF_HISTOGRAMS = ("_bucket", "_sum", "_count")


@cache
def rules(kind: str) -> dict[str, dict[str, Any]]:
    """Return the rules of ``kind``, ``record`` or ``alert``, by name."""
    return {
        rule[kind]: rule
        for file in sorted(RULES.glob("*.yml"))
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if kind in rule
    }


def sample_labels() -> dict[str, frozenset[str]]:
    """Return the labels of each declared sample, by the name that Prometheus stores.

    Without the serving step's: Triton resets them, so rules read the monitor's sums, whose
    names differ in ``_total`` only.
    """
    found: dict[str, frozenset[str]] = {}
    for spec in METRICS.values():
        if spec in (*SERVING_STEP, *NATIVE_STEP):
            continue
        labels = frozenset(spec.labels)
        if spec.bounds:
            found |= {f"{spec.name}{histogram}": labels for histogram in OF_HISTOGRAMS}
            found[f"{spec.name}_bucket"] |= {"le"}
        else:
            found[spec.name] = labels
    return found


@cache
def known_names() -> frozenset[str]:
    """Return declared samples and recorded names."""
    return frozenset(sample_labels().keys() | rules("record").keys())


def names_in(texts: Iterable[str]) -> set[str]:
    """Return the samples and recorded names in ``texts``."""
    return {name for text in texts for name in NAME.findall(text)}
