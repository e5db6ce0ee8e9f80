"""Values of a row → an event's payload, or why it is none.

In: what DuckDB computed of a row for one rule. Out: JSON as it is published, checked by the
rules of the stream itself (``codec.decode``).
"""

import datetime as dt
import json
import math
import re
from collections.abc import Mapping as Values
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import xxhash

from srp4ctr.streams.events.codec import (
    MAX_OCCURRED_AT_MS,
    Reason,
    RejectedEvent,
    decode,
)
from srp4ctr.streams.events.vectors import MIN_NUMBERS
from srp4ctr.streams.imports.mapping import FIRST_PLAUSIBLE_MS, MS_PER_UNIT, Mapping
from srp4ctr.streams.imports.report import NO_ATTRIBUTE
from srp4ctr.streams.imports.sql_text import quoted

MAX_ACTIONS = 64  # 16 codes are shared by all that have no name: more is another column
_WRONG_TIMES = {
    Reason.TIME_IN_SECONDS: "before 1973",
    Reason.TIME_IN_FUTURE: "in the future",
}
_FORMS = 'set time_format, such as "%d.%m.%Y %H:%M" of 18.05.2026 09:00'
_NEEDED = {"user_id": "user", "item_id": "item", "occurred_at": "time"}
_EPOCH = dt.datetime(1970, 1, 1)
_ZONE_AT_END = re.compile(r" ?(UTC|GMT|Z)$")
_OFFSET_AT_END = re.compile(r" ([+-]\d\d:?\d\d)( UTC)?$")  # as Go writes times, too


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """Why a row is no event."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Clock:
    """Turns what a file calls time into UTC milliseconds."""

    mapping: Mapping
    zone: ZoneInfo = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "zone", ZoneInfo(self.mapping.time_zone))

    def millis(self, value: Any, kind: str) -> int:
        """Return ``value`` in milliseconds; ``kind`` is its column's, as tables know it.

        Raises ``ValueError`` with a sentence.
        """
        if kind == "number":
            return self._from_number(value)
        if kind == "digits":  # text, of which most are numbers
            return self._from_number(_number("time", value))
        if kind == "zoned":  # microseconds since 1970
            return int(value // 1000)
        if kind == "local":
            return self._local(_EPOCH + dt.timedelta(microseconds=value))
        return self._from_text(str(value))

    def hint(self, value: Any, kind: str) -> str:
        """Return in which unit a number would be a time of our days."""
        if kind not in ("number", "digits"):
            return ""
        for unit, factor in MS_PER_UNIT.items():
            ms = float(value) * factor
            is_plausible = FIRST_PLAUSIBLE_MS <= ms <= MAX_OCCURRED_AT_MS
            if is_plausible and unit != self.mapping.time_unit:
                day = (_EPOCH + dt.timedelta(milliseconds=ms)).date()
                return f"; read as {unit} it is {day}: is time_unit right?"
        return ""

    def _from_number(self, value: float) -> int:
        if not math.isfinite(value):
            raise ValueError(f"the time {value} is not a number")
        return int(value * MS_PER_UNIT[self.mapping.time_unit or "ms"])

    def _from_text(self, text: str) -> int:
        form = self.mapping.time_format
        try:
            if form:
                at = dt.datetime.strptime(text, form)
            else:
                offset = _OFFSET_AT_END.sub(r"\1", text.strip())
                at = dt.datetime.fromisoformat(_ZONE_AT_END.sub("+00:00", offset))
        except ValueError:
            wanted = f"as time_format {form!r}" if form else f"an ISO time: {_FORMS}"
            raise ValueError(f"the time {text[:40]!r} is not {wanted}") from None
        if at.tzinfo:
            return round(at.timestamp() * 1000)
        return self._local(at)

    def _local(self, at: dt.datetime) -> int:
        try:
            return round(at.replace(tzinfo=self.zone).timestamp() * 1000)
        except (OverflowError, ValueError):
            raise ValueError(f"the time {at} cannot be true") from None


@dataclass(slots=True)
class EventBuilder:
    """Builds events of rows; counts the actions that it has met."""

    mapping: Mapping
    now_ms: int
    clock: Clock = field(init=False)
    actions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = Clock(self.mapping)

    def build(self, kind: str, values: dict[str, Any], time_kind: str) -> bytes | BadRow:
        """Return the payload of an event of ``kind`` whose fields are ``values``.

        ``values`` has ``event_id`` without its prefix, and ``occurred_at`` as in the file.
        """
        raw = values.get("occurred_at")
        if missing := [key for name, key in _NEEDED.items() if values.get(name) is None]:
            why = f"the row has no {' and no '.join(missing)}"
            cut = "; it may be cut off" if len(missing) == len(_NEEDED) else ""
            return BadRow(reason=f"no {missing[0]}", detail=why + cut)
        event = {name: each for name, each in values.items() if each is not None}
        event["type"] = kind
        try:
            event["occurred_at"] = self.clock.millis(raw, time_kind)
            event |= _as_numbers(event)
            if kind == "behavior" and "action" in event:
                event["action"] = self._action(str(event["action"]))
        except ValueError as error:
            return BadRow(reason=str(Reason.INVALID_FIELD), detail=str(error))
        event["event_id"] = f"{event.get('action', kind)}-{event['event_id']}"[:256]
        if kind == "behavior" and event.get("request_id") == "":
            del event["request_id"]  # optional there: the row says that it has none
        if kind == "click" and "request_id" not in values:
            event["request_id"] = event["event_id"]  # the other items shown are unknown
        payload = msgspec.json.encode(event)
        found = decode(payload, self.now_ms)
        if not isinstance(found, RejectedEvent):
            return payload
        detail = _sentence(found.detail)
        if found.reason in _WRONG_TIMES:
            why = f"{_the_time(event['occurred_at'])}, {_WRONG_TIMES[found.reason]}"
            detail = why + self.clock.hint(raw, time_kind)
        return BadRow(reason=_reason(found.reason), detail=detail)

    def build_update(
        self,
        kind: str,
        owner: str,
        occurred_at: int,
        attributes: Values[str, Any],
        *,
        has_time: bool,
    ) -> bytes | BadRow:
        """Return the update of an item or a user, as ``kind`` says.

        Where its row ``has_time``, what was so before, and is again, is another update.
        """
        plain = {name: attribute(value) for name, value in attributes.items()}
        present = {name: value for name, value in plain.items() if value}
        of_instant = [occurred_at] if has_time else []
        if not present:
            return BadRow(reason=NO_ATTRIBUTE, detail="all its attributes are empty")
        content = msgspec.json.encode([owner, present, *of_instant])
        payload = msgspec.json.encode(
            {
                "type": kind,
                "event_id": f"{kind}-{xxhash.xxh3_128_hexdigest(content)}",
                f"{kind}_id": owner,
                "occurred_at": occurred_at,
                "attributes": present,
            }
        )
        found = decode(payload, self.now_ms)
        if not isinstance(found, RejectedEvent):
            return payload
        return BadRow(reason=_reason(found.reason), detail=_sentence(found.detail))

    def _action(self, raw: str) -> str:
        if raw in self.actions:
            return self.actions[raw]
        if len(self.actions) >= MAX_ACTIONS:
            raise ValueError(
                f"{raw[:40]!r} is one action too many: there are more than {MAX_ACTIONS}; "
                "is `action` the right column?"
            )
        name = self.mapping.actions.get(raw)
        if name is None:
            name = re.sub(r"[^a-z0-9]+", "_", raw.lower()).strip("_")
        self.actions[raw] = name
        return name


def attribute(value: Any) -> str | list[str] | list[float]:
    """Return ``value`` as an attribute: a vector, or texts without what is empty."""
    if isinstance(value, list | tuple):
        if is_vector(value):
            return list(value)
        texts = [_text(each) for each in value]
        return list(dict.fromkeys(text for text in texts if text))
    return _text(value)


def is_vector(values: Sequence[Any]) -> bool:
    """Return whether ``values`` are an embedding's: broken numbers, not ids."""
    return (
        len(values) >= MIN_NUMBERS
        and all(isinstance(value, float) for value in values)
        and not all(value.is_integer() for value in values)
    )


