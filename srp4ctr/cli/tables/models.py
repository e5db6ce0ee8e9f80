"""Bundles and refresh reports → tables, and dicts for JSON."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from rich.markup import escape
from rich.table import Table

from srp4ctr.cli.tables.results import a_table, clock, figures, whole
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.gates import Gate, failed
from srp4ctr.features.bundles.rule_results import Contrast, RuleResult
from srp4ctr.training.refresh import reports  # no torch
from srp4ctr.training.refresh.reports import RefreshReport

if TYPE_CHECKING:  # tritonclient: another extra
    from srp4ctr.triton_repo.deployment.live_repository import Serving
    from srp4ctr.triton_repo.deployment.one_server import Promotion
    from srp4ctr.triton_repo.deployment.reconcile import Reconciliation

_NEGATIVES = {"impressions": "real impressions", "sampled": bundle.SAMPLED_NOTE}
_WARNING = "[yellow]warning[/yellow]"
_MARKS = {True: "passed", False: "[red]failed[/red]", None: "[dim]skipped[/dim]"}


def bundles_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """Return the bundles, oldest first, two lines each: what fits 80 columns whole."""
    table = a_table(
        "bundles",
        whole("bundle\nrole"),
        whole("made (UTC)\ndata from"),
        figures("AUC\ngAUC"),
        figures("log loss\ncalibration"),
        figures("MFLOP\nper 100"),
        "gates\nstart",
    )
    for each in found:
        metrics, flops = each["metrics"], each["cost"].get("folded_flops")
        role = f"[bold]{each['role']}[/bold]" if each["role"] else str(each["outcome"])
        table.add_row(
            f"{each['version']}\n{role}",
            f"{clock(each['created_at_ms'])[:16]}\n{clock(each['window_start_ms'])[:10]}",
            f"{_metric(metrics.get('auc'))}\n{_metric(metrics.get('gauc'))}",
            f"{_metric(metrics.get('log_loss'))}\n{_metric(metrics.get('calibration'))}",
            "–" if flops is None else f"{flops / 1e6:.0f}",
            f"{_summary(each['gates'])}\nfrom {each['parent'] or 'scratch'}"
            + (", sampled negatives" if each["negatives"] == "sampled" else ""),
        )
    return table


def bundle_tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """Yield all of one bundle: its origin, its gates, and every figure."""
    title = f"{found['version']} {found['role'] or found['outcome']}"
    rows = (
        ("made (UTC)", clock(found["created_at_ms"])),
        ("data, start (UTC)", clock(found["window_start_ms"])),
        ("data, end (UTC)", clock(found["window_end_ms"])),
        ("held out from (UTC)", clock(found["boundary_ms"])),
        ("starts from", found["parent"] or "scratch"),
        ("negatives", _NEGATIVES.get(found["negatives"], found["negatives"])),
        ("schema", found["schema_fingerprint"]),
        *(("note", escape(note)) for note in found["notes"]),
    )
    yield a_table(title.strip(), "what", "value", rows=rows)
    yield gates_table([Gate(**gate) for gate in found["gates"]])
    results = msgspec.convert(found.get("rules", ()), tuple[RuleResult, ...])
    if results:
        yield rules_table(results)
    yield _figures_table("figures", [found])


def difference_table(one: Mapping[str, Any], other: Mapping[str, Any]) -> Table:
    """Return every figure of two bundles side by side, and the difference."""
    return _figures_table("side by side", [one, other])


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return figure → [of one, of other]; None where a bundle lacks it."""
    first, second = _figures(one), _figures(other)
    return {name: [first.get(name), second.get(name)] for name in {**first, **second}}


def report_tables(report: RefreshReport) -> Iterator[Table]:
    """Yield the figures of a refresh, the seconds of its steps, and its gates."""
    why = "".join(f"; {escape(note)}" for note in report.notes)
    title = f"{report.version}: {report.outcome}{why}"
    if report.outcome is reports.RefreshOutcome.NOTHING_NEW:
        reason = "no data since the newest bundle; --force trains all the same"
        yield a_table(title, "why", rows=[[reason]])
        return
    rows = [(name, f"{figure:.4f}") for name, figure in report.metrics.items()]
    rows += [(name, f"{count:,}") for name, count in report.counts.items()]
    rows += [(f"{step}, seconds", f"{s:.1f}") for step, s in report.seconds.items()]
    yield a_table(title, "what", whole("figure"), rows=rows)
    if report.rules:
        yield rules_table(report.rules)
    yield gates_table(report.gates)


