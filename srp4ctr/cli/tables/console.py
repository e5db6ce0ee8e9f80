"""Console output of running commands: named steps and progress."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from srp4ctr.cli.failures import StepError

if TYPE_CHECKING:  # not every role has the training extra
    from srp4ctr.training.loop.progress import ProgressListener

LINE_EVERY_S = 30.0
LEAST_WIDTH = 80  # of tables, in columns
LONG_S = 600.0  # a step that takes longer than that still gets a hint
JUDGED_AFTER_S = 20.0  # before, the first parts of a step say little of the others


class TableConsole(Console):
    """A console on which tables have all their columns, however narrow it is."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print ``objects``, tables at least ``LEAST_WIDTH`` wide: the terminal wraps them.

        rich makes columns narrower until some have no width, and says nothing. Text and
        bars keep the terminal's own width: rich wraps the one and redraws the other.
        """
        has_table = any(isinstance(each, Table) for each in objects)
        if has_table and self.width < LEAST_WIDTH:
            wide = Console(file=self.file, width=LEAST_WIDTH, emoji=False)
            wide.print(*objects, **options)
        else:
            super().print(*objects, **options)


# Without emoji: rich would print the id "sku:100:blue" with a picture in place of ":100:".
out = TableConsole(emoji=False)
err = TableConsole(stderr=True, emoji=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """The progress of one step: ``set`` moves it, ``note`` names the current work."""

    progress: Progress
    task: TaskID

    def set(self, done: float, total: float | None = None) -> None:
        """Show ``done`` of ``total``."""
        self.progress.update(self.task, completed=done)
        if total is not None:
            self.progress.update(self.task, total=total)

    def note(self, text: str) -> None:
        """Show ``text`` next to the bar."""
        self.progress.update(self.task, note=escape(text))


@dataclass(slots=True)
class Steps:
    """Runs named steps one after another, each with a bar and a line when it is done."""

    console: Console
    total: int
    logs: str
    """Where the logs of this run are, for the message of a failure."""
    done: int = 0

    @contextmanager
    def step(self, title: str, hint: str = "") -> Iterator[Bar]:
        """Show a bar while the block runs, then ``title`` and the seconds it took.

        Any exception leaves as ``StepError`` with ``hint``: what to try.
        """
        self.done += 1
        label = f"[bold]{self.done}/{self.total}[/bold] {title}"
        started = time.monotonic()
        try:
            with _progress(self.console, transient=True) as progress:
                bar = Bar(
                    progress=progress, task=progress.add_task(label, total=None, note="")
                )
                yield bar
                note = progress.tasks[0].fields["note"]
        except Exception as error:
            raise StepError(title, error, self.logs, hint) from error
        seconds = time.monotonic() - started
        self.console.print(
            f"[green]✓[/green] {label}  [dim]{note}  {seconds:.1f} s[/dim]", highlight=False
        )


@contextmanager
def progress_listener(console: Console, hint: str = "") -> Iterator["ProgressListener"]:
    """Yield what draws one bar per step while the block runs; in a file, lines.

    ``hint`` is printed once, if a step has more than ten minutes left.
    """
    if not console.is_terminal:
        yield _with_hint(_lines(console), console, hint)
        return
    tasks: dict[str, TaskID] = {}
    with _progress(console) as progress:

        def show(step: str, done: int, total: int, note: str = "") -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(step, total=total, note="")
            task = progress.tasks[tasks[step]]
            left_s = (task.elapsed or 0.0) * (total - done) / done if done else 0.0
            ends_s = progress.get_time() + left_s
            progress.update(
                task.id, completed=done, total=total, ends_s=ends_s, note=escape(note)
            )

        yield _with_hint(show, console, hint)


def _with_hint(
    listener: "ProgressListener", console: Console, hint: str
) -> "ProgressListener":
    """Return ``listener`` that prints ``hint`` once a step is known to be long."""
    began: dict[str, tuple[float, int]] = {}  # when, and at which part: a run may resume
    is_open = bool(hint)

    def show(step: str, done: int, total: int, note: str = "") -> None:
        nonlocal is_open
        listener(step, done, total, note)
        if not is_open:
            return
        now_s = time.monotonic()
        began_s, first = began.setdefault(step, (now_s, done))
        if done == first or now_s - began_s < JUDGED_AFTER_S:
            return
        left_s = (now_s - began_s) * (total - done) / (done - first)
        if left_s > LONG_S:
            is_open = False
            text = f"{step}: {_left(left_s)}. {hint}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    return show


def _lines(console: Console) -> "ProgressListener":
    """Return what prints a step's begin and end, and between them how far it is."""
    began_s: dict[str, float] = {}
    printed_s: dict[str, float] = {}

    def show(step: str, done: int, total: int, note: str = "") -> None:
        now_s = time.monotonic()
        seconds = now_s - began_s.setdefault(step, now_s)
        if done == total or now_s - printed_s.get(step, -math.inf) >= LINE_EVERY_S:
            printed_s[step] = now_s
            left = _left(seconds * (total - done) / done) if 0 < done < total else ""
            parts = (f"{step} {done:,}/{total:,}", note, f"{seconds:.1f} s", left)
            line = "  ".join(filter(None, parts))
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    return show


class _LeftColumn(ProgressColumn):
    """How long a step still takes, by what its parts took until now."""

    max_refresh = 0.5  # seconds: it must not flicker

    def render(self, task: Task) -> Text:
        """Return nothing until a part has ended, or once the step has."""
        if not task.completed or task.finished or "ends_s" not in task.fields:
            return Text("")
        return Text(_left(task.fields["ends_s"] - task.get_time()), style="dim")


def _left(seconds: float) -> str:
    """Return a rough span: seconds do not matter after an hour."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s left"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"about {hours} h {rest} min left" if hours else f"about {minutes} min left"


def _progress(console: Console, *, transient: bool = False) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _LeftColumn(),
        TextColumn("[dim]{task.fields[note]}[/dim]"),
        console=console,
        transient=transient,
    )
