"""From results to the page: every row, visible gaps, the same bytes, the rest untouched."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality.clicks.click_report import BUCKETS, PAIRED
from benchmarks.report.evidence import BEGIN, END, NOTHING, auc_error, write
from benchmarks.report.evidence_tables import Evidence, plain, tiled_flops
from srp4ctr.training.config import ModelConfig
from srp4ctr.training.model.embeddings import TableSizes
from tests.training.flop_formula import formula

BEFORE, AFTER = "# Results\n\nbefore\n", "\n\n## Further\n\nafter\n"
LARGEST_PLOT = 200_000  # bytes


def a_row(model: str, gauc: float, **changed: Any) -> dict[str, Any]:
    """Return a row as click_report has it."""
    row: dict[str, Any] = {"data": "ebnerd", "model": model, "seeds": 3, "seeds_failed": 0}
    row |= {"meaning": f"a {model}", "flops_1": 3_000_000, "flops_100": 12_000_000}
    row |= {"seconds": {"pretrain": 1000.4, "finetune": 234.0}}
    row |= {"auc": 0.8142, "gauc": gauc, "log_loss": 0.123, "calibration": 1.0126}
    row |= {"normalised_entropy": 0.8, "impressions": 9876.0, "clicks": 321.0}
    row |= {f"{name}_se": 0.0003 for name in PAIRED}
    row |= {f"{name}_minus_srp4ctr": -0.0012 for name in PAIRED}
    row |= {f"{name}_minus_srp4ctr_se": 0.0004 for name in PAIRED}
    row |= {f"{name}_auc": 0.75 for name in BUCKETS}
    row |= {f"{name}_impressions": 1234.0 for name in BUCKETS}
    return row | changed


def clicks() -> list[dict[str, Any]]:
    undefined = {f"{name}_minus_srp4ctr": None for name in PAIRED}
    return [
        a_row("srp4ctr", 0.71, **undefined),
        a_row("srp4ctr@10%", 0.66, **undefined),
        a_row("srp4ctr-none", 0.70),
        a_row("srp4ctr-none@10%", 0.61, gauc_se=None, seeds=1),
        a_row("srp4ctr-no-querying", 0.69, tail_auc=float("nan")),
        a_row("din", 0.69, no_history_auc=None, log_loss=None, seeds_failed=1),
        a_row("lightgbm", 0.72, flops_1=None, flops_100=None),
        a_row("din", 0.65, data="mine", gauc_minus_srp4ctr=None, flops_1=None),
    ]


def pretraining() -> list[dict[str, Any]]:
    row = {
        "data": "Beauty, attribute masks",
        "model": "srp4ctr",
        "seeds": 5,
        "hr10": 0.5,
        "hr10_error": 0.001,
    }
    row |= {"ndcg10": 0.3412, "ndcg10_error": None, "hr10_less": 0.0, "hr10_head": 0.7}
    few = row | {"model": "srp4ctr@10%", "hr10": 0.4321}
    return [row, few, row | {"model": "popularity", "hr10": 0.2, "hr10_less": -0.3}]


def a_folder(folder: Path, **files: list[dict[str, Any]]) -> Path:
    for name, rows in files.items():
        (folder / f"{name}.json").write_text(json.dumps({"rows": rows}))
    (folder / "evidence.md").write_text(f"{BEFORE}{BEGIN}\nold\n{END}{AFTER}")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results, and the page and plots that were made of them."""
    made = a_folder(
        tmp_path_factory.mktemp("evidence"),
        click_quality=clicks(),
        pretraining=pretraining(),
    )
    write(made, made / "evidence.md")
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "evidence.md").read_text()


def lines_of(page: str, beginning: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith(f"| {beginning} |")]


def test_a_model_is_shown_with_its_errors_its_difference_and_its_cost(page: str) -> None:
    assert lines_of(page, "`din` | a din")[0] == (
        "| `din` | a din | 3 (1 failed) | 0.8142 ± 0.0003 | 0.6900 ± 0.0003 | – | 0.800 | "
        "1.013 | −0.0012 ± 0.0004 | 1,234 | 3.00 | 12.0 |"
    )


def test_what_was_not_measured_is_a_dash(page: str) -> None:
    tree, other = lines_of(page, "`lightgbm`")
    assert tree.endswith("| 1,234 | – | – |")
    assert other == "| `lightgbm` | 0.7500 | 0.7500 | 0.7500 | 0.7500 | 0.7500 |"
    assert lines_of(page, "`din` | 0.7500")[0].split(" | ")[3] == "–"
    assert "0.6100 |" in lines_of(page, "`srp4ctr-none` | 10%")[0]  # a seed has no error


def test_the_best_gauc_comes_first(page: str) -> None:
    table = page.split("### Clicks: EB-NeRD")[1].split("AUC by kind")[0]
    shown = [line.split(" | ")[0] for line in table.splitlines() if "`" in line]
    assert shown == ["| `lightgbm`", "| **`srp4ctr`**", "| `srp4ctr-none`", "| `din`"]


def test_ablations_have_a_table_that_begins_with_srp4ctr(page: str) -> None:
    table = page.split("Ablations, ")[1].split("By share")[0].splitlines()[4:7]
    assert [line.split("`")[1] for line in table] == [
        "srp4ctr",
        "srp4ctr-none",
        "srp4ctr-no-querying",
    ]


