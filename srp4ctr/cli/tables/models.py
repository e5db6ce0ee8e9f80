"""Bundles and refresh reports → tables that a person reads, and dicts for programs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from srp4ctr.cli.tables.results import a_table, clock
from srp4ctr.features import bundle
from srp4ctr.features.gates import Gate, failed
from srp4ctr.settings import Settings
from srp4ctr.training import reports  # no torch
from srp4ctr.training.reports import RefreshReport

_MARKS = {True: "passed", False: "[red]failed[/red]", None: "[dim]skipped[/dim]"}
_LISTED = ("auc", "gauc", "log_loss", "calibration")


def described(settings: Settings, *versions: str) -> list[dict[str, Any]]:
    """Return all that is known of bundles ``versions``, else of each, oldest first.

    ``ValueError`` where one is not there.
    """
    from srp4ctr.triton_repo.live import read_serving

    bundles_dir = Path(settings.training.bundles_dir)
    serving = read_serving(Path(settings.triton.repository))
    roles = {
        serving.previous: "previous",
        serving.canary: "canary",
        serving.serving: "serving",
    }
    folders = {folder.name: folder for folder in bundle.list_bundles(bundles_dir)}
    if unknown := [version for version in versions if version not in folders]:
        raise ValueError(
            f"there is no bundle {', '.join(unknown)}: srp4ctr model list shows them"
        )
    return [
        _described(folders[version]) | {"role": roles.get(version, "")}
        for version in versions or folders
    ]


def _described(folder: Path) -> dict[str, Any]:
    card = bundle.read(folder)
    report = reports.read(folder)
    more: dict[str, Any] = {"outcome": "", "notes": (), "seconds": {}}
    if report is not None:
        more = {name: getattr(report, name) for name in (*more, "gates")}
    found = asdict(card) | more
    found["gates"] = [asdict(gate) for gate in more.get("gates", card.gates)]
    return found


def bundles_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """Return the bundles, oldest first: window, quality, cost, gates, who serves."""
    columns = ("version", "made (UTC)", "learnt from", "to", "AUC", "gAUC", "log loss")
    more = ("calibration", "MFLOP per 100", "gates", "from", "")
    table = a_table("bundles", *columns, *more)
    for each in found:
        metrics = (each["metrics"].get(name) for name in _LISTED)
        flops = each["cost"].get("folded_flops")
        table.add_row(
            each["version"],
            clock(each["created_at_ms"])[:16],
            *(clock(each[f"window_{end}_ms"])[:10] for end in ("start", "end")),
            *("–" if figure is None else f"{figure:.4f}" for figure in metrics),
            "–" if flops is None else f"{flops / 1e6:.0f}",
            _summary(each["gates"]),
            each["parent"] or "scratch",
            f"[bold]{each['role']}[/bold]" if each["role"] else str(each["outcome"]),
        )
    return table


def bundle_tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """Yield all of one bundle: where it comes from, its gates, and every figure."""
    title = f"{found['version']} {found['role'] or found['outcome']}"
    table = a_table(title.strip(), "what", "")
    table.add_row("made (UTC)", clock(found["created_at_ms"]))
    for name in ("start", "end"):
        table.add_row(f"window, {name} (UTC)", clock(found[f"window_{name}_ms"]))
    table.add_row("held out from (UTC)", clock(found["boundary_ms"]))
    table.add_row("goes on from", found["parent"] or "nothing: from scratch")
    table.add_row("schema", found["schema_fingerprint"])
    for note in found["notes"]:
        table.add_row("note", escape(note))
    yield table
    yield gates_table([Gate(**each) for each in found["gates"]])
    yield _figures_table("figures", [found])


def difference_table(one: Mapping[str, Any], other: Mapping[str, Any]) -> Table:
    """Return every figure of two bundles side by side, and the difference."""
    return _figures_table("side by side", [one, other])


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return figure → [of the one, of the other]; None where one has it not."""
    first, second = _figures(one), _figures(other)
    return {name: [first.get(name), second.get(name)] for name in {**first, **second}}


def report_tables(report: RefreshReport) -> Iterator[Table]:
    """Yield what a refresh made, its gates, and how long each step took."""
    why = "".join(f"; {escape(note)}" for note in report.notes)
    table = a_table(f"{report.version}: {report.outcome}{why}", "what", "figure")
    if report.outcome is reports.Outcome.NOTHING_NEW:
        table.add_row("why", "the newest bundle has learnt all there is (--force)")
        yield table
        return
    for name, figure in report.metrics.items():
        table.add_row(name, f"{figure:.4f}")
    for name, count in report.counts.items():
        table.add_row(name, f"{count:,}")
    for step, seconds in report.seconds.items():
        table.add_row(f"{step}, seconds", f"{seconds:.1f}")
    yield table
    yield gates_table(report.gates)


def gates_table(gates: Sequence[Gate]) -> Table:
    """Return the gates, each with its figure, its limit and what they mean."""
    table = a_table("gates", "gate", "", "value", "limit", "")
    for gate in gates:
        figures = (reports.figure(gate.value), reports.figure(gate.limit))
        table.add_row(gate.gate, _MARKS[gate.passed], *figures, escape(gate.note))
    return table


def _summary(gates: Sequence[Mapping[str, Any]]) -> str:
    bad = failed(Gate(**each) for each in gates)
    if bad:
        return f"[red]{', '.join(gate.gate for gate in bad)}[/red]"
    return f"{sum(each['passed'] is True for each in gates)} passed"


def _figures(found: Mapping[str, Any]) -> dict[str, float | str | None]:
    figures: dict[str, float | str | None] = {}
    for kind in ("metrics", "counts", "sizes", "cost", "seconds"):
        for name, number in found[kind].items():
            figures[f"{name}, seconds" if kind == "seconds" else name] = number
    for gate in found["gates"]:
        figures[f"gate {gate['gate']}"] = reports.mark(Gate(**gate))
    return figures


def _figures_table(title: str, bundles: Sequence[Mapping[str, Any]]) -> Table:
    table = a_table(title, "figure", *(each["version"] for each in bundles))
    is_pair = len(bundles) == 2
    if is_pair:
        table.add_column("difference")
    columns = [_figures(each) for each in bundles]
    for name in {name: None for column in columns for name in column}:
        values = [column.get(name) for column in columns]
        row = [_shown(value) for value in values]
        table.add_row(name, *row, *([_apart(*values)] if is_pair else []))
    return table


def _shown(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "–"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4f}"


def _apart(one: float | str | None, other: float | str | None) -> str:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return "" if one == other else f"{other - one:+,.4g}"
    return "" if one == other else "≠"
