"""Long work says how far it is, and how long it still takes."""

import io
import itertools

import pytest
from rich.console import Console

from srp4ctr.cli.tables import console


def shown(monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool) -> str:
    """Return what four parts of a step print that take forty seconds each."""
    clock = itertools.count(0.0, 40.0)
    last = [0.0]

    def monotonic() -> float:
        last[0] = next(clock)
        return last[0]

    monkeypatch.setattr("srp4ctr.cli.tables.console.time.monotonic", monotonic)
    file = io.StringIO()
    to = Console(file=file, force_terminal=is_terminal, width=120, get_time=lambda: last[0])
    with console.progress_listener(to) as show:
        for done in range(5):
            show("fine-tune", done, 4, "loss 0.3")
    return file.getvalue()


def test_lines_of_a_file_say_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, is_terminal=False).splitlines()
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
