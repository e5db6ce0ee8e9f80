"""The mapping to be: its lines so far, and the columns that they use.

In: a table. Out: what a guess needs of its columns: names, some values, how many there are.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from srp4ctr.streams.imports.guess_values import LAST, NAMES, are_called, samples, snake
from srp4ctr.streams.imports.sql_text import quoted, toml
from srp4ctr.streams.imports.tables import Table

SAMPLE = 1_000  # rows that are looked at for names and times
MANY = 200_000  # for counts, and for what follows what


@dataclass(slots=True)
class Draft:
    """Lines of the mapping to be, and the columns that they use."""

    table: Table
    values: dict[str, list[Any]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    chosen: dict[str, str] = field(default_factory=dict)
    num_rows: int = 0
    tail: list[str] = field(default_factory=list)
    """Tables, which TOML wants after all keys."""
    has_lists: bool = False
    """Whether a column has lists of items that were shown."""

    def __post_init__(self) -> None:
        columns = ", ".join(quoted(column) for column in self.table.columns)
        query = f"SELECT {columns} FROM {self.table.view} LIMIT {SAMPLE}"
        rows = list(self.table.rows(query))
        self.num_rows = len(rows)
        self.values = {
            name: [row[n] for row in rows if row[n] is not None]
            for n, name in enumerate(self.table.columns)
        }

    def named(self, key: str) -> list[str]:
        """Return the free columns whose name says that they are ``key``, the best first."""
        matching = (
            name
            for name in self.table.columns
            if are_called(name, NAMES[key])
            and name not in self.chosen.values()
            and not self.table.columns[name].endswith("[]")
        )
        last = LAST if key != "action" else ("type",)

        def order(name: str) -> tuple[bool, int, str]:
            return snake(name).startswith(last), name.count("."), name

        return sorted(matching, key=order)

    def choose(self, key: str) -> str | None:
        """Return the column that is ``key`` by its name, and add its line."""
        if not (alternatives := self.named(key)):
            return None
        others = ", ".join(alternatives[1:])
        reason = "by its name" + (f" (or {others}?)" if others else "")
        return self.take(key, alternatives[0], reason)

    def take(self, key: str, name: str, reason: str) -> str:
        """Add the line that makes column ``name`` the ``key``."""
        self.chosen[key] = name
        why = f"{reason}; values such as {samples(self.values[name])}"
        is_from_1 = key == "position" and min(self.values[name], default=0) == 1
        why += "; the top is 0" if is_from_1 else ""
        self.add(f"{key} = {toml(f'{plain(name)} - 1' if is_from_1 else name)}", why)
        return name

    def spread(self, name: str) -> tuple[int, int]:
        """Return how many rows have a value of column ``name``, and how many values."""
        [(rows, values)] = self.table.rows(
            f"SELECT count({quoted(name)}), count(DISTINCT {quoted(name)}) "
            f"FROM (SELECT {quoted(name)} FROM {self.table.view} LIMIT {MANY})"
        )
        return rows, values

    def add(self, line: str, why: str = "") -> None:
        """Add a line, and its reason as a comment before it."""
        self.lines += [f"# {why}", line] if why else [line]


def plain(name: str) -> str:
    """Return a column's name as SQL, with quotation marks where it needs them."""
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else quoted(name)
