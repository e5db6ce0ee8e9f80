"""A small raw event log with something to learn in it, for tests of the refresh."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.state.label_join import CLICKED, UNCLICKED, ImpressionLabel
from srp4ctr.testing.raw_logs import Published, write_log
from tests.builders import NOON_MS, a_behavior, a_click, an_impression, an_item

SLATE_MS = 60_000
WINDOW_MS = 20_000


def a_label(
    request_id: str, user_id: str, item_id: str, *, at_ms: int = NOON_MS, **fields: Any
) -> ImpressionLabel:
    """Return the matured label of an impression, not clicked unless ``fields`` say so."""
    label = ImpressionLabel(
        request_id=request_id,
        user_id=user_id,
        item_id=item_id,
        position=0,
        score=None,
        propensity=None,
        model_version=None,
        impression_at=at_ms,
        clicked=False,
        within_window=True,
        matured_at=at_ms + WINDOW_MS,
        revision=CLICKED if fields.get("clicked") else UNCLICKED,
    )
    return msgspec.structs.replace(label, **fields)


def write_world(
    folder: Path,
    *,
    users: int = 6,
    visits: int = 12,
    is_feed: bool = False,
    imports: int = 1,
) -> FeatureConfig:
    """Write a log in which each user clicks on one colour, and register the views.

    All that is shown is viewed; in a feed, what was clicked has another action. Each of
    ``imports`` publishes all events, at new offsets.
    """
    from srp4ctr.features.online import feast_store

    items = [f"i{n}" for n in range(12)]
    colours = ("red", "blue")
    published: list[Published] = [
        (an_item(item, at_ms=NOON_MS - 1, colour=colours[n % 2]), NOON_MS - 1)
        for n, item in enumerate(items)
    ]
    generator = np.random.default_rng(0)
    for visit in range(visits):
        for user in range(users):
            at_ms = NOON_MS + visit * SLATE_MS + user
            chosen = generator.permutation(len(items))[:4].tolist()
            who, liked = (f"u{user}", f"r{user}-{visit}"), user % 2
            action = "long_view" if is_feed else "view"
            published += _visit(who, at_ms, chosen, liked, action)
    config = FeatureConfig(
        registry=str(folder / "registry.db"), log_dir=str(folder / "events")
    )
    for number in range(imports):
        write_log(folder / "events", published, start=number * len(published))
    feast_store.apply(config)
    return config


def write_hits(folder: Path, *, users: int = 40, visits: int = 6) -> FeatureConfig:
    """Write a log in which all users click on one item, i0, wherever it is shown."""
    from srp4ctr.features.online import feast_store

    generator = np.random.default_rng(0)
    published: list[Published] = []
    for visit in range(visits):
        for user in range(users):
            at_ms = NOON_MS + visit * SLATE_MS + user
            mine = {"user_id": f"u{user}", "request_id": f"r{user}-{visit}"}
            others = 1 + generator.permutation(11)[:3]
            for position, item in enumerate(generator.permutation([0, *others]).tolist()):
                name = f"i{item}"
                shown = an_impression(name, at_ms=at_ms, position=position, **mine)
                published.append((shown, at_ms))
                if item == 0:
                    click = a_click(name, at_ms=at_ms + 1_000, **mine)
                    published.append((click, at_ms + 1_000))
                place = {"at_ms": at_ms, "position": position}
                label = a_label(
                    mine["request_id"], mine["user_id"], name, clicked=item == 0, **place
                )
                published.append((label, at_ms + WINDOW_MS))
    config = FeatureConfig(
        registry=str(folder / "registry.db"), log_dir=str(folder / "events")
    )
    write_log(folder / "events", published)
    feast_store.apply(config)
    return config


def _visit(
    who: tuple[str, str], at_ms: int, chosen: list[int], liked: int, after_click: str
) -> list[Published]:
    """Return a slate, the clicks on it, a view of each item, and the labels."""
    user_id, request_id = who
    mine = {"user_id": user_id, "request_id": request_id}
    events: list[Published] = []
    for position, item in enumerate(chosen):
        name, clicked = f"i{item}", item % 2 == liked
        shown = an_impression(name, at_ms=at_ms, position=position, **mine)
        events.append((shown, at_ms))
        if clicked:
            events.append((a_click(name, at_ms=at_ms + 1_000, **mine), at_ms + 1_000))
        viewed = a_behavior(
            name,
            at_ms=at_ms + 2_000 + position,
            user_id=user_id,
            action=after_click if clicked else "view",
        )
        events.append((viewed, at_ms + 2_000))
        label = a_label(
            request_id, user_id, name, clicked=clicked, at_ms=at_ms, position=position
        )
        events.append((label, at_ms + WINDOW_MS))
    return events


def write_clicks(folder: Path) -> FeatureConfig:
    """Write clicks of 60 users, nine tenths on one colour each; some items are popular."""
    from srp4ctr.features.online import feast_store

    chance, colours = np.random.default_rng(0), ("red", "blue")
    published: list[Published] = [
        (an_item(f"i{n}", at_ms=NOON_MS - 1, colour=colours[n % 2]), NOON_MS - 1)
        for n in range(60)
    ]
    for n in range(600):
        user, item = int(chance.integers(60)), 2 * int(30 * chance.random() ** 1.5)
        item += (user + (chance.random() < 0.1)) % 2
        at_ms = NOON_MS + 1000 * n
        ids = {"user_id": f"u{user}", "event_id": f"e{n}", "request_id": f"q{n}"}
        click = a_click(f"i{item}", at_ms=at_ms, **ids)
        published.append((click, at_ms))
    config = FeatureConfig(
        registry=str(folder / "registry.db"), log_dir=str(folder / "events")
    )
    write_log(folder / "events", published)
    feast_store.apply(config)
    return config
