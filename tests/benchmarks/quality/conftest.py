"""A small shop, cut into examples once for the tests of what is measured on clicks."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.quality.clicks.click_cutting import examples_of
from benchmarks.quality.clicks.click_examples import Examples, load
from benchmarks.quality.clicks.click_sources import of_file
from srp4ctr.streams.events.schema import Behavior, Click, Event, Impression, ItemUpdate
from srp4ctr.training.config import RefreshConfig

MINUTE, START = 60_000, 1_700_000_000_000
ITEMS, USERS, REQUESTS = 12, 8, 120


def shop() -> Iterator[Event]:
    """Yield a shop's events: even items are clicked, and one item is published late."""
    for item in range(ITEMS):
        at_ms = START if item < ITEMS - 1 else START + (REQUESTS - 5) * MINUTE
        yield ItemUpdate(
            event_id=f"p{item}",
            item_id=f"i{item}",
            occurred_at=at_ms,
            attributes={"colour": "red" if item % 2 else "blue"},
        )
    drawn = np.random.default_rng(0)
    for request in range(REQUESTS):
        # The last item is shown from its publication on.
        offered = ITEMS - (request < REQUESTS - 5)
        yield from visit(request, drawn.choice(offered, size=4, replace=False).tolist())


def visit(request: int, items: list[int]) -> Iterator[Event]:
    at_ms = START + request * MINUTE
    request_id, user_id = f"r{request}", f"u{request % USERS}"
    for position, item in enumerate(items):
        yield Impression(
            event_id=f"s{request}-{position}",
            request_id=request_id,
            user_id=user_id,
            item_id=f"i{item}",
            position=position,
            occurred_at=at_ms,
            context={"device": "phone" if request % 2 else "desk"},
        )
    for item in items:
        if item % 2 == 0:
            yield Click(
                event_id="c",
                request_id=request_id,
                user_id=user_id,
                item_id=f"i{item}",
                occurred_at=at_ms + 5_000,
            )
    yield Behavior(
        event_id=f"v{request}",
        user_id=user_id,
        item_id=f"i{items[0]}",
        action="view",
        occurred_at=at_ms + 9_000,
    )


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop as a file with two bad lines."""
    path = tmp_path_factory.mktemp("shop") / "shop.jsonl"
    with path.open("wb") as written:
        for event in shop():
            written.write(msgspec.json.encode(event) + b"\n")
        written.write(b'{"type": "click"}\nnot json\n')
    return path


@pytest.fixture(scope="session")
def folder(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop's examples, cut."""
    source = of_file("shop", file)
    return examples_of(source, RefreshConfig(), tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="session")
def examples(folder: Path) -> Examples:
    return load(folder)