def rules_table(results: Sequence[RuleResult]) -> Table:
    """Return the rules and the model, two lines each: gAUC, then CTR at 1."""
    metric = results[0].metric
    table = a_table(
        "one-line rules and the model, on the held-out requests",
        "rule",
        figures(f"{metric}\nCTR at 1"),
        figures("the model's"),
        whole("model less rule\n[95 % interval over users]"),
    )
    for result in results:
        table.add_row(
            f"{result.rule}\n[dim]{escape(result.meaning)}[/dim]",
            f"{_metric(result.gauc)}\n{_metric(result.ctr_at_1)}",
            f"{_metric(result.model_gauc)}\n{_metric(result.model_ctr_at_1)}",
            f"{_contrast(result.gauc_difference)}\n{_contrast(result.ctr_difference)}",
        )
    return table


def _contrast(contrast: Contrast) -> str:
    text = escape(str(contrast))
    return f"[red]{text}[/red]" if contrast.is_worse else text


def gates_table(gates: Sequence[Gate]) -> Table:
    """Return the gates, each with its result, its figure, its limit and their meaning."""
    columns = (whole("result"), figures("value"), figures("limit"), "note")
    table = a_table("gates", "gate", *columns)
    for gate in gates:
        numbers = (reports.figure(gate.value), reports.figure(gate.limit))
        result = _WARNING if gate.warning else _MARKS[gate.passed]
        table.add_row(gate.gate, result, *numbers, escape(gate.note))
    return table


def promotion_lines(found: "Promotion | None", *, canary: bool) -> Iterator[Table | str]:
    """Yield what a promotion found and what serves; None: there was no bundle for it."""
    if found is None:
        yield "no bundle waits for its promotion: srp4ctr model list"
        return
    if found.gates:
        yield gates_table(found.gates)
    else:
        yield "nothing changed: it did so already; new settings need a new bundle"
    serving = found.serving
    if canary:
        yield f"{serving.canary} is the canary of {serving.canary_share:.4g} of the users"
    else:
        yield f"{serving.serving} serves"


def reconciliation_lines(found: "Reconciliation") -> Iterator[str]:
    """Yield what was unfinished or split, and each server's change."""
    yield {
        "nothing": "all servers serve the same: nothing to do",
        "finished": f"{found.command} was unfinished, and is finished",
        "undone": f"{found.command} was unfinished, and is undone",
        "repaired": "the servers were split, and follow the first one",
    }[found.action]
    for states in zip(found.before, found.after, strict=True):
        before, after = (_answering(state.serving) for state in states)
        change = after if before == after else f"{before} → {after}"
        yield f"{states[0].server}: {change}"


def _answering(serving: "Serving") -> str:
    canary = f" and canary {serving.canary}" if serving.canary else ""
    return f"{serving.serving or 'nothing'}{canary}"


def _summary(gates: Sequence[Mapping[str, Any]]) -> str:
    bad = failed(Gate(**gate) for gate in gates)
    if bad:
        return f"[red]{', '.join(gate.gate for gate in bad)}[/red]"
    return f"{sum(gate['passed'] is True for gate in gates)} passed"


def _metric(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _figures(found: Mapping[str, Any]) -> dict[str, float | str | None]:
    kinds = ("metrics", "counts", "sizes", "cost")
    return {
        **{name: number for kind in kinds for name, number in found[kind].items()},
        **{f"{step}, seconds": number for step, number in found["seconds"].items()},
        **{f"gate {g['gate']}": reports.mark(Gate(**g)) for g in found["gates"]},
    }


def _figures_table(title: str, bundles: Sequence[Mapping[str, Any]]) -> Table:
    is_pair = len(bundles) == 2
    headers = [
        *(bundle["version"] for bundle in bundles),
        *(["difference"] if is_pair else []),
    ]
    table = a_table(title, "figure", *map(figures, headers))
    columns = [_figures(bundle) for bundle in bundles]
    for name in {name: None for column in columns for name in column}:
        values = [column.get(name) for column in columns]
        table.add_row(name, *map(_shown, values), *([_apart(*values)] if is_pair else []))
    return table


def _shown(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "–"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4f}"


def _apart(one: float | str | None, other: float | str | None) -> str:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        apart = other - one
        is_whole = float(one).is_integer() and float(other).is_integer()
        return "" if not apart else f"{apart:+,.0f}" if is_whole else f"{apart:+,.4g}"
    return "" if one == other else "≠"
