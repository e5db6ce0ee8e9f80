"""Makes searches for hotels that do not exist, the same at every run, for the recipe.

All of it is generated. Visitors are unknown until they come, look at a few hotels, and are
shown a list in the order of a search engine, with prices. They want the hotel that they
looked at last, or else a cheap one near the top. Its figures say nothing of other sites.
"""

import csv
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SEARCHES, HOTELS = "searches.csv", "hotels.csv"
CITIES = ("Ulm", "Graz", "Basel", "Lyon", "Turin", "Ghent", "Porto", "Cork")
HOTELS_OF_A_CITY, SHOWN, VISITS = 60, 20, 2_500
_HEADER = ("visit", "seconds", "action", "hotel", "city", "device", "list", "prices")
_BEGIN_S, _PERIOD_S = 1_772_323_200, 6 * 86_400  # from 2026-03-01 on


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hotel:
    name: str
    city: str
    stars: int
    price: float
    liked: float


@dataclass(slots=True, kw_only=True)
class _Visit:
    """A visit: when it began, and the hotels that were looked at."""

    name: str
    at_s: int
    city: str
    device: str
    thrift: float
    rows: list[tuple[object, ...]] = field(default_factory=list)

    def add(self, action: str, hotel: str, shown: str = "", prices: str = "") -> None:
        """Add a row, some time after the row before."""
        where = (self.city, self.device)
        self.rows.append((self.name, self.at_s, action, hotel, *where, shown, prices))


def write_hotels(folder: Path, visits: int = VISITS) -> None:
    """Write ``SEARCHES`` and ``HOTELS`` into ``folder``."""
    dice = random.Random(11)
    numbers = range(HOTELS_OF_A_CITY)
    hotels = [_hotel(dice, city, number) for city in CITIES for number in numbers]
    rows = [row for visit in _visits(dice, hotels, visits) for row in visit.rows]
    rows.sort(key=lambda row: str(row[1]))
    _write(folder / SEARCHES, _HEADER, rows)
    described = [(hotel.name, hotel.city, hotel.stars) for hotel in hotels]
    _write(folder / HOTELS, ("hotel", "city", "stars"), described)


def _hotel(dice: random.Random, city: str, number: int) -> _Hotel:
    stars = 2 + int(dice.random() * 4)
    price = math.exp(3.4 + 0.35 * stars + 0.5 * (dice.random() - 0.5))
    name = f"{city.lower()}-{number}"
    return _Hotel(name=name, city=city, stars=stars, price=price, liked=dice.random())


def _visits(dice: random.Random, hotels: Sequence[_Hotel], count: int) -> Iterator[_Visit]:
    for number in range(count):
        city = CITIES[int(dice.random() * len(CITIES))]
        visit = _Visit(
            name=f"s{number}",
            at_s=_BEGIN_S + int(dice.random() * _PERIOD_S),
            city=city,
            device=("phone", "desktop")[int(dice.random() * 2)],
            thrift=dice.random(),
        )
        _search(dice, visit, [hotel for hotel in hotels if hotel.city == city])
        yield visit


def _search(dice: random.Random, visit: _Visit, hotels: Sequence[_Hotel]) -> None:
    """Add what a visitor looks at, and one or two lists with a click each."""
    seen: list[_Hotel] = []
    for _ in range(1 + int(dice.random() * 2)):
        shown = _order(dice, hotels)
        # A price is of the day of the search: it goes with the list, not with the hotel.
        prices = [round(each.price * (0.8 + 0.4 * dice.random())) for each in shown]
        for _ in range(int(dice.random() * 4)):
            seen.append(_choice(dice, visit, shown, prices, seen))
            visit.at_s += 10 + int(dice.random() * 60)
            visit.add("view", seen[-1].name)
        visit.at_s += 5 + int(dice.random() * 60)
        clicked = _choice(dice, visit, shown, prices, seen)
        names = "|".join(each.name for each in shown)
        visit.add("click", clicked.name, names, "|".join(map(str, prices)))
        seen.append(clicked)


def _order(dice: random.Random, hotels: Sequence[_Hotel]) -> list[_Hotel]:
    """Return what the search engine shows: liked hotels first, more or less."""
    scored = [(hotel.liked + 0.6 * dice.random(), hotel) for hotel in hotels]
    return [each for _, each in sorted(scored, key=lambda pair: -pair[0])[:SHOWN]]


def _choice(
    dice: random.Random,
    visit: _Visit,
    shown: Sequence[_Hotel],
    prices: Sequence[int],
    seen: Sequence[_Hotel],
) -> _Hotel:
    mean = sum(prices) / len(prices)
    weights = []
    for place, (hotel, price) in enumerate(zip(shown, prices, strict=True)):
        score = -0.12 * place - 3.0 * visit.thrift * (price - mean) / mean
        score += 3.5 if seen and hotel == seen[-1] else 0.5 * (hotel in seen)
        weights.append(math.exp(score))
    left = dice.random() * sum(weights)
    for hotel, weight in zip(shown, weights, strict=True):
        left -= weight
        if left < 0:
            return hotel
    return shown[-1]


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    write_hotels(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
