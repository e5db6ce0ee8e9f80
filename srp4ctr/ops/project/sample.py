"""Makes the sample: visits to a bookshop that does not exist, the same at every run.

All visits are generated. Readers have two favourite genres and read a series in order, so
that what they did last says what they want next; which books are popular says less. It is
small, so that a model is trained in a minute: its figures say nothing of other shops.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

FILES = ("visits.csv", "feedback.csv", "books.csv")
GENRES = (
    "crime",
    "romance",
    "fantasy",
    "history",
    "travel",
    "science",
    "poetry",
    "cookery",
)
READERS, SERIES, VOLUMES = 200, 60, 4
VISITS, SHOWN = 24, 5  # visits of a reader; books that one shows
_BEGIN = datetime(2026, 3, 1)
_ADJECTIVES = (
    "Silent",
    "Golden",
    "Last",
    "Hidden",
    "Northern",
    "Broken",
    "Paper",
    "Distant",
)
_NOUNS = ("Harbour", "Garden", "Letter", "Winter", "Orchard", "Station", "Mirror", "River")


@dataclass(slots=True, kw_only=True)
class _Reader:
    """A reader: tastes, and what was read and hidden so far."""

    name: str
    genres: tuple[str, str]
    disliked: str
    read: list[int] = field(default_factory=list)
    hidden: set[int] = field(default_factory=set)

    @property
    def next_volumes(self) -> list[int]:
        """The books that follow those that were read last."""
        last = [book for book in self.read[-3:] if book % VOLUMES < VOLUMES - 1]
        return [book + 1 for book in last if book + 1 not in self.read]


def write_sample(folder: Path) -> None:
    """Write ``FILES`` into ``folder``."""
    visits, feedback = _world(random.Random(7))
    tables = (
        ("reader,book,shown_at,visit,place,clicked", visits),
        ("reader,book,shown_at,action", feedback),
        ("book,title,genre,series,volume", _books()),
    )
    for name, (header, rows) in zip(FILES, tables, strict=True):
        text = "".join(f"{row}\n" for row in (header, *rows))
        (folder / name).write_text(text, encoding="utf-8")


def _books() -> Iterator[str]:
    for book in range(SERIES * VOLUMES):
        series, volume = divmod(book, VOLUMES)
        title = f"The {_ADJECTIVES[series % 8]} {_NOUNS[(series // 8 + series) % 8]}"
        yield f"b{book},{title} {volume + 1},{_genre(book)},s{series},{volume + 1}"


def _world(dice: random.Random) -> tuple[list[str], list[str]]:
    """Return the rows of the visits and of the feedback, in the order of time."""
    readers = [_reader(dice, number) for number in range(READERS)]
    popularity = [1.0 / (1 + rank) ** 0.5 for rank in range(SERIES * VOLUMES)]
    _shuffle(dice, popularity)
    when = sorted(
        (_BEGIN + timedelta(minutes=int(dice.random() * 30 * 24 * 60)), reader)
        for reader in range(READERS)
        for _ in range(VISITS)
    )
    visits, feedback = [], []
    for number, (at, who) in enumerate(when):
        reader = readers[who]
        for place, book in enumerate(_slate(dice, reader, popularity)):
            begins = f"{reader.name},b{book},{at:%Y-%m-%d %H:%M}"
            clicked = dice.random() < _click_probability(reader, book, place)
            visits.append(f"{begins},v{number},{place},{int(clicked)}")
            if clicked:
                reader.read.append(book)
            elif _genre(book) == reader.disliked and dice.random() < 0.4:
                reader.hidden.add(book // VOLUMES)
                feedback.append(f"{begins},hide")
            elif book in reader.read and dice.random() < 0.5:
                verdict = "like" if _genre(book) in reader.genres else "dislike"
                feedback.append(f"{begins},{verdict}")
    return visits, feedback


def _reader(dice: random.Random, number: int) -> _Reader:
    genres = list(GENRES)
    _shuffle(dice, genres)
    return _Reader(name=f"r{number}", genres=(genres[0], genres[1]), disliked=genres[2])


def _slate(dice: random.Random, reader: _Reader, popularity: Sequence[float]) -> list[int]:
    """Return what a visit shows: mostly what is popular, now and then what fits."""
    shown: list[int] = []
    wanted = reader.next_volumes
    if wanted and dice.random() < 0.7:
        shown.append(wanted[int(dice.random() * len(wanted))])
    while len(shown) < SHOWN:
        book = _drawn(dice, popularity)
        if book not in shown and book // VOLUMES not in reader.hidden:
            shown.append(book)
    _shuffle(dice, shown)
    return shown


def _click_probability(reader: _Reader, book: int, place: int) -> float:
    score = -2.5 - 0.15 * place
    score += {reader.genres[0]: 2.6, reader.genres[1]: 2.1}.get(_genre(book), 0.0)
    score += 3.0 if book in reader.next_volumes else 0.0
    score -= 3.0 if book in reader.read else 0.0
    score -= 1.5 if _genre(book) == reader.disliked else 0.0
    return 1.0 / (1.0 + math.exp(-score))


def _genre(book: int) -> str:
    return GENRES[book // VOLUMES % len(GENRES)]


def _drawn(dice: random.Random, weights: Sequence[float]) -> int:
    left = dice.random() * sum(weights)
    for place, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return place
    return len(weights) - 1


def _shuffle(dice: random.Random, cards: list[Any]) -> None:
    """Shuffle by ``random()`` only, which is the same in every release of Python."""
    for last in range(len(cards) - 1, 0, -1):
        other = int(dice.random() * (last + 1))
        cards[last], cards[other] = cards[other], cards[last]


if __name__ == "__main__":
    write_sample(Path("docs/sample"))