def as_vectors(column: str, values: Sequence[Any]) -> str:
    """Return the expression of a ``column`` of embeddings; "" if it has others."""
    is_text = all(isinstance(value, str) and value[:1] == "[" for value in values)
    with suppress(ValueError):
        lists = [json.loads(value) for value in values] if is_text else values
        if all(isinstance(each, list) and is_vector(each) for each in lists):
            return f"{quoted(column)}::FLOAT[]" if is_text else column
    return ""


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _as_numbers(event: Values[str, Any]) -> dict[str, Any]:
    """Return those fields of ``event`` that are numbers; ``ValueError`` for other texts."""
    found: dict[str, Any] = {}
    if isinstance(event.get("value"), str):
        found["value"] = _number("value", event["value"])
    if "numbers" in event:
        found["numbers"] = _numbers(event["numbers"])
    return found


def _numbers(values: Values[str, Any]) -> dict[str, float] | None:
    """Return the finite ``values``; None without any. ``ValueError`` for other texts."""
    numbers = {
        name: _number(f"number {name}", value) if isinstance(value, str) else value
        for name, value in values.items()
        if value is not None and value != ""
    }
    return {n: float(v) for n, v in numbers.items() if math.isfinite(v)} or None


def _number(name: str, text: str) -> float:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise ValueError(f"the {name} {text[:40]!r} is not a number") from None


def _reason(reason: Reason) -> str:
    """Return a reason as a reader of a file knows it: seconds are only one cause."""
    return "time_too_early" if reason is Reason.TIME_IN_SECONDS else str(reason)


def _sentence(detail: str) -> str:
    """Return msgspec's remark on a field as a reader of a file would say it."""
    long = re.fullmatch(r"Expected `str` of length <= (\d+) - at `\$\.(.+)`", detail)
    return f"{long[2]} has more than {long[1]} characters" if long else detail


def _the_time(ms: int) -> str:
    try:
        return f"the time is {_EPOCH + dt.timedelta(milliseconds=ms):%Y-%m-%d %H:%M}"
    except OverflowError:
        return f"the time {ms} ms is beyond the year 9999"