def test_published_figures_are_shown_with_ours_only_on_their_own_data(page: str) -> None:
    assert "| *S3-Rec, published* | – | 0.5506 | 0.3732 | – |" in page
    assert (
        "| **`srp4ctr`** | 5 | 0.5000 ± 0.0010 | 0.3412 | – | – | – | – | 0.7000 |" in page
    )
    assert "| `popularity` | 5 | 0.2000 ± 0.0010 | 0.3412 | −0.3000 |" in page


def test_every_data_set_that_is_there_is_shown_and_no_other(page: str) -> None:
    titles = [line for line in page.splitlines() if line.startswith("### ")]
    assert titles == [
        "### Clicks: EB-NeRD",
        "### Clicks: mine",
        "### Pre-training: Amazon Beauty",
    ]


def test_the_rest_of_the_page_and_the_markers_stay(page: str) -> None:
    assert page.startswith(f"{BEFORE}{BEGIN}\n")
    assert page.endswith(f"\n{END}{AFTER}")
    assert "old" not in page.split()


def test_the_page_shows_the_plots_that_are_next_to_it(folder: Path, page: str) -> None:
    for name in ("quality_by_cost", "learning_curve", "ablations"):
        assert f"](evidence/{name}.svg)" in page
        assert (folder / "evidence" / f"{name}.svg").stat().st_size < LARGEST_PLOT
    shown = (folder / "evidence" / "quality_by_cost.svg").read_text()
    assert all(
        f">{name}</text>" in shown for name in ("din", "lightgbm", "re-encoded, 25×")
    )


def test_a_feed_is_shown_by_auc_and_trees_have_a_learning_curve_too(
    tmp_path: Path,
) -> None:
    feed = {"data": "KuaiRand-Pure", "gauc_sampling_error": 0.0246}
    costs = {"srp4ctr": 12_000_000, "srp4ctr-none": 12_000_000, "lightgbm": None}
    rows = [
        a_row(f"{model}{share}", 0.5, flops_100=cost, **feed)
        for model, cost in costs.items()
        for share in ("", "@10%")
    ]
    made = a_folder(tmp_path, click_quality=rows, pretraining=[])
    write(made, made / "evidence.md")
    # The error is Hanley's and McNeil's (1982).
    text = "Test set: 9,876 impressions, 321 clicks. Sampling error of AUC: 0.0146."
    assert text in (made / "evidence.md").read_text()
    for name in ("quality_by_cost", "learning_curve"):
        plot = (tmp_path / "evidence" / f"{name}.svg").read_text()
        assert ">AUC ± standard error</text>" in plot
        assert ">gAUC ± standard error</text>" not in plot
        assert ">lightgbm</text>" in plot


def test_the_same_results_give_the_same_bytes(folder: Path) -> None:
    files = [folder / "evidence.md", *sorted((folder / "evidence").iterdir())]
    before = [file.read_bytes() for file in files]
    assert write(folder, folder / "evidence.md")["rows"] == len(clicks() + pretraining())
    assert [file.read_bytes() for file in files] == before


def test_without_results_there_is_one_sentence_and_no_stale_plot(tmp_path: Path) -> None:
    page = a_folder(tmp_path) / "evidence.md"
    stale = tmp_path / "evidence" / "learning_curve.svg"
    stale.parent.mkdir()
    stale.write_text("of results that are no more")
    assert write(tmp_path, page) == {"files": ["evidence.md"], "rows": 0}
    assert page.read_text() == f"{BEFORE}{BEGIN}\n{NOTHING}\n{END}{AFTER}"
    assert not stale.exists()


def test_a_page_without_a_place_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{END} {BEGIN}")
    with pytest.raises(ValueError, match="no place"):
        write(tmp_path, page)


def test_reencoding_costs_a_hundred_times_one_candidate() -> None:
    config = ModelConfig()
    sizes = TableSizes(item_rows=10, item_fields=(), length=20)
    row = {"flops_1": formula(config, sizes, 1).folded}
    assert tiled_flops(row) == formula(config, sizes, 100).unfolded


@pytest.mark.parametrize(
    ("source", "title"),
    [("ebnerd+size frozen", "EB-NeRD, slate size known, features frozen"), ("x", "x")],
)
def test_a_variant_of_a_data_set_is_said_in_words(source: str, title: str) -> None:
    assert Evidence(source=source, rows=()).title == title


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.8142, "0.8142"), (-0.0003, "−0.0003"), (1.0, "1.0000"), (None, "–")],
)
def test_a_number_is_shown_plainly(value: float | None, shown: str) -> None:
    assert plain(value) == shown


def test_the_error_of_an_auc_is_hanley_s_and_mcneil_s() -> None:
    """Of few clicks, as its variance is that of whichever class is rare."""
    auc, clicks, others = 0.8, 10, 1000
    above, below = 0.8 / 1.2, 2 * 0.64 / 1.8
    variance = auc * 0.2 + (clicks - 1) * (above - 0.64) + (others - 1) * (below - 0.64)
    expected = (variance / clicks / others) ** 0.5
    assert auc_error(auc, clicks, others) == pytest.approx(expected)
