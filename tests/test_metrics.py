"""The table of metrics is what Python, C, dashboards, rules and pages use.

A wrong name in PromQL is no error: its panel stays empty, and its alert silent.
"""

import ast
import re
from collections.abc import Callable, Iterator

import pytest
import yaml
from prometheus_client import CollectorRegistry

from srp4ctr import metrics
from srp4ctr.metrics import METRICS
from tests.monitoring.boards import expressions, named_panels
from tests.monitoring.metric_names import (
    RULES,
    known_names,
    names_in,
    rules,
    sample_labels,
)
from tests.monitoring.sample_series import input_series
from tests.structure.source_tree import ROOT, SourceFile, all_files, product_files

TABLE = "srp4ctr/metrics.py"
NOT_METRICS = {
    "srp4ctr_assemble",
    "srp4ctr_source",
    "srp4ctr_widths",
    "srp4ctr_native_source",  # C
    "srp4ctr_native_answer",
    "srp4ctr_not_sampled",  # parameters of Triton's calls
    "srp4ctr:item",
    "srp4ctr:stored",
    "srp4ctr_1a2b3c4d",  # in Redis
    "srp4ctr_kafka",
    "srp4ctr_redis",  # volumes of compose
    "srp4ctr_refresh",  # a job of Airflow
    "srp4ctr_se",  # a column of results
}
CASE_FILES = sorted((ROOT / "tests" / "monitoring").glob("rules_*_test.yml"))
NATIVE = sorted((ROOT / "triton_repo" / "native").glob("*.[ch]"))
PAGES = [*(ROOT / "docs").rglob("*.md"), ROOT / "monitoring" / "runbook.md"]
PAGES += [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
GROUPS = {
    name
    for path in RULES.glob("*.yml")
    for name in re.findall(r"name: (srp4ctr_\w+)", path.read_text(encoding="utf-8"))
}
MATCHED = re.compile(r"^(\w+)\{(.*)\}$", re.MULTILINE)
MATCHERS = re.compile(r"(\w+:)?(srp4ctr_\w+)\{([^}]*)\}")
RATES = re.compile(r"by \(([^)]*)\) \((?:rate|increase)\((srp4ctr_\w+)")
GROUPED = re.compile(r"\b(?:by|on|ignoring|group_left|group_right) \(([^)]*)\)")
# Of Prometheus, and of the recorded names that say so in their level.
OTHER_LABELS = {"job", "instance", "le", "alertname"}


def texts_of(file: SourceFile) -> Iterator[str]:
    """Yield the strings in a module, docstrings too."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def unknown(texts: list[str]) -> set[str]:
    """Return the names in ``texts`` that neither the table nor a rule declares.

    The name of a histogram and the beginning of a name (``srp4ctr_server_``) are known.
    """
    known = known_names() | METRICS.keys()
    return {
        name
        for name in names_in(texts) - known - NOT_METRICS - GROUPS
        if not (name.endswith("_") and any(each.startswith(name) for each in known))
        and not any(each.startswith(f"{name}:") for each in known)
    }


def promql() -> list[str]:
    """Return every expression of dashboards and rules."""
    found = [*rules("record").values(), *rules("alert").values()]
    return [*expressions().values(), *(rule["expr"] for rule in found)]


def cases() -> Iterator[str]:
    """Yield the series and expressions of the recorded tests of rules and dashboards."""
    yield from (series["series"] for series in input_series())
    for path in CASE_FILES:
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            yield from (series["series"] for series in test["input_series"])
            yield from (each["expr"] for each in test.get("promql_expr_test", ()))


def test_python_names_declared_metrics() -> None:
    files = [f for f in all_files() if not f.path.startswith("tests/")]
    found = {f.path: unknown([*texts_of(f)]) for f in files}
    assert {path: names for path, names in found.items() if names} == {}


def test_pages_name_declared_metrics() -> None:
    found = {path.name: unknown([path.read_text(encoding="utf-8")]) for path in PAGES}
    assert {page: names for page, names in found.items() if names} == {}


@pytest.mark.parametrize("texts", [promql, cases])
def test_promql_names_samples_that_exist_with_their_labels(
    texts: Callable[[], list[str]],
) -> None:
    found, labels = [*texts()], sample_labels()
    assert len(names_in(found)) > 60
    assert names_in(found) - known_names() == set()
    for expression in found:
        for level, name, matchers in MATCHERS.findall(expression):
            named = set(re.findall(r"(\w+) ?(?:=~|!=|!~|=)", matchers))
            recorded = {level.rstrip(":"), "baseline", "currency"}
            declared = recorded if level else labels[name]
            assert named <= declared | OTHER_LABELS, expression
        for by, name in RATES.findall(expression):
            assert {*by.split(", ")} <= labels[name] | OTHER_LABELS, expression


def test_series_that_stand_for_a_metric_have_all_its_labels() -> None:
    series = "\n".join(each["series"] for each in input_series())
    for name, labels in MATCHED.findall(series):
        if name in METRICS:
            named = set(re.findall(r"(\w+)=", labels)) - OTHER_LABELS
            assert named == set(METRICS[name].labels), name


def test_promql_groups_by_labels_that_exist() -> None:
    known = {label for spec in METRICS.values() for label in spec.labels} | OTHER_LABELS
    named = {
        label
        for expression in promql()
        for labels in GROUPED.findall(expression)
        for label in filter(None, labels.split(", "))
    }
    named |= {
        label
        for _, panel in named_panels()
        for target in panel.get("targets", ())
        for label in re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", ""))
    }
    assert named - known == set()


def test_c_has_the_names_help_texts_and_bounds_of_the_table() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in NATIVE)
    helps = dict(re.findall(r'"(srp4ctr_\w+)",\s*"([^"]*)"', source))
    steps = {spec.name: spec for spec in (*metrics.SERVING_STEP, *metrics.NATIVE_STEP)}
    assert unknown(re.findall(r'"([^"]*)"', source)) == set()
    assert {spec.name for spec in metrics.NATIVE_STEP} <= helps.keys()
    assert helps == {name: steps[name].help for name in helps}
    numbers = re.findall(r"= \{([\d., \n]+)\};", source)
    lists = {tuple(map(float, number.split(","))) for number in numbers}
    assert {metrics.ANSWER_BOUNDS, metrics.AGE_BOUNDS} <= lists


def test_every_metric_moves_somewhere() -> None:
    files = [f for f in product_files() if f.path != TABLE]
    moving = [f for f in files if not f.path.startswith("monitoring/dashboards/")]
    named = {text for file in moving for text in texts_of(file)}
    named |= names_in(path.read_text(encoding="utf-8") for path in NATIVE)
    constants = {n: value for n, value in vars(metrics).items() if isinstance(value, str)}
    for file in moving:
        for node in ast.walk(file.tree):
            if isinstance(node, ast.Attribute | ast.Name):
                identifier = node.attr if isinstance(node, ast.Attribute) else node.id
                named.add(constants.get(identifier, ""))
    # ``_with_bounds`` moves a metric and its bounds.
    assert {n for n in METRICS if n.removesuffix("_bound") not in named} == set()


def test_a_metric_is_in_one_section_under_its_own_names() -> None:
    sections = [value for value in vars(metrics).values() if isinstance(value, tuple)]
    specs = [each for section in sections for each in section if hasattr(each, "help")]
    assert len(specs) == len(METRICS)


def test_a_metric_has_a_sentence_and_no_label_of_a_user_item_or_request() -> None:
    for name, spec in METRICS.items():
        assert re.fullmatch(r"srp4ctr_[a-z0-9_]+", name)
        assert re.match(r"[A-Z0-9l(].*\.$", spec.help), name
        assert not [label for label in spec.labels if label.endswith("_id")], name
        assert list(spec.bounds) == sorted(spec.bounds), name


def test_a_metric_that_is_not_declared_cannot_be_created() -> None:
    with pytest.raises(KeyError):
        metrics.counter("srp4ctr_other_total", CollectorRegistry())
    with pytest.raises(AssertionError):
        metrics.gauge("srp4ctr_events_total", CollectorRegistry())
