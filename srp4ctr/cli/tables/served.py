"""A check of served requests → tables."""

from collections.abc import Iterator

from rich.table import Table

from srp4ctr.cli.tables.results import a_table, figures
from srp4ctr.training.skew.check import ServedCheck


def served_tables(check: ServedCheck) -> Iterator[Table]:
    """Yield what was compared, and how each tensor and feature differs."""
    title = "served requests compared with training and their bundles"
    table = a_table(title, "what", figures("found"))
    torch = check.torch_difference
    found = {
        "requests scored again": f"{check.rescored:,}",
        "largest difference from the ONNX files": f"{check.onnx_difference:.2g}",
        "largest difference from torch": "–" if torch is None else f"{torch:.2g}",
        "requests whose bundle was removed": f"{check.no_bundle:,}",
        "requests not shown, or without a matured label": f"{check.not_in_log:,}",
        "requests compared with training": f"{check.requests:,}",
        "impressions in them": f"{check.impressions:,}",
        "mean difference of a probability": f"{check.mean_shift:.2g}",
        "largest difference of a probability": f"{check.largest_shift:.2g}",
    }
    for name, figure in found.items():
        table.add_row(name, figure)
    yield table
    if not check.requests:
        return
    features = {name: each for name, each in check.features.items() if each.requests}
    for title, differing in (
        ("tensors", check.tensors),
        ("features that differ", features),
    ):
        columns = (figures("requests that differ"), figures("largest difference"))
        differences = a_table(title, "name", *columns)
        for name, each in differing.items():
            share = f"{each.requests:,} ({each.requests / check.requests:.1%})"
            differences.add_row(name, share, f"{each.largest:.3g}")
        yield differences
