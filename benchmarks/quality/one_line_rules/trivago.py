"""Reads half of Trivago's hotel search: visits, lists with prices and their shown order.

No licence is stated: the file is read from the folder ``SRP4CTR_DATA``. A click-out is a
request with the list that was shown, and a click. What visitors looked at before it are
behaviours with an action each.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from srp4ctr.streams.events.schema import Behavior, Click, Impression, UserEvent

FILE = Path("trivago") / "events_half.parquet"
USER = "session_id"
"""Whose history is read: the visit, as the rules of thumb; ``user_id`` joins visits."""
CLICK_OUT = "clickout item"
ACTIONS: Mapping[str, str] = {
    "interaction item image": "image",
    "interaction item rating": "rating",
    "interaction item info": "info",
    "interaction item deals": "deals",
    "search for item": "search",
}
"""Of what a visitor does with one hotel, the action's name."""
PRICE, ORDER = "price", "order"
_APART_MS = 3  # between the events of a visit: several share a second
_MAX_TEXT = 256
_SORT = "Sort by"


def events(folder: Path, user: str = USER, *, with_order: bool = True) -> list[UserEvent]:
    """Return all events by time.

    ``user`` names the column that identifies users. Without the order, impressions have
    their position as any log has it, but no number of it. Raises ``ValueError`` if the file
    is missing.
    """
    path = folder / FILE
    if not path.is_file():
        raise ValueError(f"there is no {path}: set SRP4CTR_DATA")
    table = pd.read_parquet(path)
    place = table.groupby([user, "timestamp"]).cumcount()
    table["at_ms"] = table["timestamp"].astype("int64") * 1000 + place * _APART_MS
    table["user"] = table[user]
    table["order"] = with_order
    every = [event for row in table.to_dict("records") for event in events_of(row)]
    return sorted(every, key=lambda event: event.occurred_at)


def events_of(row: Mapping[str, Any]) -> Iterator[UserEvent]:
    """Yield the events of one row, which has ``user``, ``at_ms`` and ``order`` besides."""
    if row["action_type"] == CLICK_OUT:
        yield from _click_out(row)
    elif action := ACTIONS.get(row["action_type"]):
        yield Behavior(
            event_id=_name(row),
            user_id=row["user"],
            item_id=row["reference"],
            action=action,
            occurred_at=row["at_ms"],
        )


def _click_out(row: Mapping[str, Any]) -> Iterator[UserEvent]:
    request, context = _name(row), _context(row)
    offers = zip(row["impressions"], row["prices"], strict=True)
    for place, (hotel, price) in enumerate(offers):
        yield Impression(
            event_id=f"{request}-{place}",
            request_id=request,
            user_id=row["user"],
            item_id=str(hotel),
            position=place,
            occurred_at=row["at_ms"],
            context=context,
            numbers={PRICE: float(price), **({ORDER: place} if row["order"] else {})},
        )
    yield Click(
        event_id=f"{request}-click",
        request_id=request,
        user_id=row["user"],
        item_id=row["reference"],
        occurred_at=row["at_ms"] + 1,
    )


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['session_id']}-{row['step']}"


def _context(row: Mapping[str, Any]) -> dict[str, str]:
    """Return what is known of a visit when it asks for a list."""
    known = {name: row[name] for name in ("platform", "city", "device")}
    filters = (row["current_filters"] or "").split("|")
    known["sort"] = next((each for each in filters if each.startswith(_SORT)), "")
    known["filters"] = "|".join(e for e in filters if not e.startswith(_SORT))[:_MAX_TEXT]
    return {name: text for name, text in known.items() if text}
