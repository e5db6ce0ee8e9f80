"""What a terminal of 80 columns shows of tables, and whether figures in it are whole."""

import io
from collections.abc import Callable, Iterable

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table


def printed(write: Callable[[Console], None]) -> str:
    """Return what ``write`` prints at 80 columns: no line is longer, nothing is cut."""
    screen = io.StringIO()
    write(Console(file=screen, width=80))
    shown = screen.getvalue()
    assert max(map(cell_len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert shown.count("└") == shown.count("┘"), shown  # else the right edge is cut off
    return shown


def at_80(*tables: Table) -> str:
    """Return what a terminal of 80 columns shows of ``tables``."""

    def write(console: Console) -> None:
        for table in tables:
            console.print(table)

    return printed(write)


def assert_whole(shown: str, texts: Iterable[str]) -> None:
    """Fail with those of ``texts`` that are not in ``shown`` in one piece."""
    cut = [text for text in texts if text not in shown]
    assert cut == [], shown
