"""A report's HTML → its tables, texts and tags."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

NO_BREAK = "\u00a0"


@dataclass(slots=True)
class ReadReport(HTMLParser):
    """Every tag with its attributes, every table's rows, and all text."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    """Of all tables: a cell by its column; the first is ``""``."""
    texts: list[str] = field(default_factory=list)
    _column: str | None = None

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "tr":
            self.rows.append({})
        if tag == "td" or found.get("scope") == "row":
            self._column = (found.get("data-of") or "").replace(NO_BREAK, " ")
            self.rows[-1][self._column] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._column = None

    def handle_data(self, data: str) -> None:
        text = data.replace(NO_BREAK, " ")
        self.texts.append(text)
        if self._column is not None:
            self.rows[-1][self._column] += text

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def figures_of(self, version: str) -> dict[str, str]:
        """Return every cell of the rows of ``version``, of all tables, by its column."""
        rows = (row for row in self.rows if row.get("", "").split(" ")[0] == version)
        return {column: cell for row in rows for column, cell in row.items()}


def read(html: str) -> ReadReport:
    seen = ReadReport()
    seen.feed(html)
    seen.close()
    return seen
