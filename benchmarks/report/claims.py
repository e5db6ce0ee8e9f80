"""A claim that is measured: one sentence, and how its number is read from a result.

The claims themselves stand in ``claims_streams.py``, ``claims_model.py`` and
``claims_serving.py``; ``results_page.py`` makes a row of each whose result is committed. A
new claim is an entry there; its benchmark's JSON goes to ``results/`` under its name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One sentence, and where its one number stands."""

    name: str
    """The benchmark: its file in ``results/`` is ``<name>.json``."""
    sentence: str
    number: Callable[[Found], str]
    of: str = ""
    """The result file's name, where another benchmark keeps it."""
    run: str = ""
    """Its entry in ``recorded.json``, where that is not the name."""
    args: str = ""
    typed: str = ""
    """The command, where it is not ``make bench``."""

    @property
    def file(self) -> str:
        """The result's file name."""
        return f"{self.of or self.name}.json"

    @property
    def command(self) -> str:
        """What to type to measure it again."""
        args = f' ARGS="{self.args}"' if self.args else ""
        return self.typed or f"make bench NAME={self.name}{args}"


def of(rows: Found, **wanted: object) -> Found:
    """Return the one row whose fields are as ``wanted``."""
    (row,) = [r for r in rows["rows"] if wanted.items() <= r.items()]
    found: Found = row
    return found


def gain(row: Found, base: Found, figure: str) -> str:
    """Return how much greater ``figure`` is in ``row`` than in ``base``."""
    return signed(row[figure] - base[figure])


def signed(value: float) -> str:
    """Return a difference with its sign."""
    return f"{value:+.4f}".replace("-", "−")


def share(count: int, total: int, of_what: str) -> str:
    """Return a count and what it is a part of."""
    return f"{count:,} of {total:,} {of_what}"
