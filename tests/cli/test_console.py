"""Long work says how far it is, and how long it still takes."""

import io
import itertools
import os

import pytest
from rich.console import Console
from typer.testing import CliRunner

from srp4ctr.cli.main import app
from srp4ctr.cli.tables import console
from srp4ctr.cli.tables.results import a_table, whole
from srp4ctr.training.config import RefreshConfig
from srp4ctr.training.loop.progress import ways_to_shorten
from tests.cli.terminal import assert_whole


def lines_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what four parts of a step print to a file that take forty seconds each."""
    clock = itertools.count(0.0, 40.0)
    monkeypatch.setattr("srp4ctr.cli.tables.console.time.monotonic", lambda: next(clock))
    file = io.StringIO()
    with console.progress_listener(Console(file=file, width=120)) as show:
        for done in range(5):
            show("fine-tune", done, 4, "loss 0.3")
    return file.getvalue().splitlines()


def test_lines_of_a_file_say_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = lines_of(monkeypatch)
    assert [line.partition("s  about ")[2] for line in lines] == [
        *("", "2 min left", "80 s left", "40 s left", "")
    ]
    assert lines[1].startswith("fine-tune 1/4  loss 0.3  40.0 s  about")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89.0, "89 s"), (91.0, "2 min"), (3_600.0, "1 h 0 min")],
)
def test_what_is_left_is_rough(seconds: float, text: str) -> None:
    assert console._left(seconds) == f"about {text} left"


def test_bars_of_a_terminal_say_what_is_left() -> None:
    clock = [0.0]
    file = io.StringIO()
    to = Console(file=file, force_terminal=True, width=120, get_time=lambda: clock[0])
    with console.progress_listener(to) as show:
        for done in range(4):
            clock[0] = 40.0 * done
            show("fine-tune", done, 4)
    assert "3/4" in file.getvalue()
    assert "about 40 s left" in file.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_long_step_prints_once_what_would_make_it_shorter(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("srp4ctr.cli.tables.console.time.monotonic", lambda: clock[0])
    file = io.StringIO()
    to = Console(file=file, force_terminal=is_terminal, width=120)
    with console.progress_listener(to, "What makes it shorter: a GPU") as show:
        for done in range(100, 106):  # of a resumed run
            clock[0] += 15.0
            show("fine-tune", done, 200)
    assert file.getvalue().count("What makes it shorter: a GPU") == 1
    assert "fine-tune: about 24 min left. What makes" in file.getvalue()


def test_a_short_step_needs_no_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 15.0)
    monkeypatch.setattr("srp4ctr.cli.tables.console.time.monotonic", lambda: next(clock))
    file = io.StringIO()
    with console.progress_listener(Console(file=file), "What makes it shorter") as show:
        for done in range(6):
            show("fine-tune", done, 10)
    assert "What makes it shorter" not in file.getvalue()


def test_a_hint_names_the_settings_that_make_a_refresh_shorter() -> None:
    config = RefreshConfig(sampled_items=512, train_window_days=30, threads=2)
    on_cpu, on_gpu = (ways_to_shorten(config, device) for device in ("cpu", "cuda"))
    for part in (
        "training.pretrain_epochs is 16, training.finetune_epochs 3",
        "training.train_window_days (30)",
        "training.sampled_items (512)",
    ):
        assert part in on_cpu
        assert part in on_gpu
    assert f"training.threads (2 of {os.cpu_count()} cores), or a GPU" in on_cpu
    assert "threads" not in on_gpu


def test_ids_with_colons_are_printed_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    item = "sku:100:blue"
    for each in (console.out, console.err):
        each.print(a_table(item, item, rows=[(item,)]), item)
    printed = capsys.readouterr()
    assert printed.out.count(item) == printed.err.count(item) == 4


def test_a_narrow_terminal_has_all_cells_of_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [f"cell {number}".ljust(16, "x") for number in range(4)]
    columns = (whole("c0"), whole("c1"), whole("c2"), "c3")
    for width in ("60", "20"):
        monkeypatch.setenv("COLUMNS", width)
        for each in (console.out, console.err):
            each.print(a_table("all", *columns, rows=[cells]))
        for printed in capsys.readouterr():
            assert_whole(printed, (*cells, "c0", "c1", "c2", "c3"))


def test_text_keeps_the_width_of_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    console.out.print("a sentence " * 10)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


def test_the_plan_of_capacity_is_the_same_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = ("--users", "--items", "--events-per-s", "--requests-per-s")
    command = ["capacity", *(word for number in numbers for word in (number, "1000"))]
    shown = []
    for columns in ("80", "60"):
        monkeypatch.setenv("COLUMNS", columns)
        shown.append(CliRunner().invoke(app, command).output)
    assert "What breaks first" in shown[0]
    assert shown[0] == shown[1]
