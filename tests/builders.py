"""Small events for tests: name only what the test is about."""

from srp4ctr.streams.events.schema import (
    Behavior,
    Click,
    Forget,
    Impression,
    ItemUpdate,
    UserUpdate,
)

NOON_MS = 1_700_000_000_000  # an instant in November 2023


def an_impression(
    item_id: str = "i1", *, at_ms: int = NOON_MS, **fields: object
) -> Impression:
    """Return an impression of ``item_id`` to user u1 in request r1."""
    values: dict[str, object] = {
        "event_id": f"shown-{item_id}-{at_ms}",
        "request_id": "r1",
        "user_id": "u1",
        "position": 0,
    }
    return Impression(item_id=item_id, occurred_at=at_ms, **(values | fields))  # type: ignore[arg-type]


def a_click(
    item_id: str = "i1", *, at_ms: int = NOON_MS + 5_000, **fields: object
) -> Click:
    """Return user u1's click on ``item_id`` in request r1."""
    values: dict[str, object] = {
        "event_id": f"clicked-{item_id}-{at_ms}",
        "request_id": "r1",
        "user_id": "u1",
    }
    return Click(item_id=item_id, occurred_at=at_ms, **(values | fields))  # type: ignore[arg-type]


def a_behavior(item_id: str = "i1", *, at_ms: int = NOON_MS, **fields: object) -> Behavior:
    """Return user u1's view of ``item_id``."""
    values: dict[str, object] = {
        "event_id": f"did-{item_id}-{at_ms}",
        "user_id": "u1",
        "action": "view",
    }
    return Behavior(item_id=item_id, occurred_at=at_ms, **(values | fields))  # type: ignore[arg-type]


def a_forget(*, at_ms: int = NOON_MS, **fields: object) -> Forget:
    """Return user u1's erasure request."""
    values: dict[str, object] = {"event_id": f"forget-{at_ms}", "user_id": "u1"}
    return Forget(occurred_at=at_ms, **(values | fields))  # type: ignore[arg-type]


def an_item(
    item_id: str = "i1", *, at_ms: int = NOON_MS, **attributes: object
) -> ItemUpdate:
    """Return an update of ``item_id`` with ``attributes``."""
    return ItemUpdate(
        event_id=f"item-{item_id}-{at_ms}",
        item_id=item_id,
        occurred_at=at_ms,
        attributes=attributes or {"colour": "red"},  # type: ignore[arg-type]
    )


def a_profile(
    *, at_ms: int = NOON_MS, user_id: str = "u1", **attributes: object
) -> UserUpdate:
    """Return an update of ``user_id`` with ``attributes``."""
    return UserUpdate(
        event_id=f"user-{user_id}-{at_ms}",
        user_id=user_id,
        occurred_at=at_ms,
        attributes=attributes or {"age": "34"},  # type: ignore[arg-type]
    )
