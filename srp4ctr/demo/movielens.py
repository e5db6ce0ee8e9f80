"""The demo's data: MovieLens-100K as events of our schema.

The files ship inside the PyPI wheel of RecBole; only that wheel is fetched, without its
dependencies. A user's consecutive ratings form slates of up to ten impressions; a rating
of 4 or 5 becomes a click; every rating is also a behaviour with its value. No person saw
these slates or clicked in them.
"""

import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from srp4ctr.errors import ArtifactError, MistakeError, OutageError
from srp4ctr.streams.events.schema import Behavior, Click, Event, Impression, ItemUpdate

REQUIREMENT = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
TERMS = (
    "MovieLens-100K, (c) GroupLens Research, University of Minnesota; for research use."
    " F. M. Harper and J. A. Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015."
)
WHAT_IT_IS = (
    "Clicks are replayed ratings of 4 and 5; a slate is ten consecutive ratings of a user;"
    " CTR is replayed CTR: no person clicked."
)
SLATE_SIZE = 10
LIKED = 4.0  # a rating from here on is a click
_FILES = "recbole/dataset_example/ml-100k/ml-100k"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """One row of the ratings file."""

    user_id: str
    item_id: str
    value: float  # 1 to 5 stars
    rated_at_ms: int


def fetch(cache: Path) -> Path:
    """Return the wheel in ``cache``, fetched with pip if it is not there yet.

    Raises ``OutageError`` if pip cannot get it, ``ArtifactError`` if it is another file.
    """
    wheel = cache / WHEEL
    if not wheel.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        command = [*_pip(), "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--dest", str(cache), REQUIREMENT]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise OutageError(f"pip could not fetch {REQUIREMENT}: {result.stderr.strip()}")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise ArtifactError(f"{wheel} has SHA-256 {digest}; remove it and try again")
    return wheel


def _pip() -> Sequence[str]:
    """Return how to call pip: an environment that uv has made holds none."""
    if find_spec("pip"):
        return sys.executable, "-m", "pip"
    if not find_spec("uv"):
        raise MistakeError(f"no pip in {sys.prefix}: {sys.executable} -m ensurepip")
    from uv import find_uv_bin

    return find_uv_bin(), "tool", "run", "pip"


def read(wheel: Path) -> list[Event]:
    """Return the items' attributes, then every user's slates in the order of time."""
    with zipfile.ZipFile(wheel) as archive:
        items = list(_rows(archive, ".item"))
        rows = list(_rows(archive, ".inter"))
    ratings = [
        Rating(
            user_id=row["user_id"],
            item_id=row["item_id"],
            value=float(row["rating"]),
            rated_at_ms=int(float(row["timestamp"])) * 1000,
        )
        for row in rows
    ]
    start_ms = min(rating.rated_at_ms for rating in ratings)
    events: list[Event] = [_item_update(row, start_ms) for row in items]
    for slate in slates(ratings):
        events.extend(_slate_events(slate))
    return events


def slates(ratings: list[Rating]) -> Iterator[list[Rating]]:
    """Yield each user's ratings in the order of time, up to ten at a time."""
    by_user: dict[str, list[Rating]] = defaultdict(list)
    for rating in ratings:
        by_user[rating.user_id].append(rating)
    for of_user in by_user.values():
        of_user.sort(key=lambda rating: rating.rated_at_ms)  # stable: ties keep file order
        apart: list[Rating] = []
        for rating in of_user:  # many share a second: a millisecond keeps them in order
            earliest = apart[-1].rated_at_ms + 1 if apart else 0
            at_ms = max(rating.rated_at_ms, earliest)
            apart.append(replace(rating, rated_at_ms=at_ms))
        for first in range(0, len(apart), SLATE_SIZE):
            yield apart[first : first + SLATE_SIZE]


def _rows(archive: zipfile.ZipFile, suffix: str) -> Iterator[dict[str, str]]:
    """Yield the rows of one atomic file; ``user_id:token`` becomes ``user_id``."""
    text = io.TextIOWrapper(archive.open(_FILES + suffix), encoding="utf-8", newline="")
    lines = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
    names = [column.split(":")[0] for column in next(lines)]
    for line in lines:
        yield dict(zip(names, line, strict=True))


def _item_update(row: dict[str, str], at_ms: int) -> ItemUpdate:
    attributes: dict[str, str | list[str]] = {"title": row["movie_title"] or "untitled"}
    if row["class"]:
        attributes["genres"] = row["class"].split()
    if row["release_year"]:
        attributes["year"] = row["release_year"]
        attributes["decade"] = f"{row['release_year'][:3]}0s"
    return ItemUpdate(
        event_id=f"item-{row['item_id']}",
        item_id=row["item_id"],
        occurred_at=at_ms,
        attributes=attributes,
    )


def _slate_events(slate: list[Rating]) -> Iterator[Event]:
    user_id, shown_at = slate[0].user_id, slate[0].rated_at_ms
    request_id = f"{user_id}-{shown_at}-{slate[0].item_id}"
    for position, rating in enumerate(slate):
        yield Impression(
            event_id=f"i-{request_id}-{position}",
            request_id=request_id,
            user_id=user_id,
            item_id=rating.item_id,
            position=position,
            occurred_at=shown_at,
        )
    for rating in slate:
        if rating.value >= LIKED:
            yield Click(
                event_id=f"c-{request_id}-{rating.item_id}",
                request_id=request_id,
                user_id=user_id,
                item_id=rating.item_id,
                occurred_at=rating.rated_at_ms,
            )
    for rating in slate:
        yield Behavior(
            event_id=f"r-{request_id}-{rating.item_id}",
            user_id=user_id,
            item_id=rating.item_id,
            action="rate",
            occurred_at=rating.rated_at_ms,
            value=rating.value,
        )
