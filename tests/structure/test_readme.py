"""The README is a page to read in five minutes, and what it names exists."""

import json
import re
from dataclasses import dataclass, field
from functools import reduce
from operator import getitem

import pytest

from tests.docs.command_line import complaint
from tests.docs.pages import commands, pages, prose, words
from tests.structure.source_tree import ROOT

README = pages()["README.md"]
MAX_BYTES = 14 * 1024
MAX_WORDS = 1_000
MAX_FIGURE_ROWS = 8
FEED, NEWS = "KuaiRand-Pure", "EB-NeRD with attributes"


@dataclass(frozen=True)
class Figure:
    """A figure of the table "Measured", and where the results have it."""

    text: str
    """As the table has it, with a place for the value of each key."""
    file: str
    keys: tuple[str, ...]
    """Names in the file or in ``row``; dots lead into objects."""
    row: dict[str, str] = field(default_factory=dict)
    """Fields of the one row that has the keys; {}: they are the file's own."""

    def expected(self) -> str:
        """Return the text with the values of the result, without their sign."""
        path = ROOT / "benchmarks" / "results" / f"{self.file}.json"
        result = json.loads(path.read_text(encoding="utf-8"))
        if self.row:
            is_row = self.row.items()
            (result,) = [row for row in result["rows"] if is_row <= row.items()]
        values = [reduce(getitem, key.split("."), result) for key in self.keys]
        return self.text.format(*map(abs, values))


def click_quality(text: str, data: str, model: str, *keys: str) -> Figure:
    """Return a figure of the benchmark ``click_quality``."""
    row = {"data": data, "model": model}
    return Figure(text=text, file="click_quality", keys=keys, row=row)


FIGURES = (
    Figure("{:,} of {:,} events", "soak", ("lost", "events")),
    Figure("{:,} of {:,} requests", "soak", ("failed", "requests")),
    Figure("{:.2f} s", "recorded", ("runs.demo.figures.click_to_score_p99_s",)),
    Figure("{:.1f} ms", "serving", ("p99_ms",)),
    Figure("{:.1f} ms when", "serving", ("tiled_p99_ms",)),
    Figure("{:.1f} ms", "serving", ("cpu_ms_per_request",)),
    Figure("1/{:.0f} of re-encoding", "serving", ("cost_ratio_tiled",)),
    Figure("{:.2f} of DIN", "serving", ("din_cost_ratio",)),
    Figure("{:.1f} times LightGBM", "serving", ("lightgbm_cost_ratio",)),
    click_quality("{:.3f}", FEED, "srp4ctr", "auc"),
    click_quality("{:.3f} BST", FEED, "bst", "auc"),
    click_quality("{:.3f} LightGBM", FEED, "lightgbm-history", "auc"),
    click_quality(
        "{:.4f} ± {:.4f}",
        FEED,
        "srp4ctr-none",
        "auc_minus_srp4ctr",
        "auc_minus_srp4ctr_se",
    ),
    click_quality("AUC {:.3f}, gAUC {:.3f}", NEWS, "srp4ctr", "auc", "gauc"),
    click_quality("AUC {:.3f} LightGBM", NEWS, "lightgbm", "auc"),
    click_quality("gAUC {:.3f} LambdaRank", NEWS, "lightgbm-rank", "gauc"),
    Figure("{:.3f}", "rules_of_thumb", ("hotel_ctr1",)),
    Figure("{:.3f} for a rule", "rules_of_thumb", ("hotel_rule_ctr1",)),
)


def words_of_prose(text: str) -> list[str]:
    """Return the words that a reader sees outside of blocks; a link's target is none."""
    shown = re.sub(r"\]\([^)]*\)", "]", prose(text))
    return [word for word in shown.split() if re.search(r"\w", word)]


def figure_cells() -> str:
    """Return the cells of the table "Measured" that have figures."""
    section = README.partition("## Measured")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("|")]
    return "\n".join("|".join(cells[2:4]) for cells in rows[2:])


def test_each_figure_is_in_a_result_file_and_no_other_figure_is_shown() -> None:
    cells = figure_cells()
    assert 0 < len(cells.splitlines()) <= MAX_FIGURE_ROWS
    figures = [figure.expected() for figure in FIGURES]
    assert [figure for figure in figures if figure not in cells] == []
    for figure in sorted(figures, key=len, reverse=True):
        cells = cells.replace(figure, "")
    assert re.findall(r"\d[\d.,]*", cells) == []


def test_it_is_short() -> None:
    assert len(README.encode()) <= MAX_BYTES
    assert len(words_of_prose(README)) <= MAX_WORDS


def test_the_words_of_blocks_and_addresses_do_not_count() -> None:
    text = "One [two](three/four) | – |\n```console\n$ make five\n```\nsix.\n"
    assert words_of_prose(text) == ["One", "[two]", "six."]


def test_every_link_into_the_project_leads_somewhere() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", README)
    assert len(targets) > 20
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_every_command_that_it_names_exists() -> None:
    typed = [words(each) for block, each in commands() if block.page == "README.md"]
    typed += [words(each) for each in re.findall(r"`((?:make|srp4ctr) [^`]+)`", README)]
    assert ["make", "demo"] in typed
    assert ["make", "test"] in typed
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for program, *rest in typed:
        if program == "make":
            assert {each for each in rest if "=" not in each} <= targets
        elif program not in ("cd", "."):
            assert program == "srp4ctr"
            assert not complaint(rest)


@pytest.mark.parametrize(
    "stage",
    ["event", "sequence", "feature", "example", "encoder states", "score", "metric"],
)
def test_it_shows_the_way_of_an_event(stage: str) -> None:
    (line,) = re.findall(r"^> (.+)$", README, re.MULTILINE)
    assert stage in line.split(" → ")
