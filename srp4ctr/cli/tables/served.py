"""A check of served requests → tables that a person reads."""

from collections.abc import Iterator

from rich.table import Table

from srp4ctr.cli.tables.results import a_table
from srp4ctr.training.served import ServedCheck


def served_tables(check: ServedCheck) -> Iterator[Table]:
    """Yield what was compared, and how each tensor and feature differs."""
    table = a_table("served requests against training and their bundles", "what", "found")
    torch = check.torch_difference
    figures = {
        "requests scored again": f"{check.rescored:,}",
        "furthest from the ONNX files": f"{check.onnx_difference:.2g}",
        "furthest from torch": "another model" if torch is None else f"{torch:.2g}",
        "answered by a bundle that is gone": f"{check.no_bundle:,}",
        "not shown, or no label yet": f"{check.not_in_log:,}",
        "requests compared with training's": f"{check.requests:,}",
        "impressions in them": f"{check.impressions:,}",
        "a probability moves by, on average": f"{check.mean_shift:.2g}",
        "and at most": f"{check.largest_shift:.2g}",
    }
    for name, figure in figures.items():
        table.add_row(name, figure)
    yield table
    if not check.requests:
        return
    features = {name: each for name, each in check.features.items() if each.requests}
    for title, found in (("tensors", check.tensors), ("features that differ", features)):
        differences = a_table(title, "name", "differs in", "by at most")
        for name, each in found.items():
            share = f"{each.requests:,} ({each.requests / check.requests:.1%})"
            differences.add_row(name, share, f"{each.largest:.3g}")
        yield differences
