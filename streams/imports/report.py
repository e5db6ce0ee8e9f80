"""What came of an import: events by kind, rows that became none, and why."""

from collections import Counter
from dataclasses import dataclass, field

import msgspec

from srp4ctr.errors import MistakeError

DUPLICATE = "duplicate"
NO_RULE = "no rule"
NO_ATTRIBUTE = "no attribute"
NOT_BAD = (DUPLICATE, NO_RULE, NO_ATTRIBUTE)  # nothing is wrong with these rows
_PREVIEWED = 3
_MAX_PLACES = 5


class EventFields(msgspec.Struct):
    """What a report needs to know of an event."""

    type: str
    event_id: str
    occurred_at: int
    action: str = ""


@dataclass(slots=True, kw_only=True)
class Dropped:
    """Rows that became no event, for one reason."""

    rows: int = 0
    places: list[str] = field(default_factory=list)
    """The first of them."""
    detail: str = ""


@dataclass(slots=True, kw_only=True)
class ImportReport:
    """What came of the files."""

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Events by kind and action."""
    dropped: dict[str, Dropped] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    preview: list[bytes] = field(default_factory=list)
    first_ms: int | None = None
    last_ms: int | None = None

    @property
    def num_bad(self) -> int:
        """Rows with which something is wrong."""
        return sum(d.rows for why, d in self.dropped.items() if why not in NOT_BAD)

    def drop(self, reason: str, place: str, detail: str = "") -> None:
        """Count a row that is no event."""
        dropped = self.dropped.setdefault(reason, Dropped(detail=detail))
        dropped.rows += 1
        if len(dropped.places) < _MAX_PLACES:
            dropped.places.append(place)

    def add(self, event: EventFields, payload: bytes) -> None:
        """Count an event; the first ones are kept for a preview."""
        name = f"{event.type} {event.action}" if event.action else event.type
        self.counts[name] += 1
        if event.type not in ("item", "user"):
            at = event.occurred_at
            self.first_ms = min(self.first_ms or at, at)
            self.last_ms = max(self.last_ms or at, at)
        if len(self.preview) < _PREVIEWED:
            self.preview.append(payload)


def refuse_bad(report: ImportReport, skip_bad: bool) -> None:
    """Raise ``MistakeError`` where bad rows kept everything from being imported."""
    if not report.num_bad or skip_bad:
        return
    first = next(d for why, d in report.dropped.items() if why not in NOT_BAD)
    times = sum(d.rows for why, d in report.dropped.items() if why.startswith("time_"))
    mixed = " Some times are wrong, or of another unit than the others." if times else ""
    mixed = mixed if report.counts else ""
    raise MistakeError(
        f"{report.num_bad:,} of {report.rows:,} rows are bad, the first is "
        f"{first.places[0]}: {first.detail}{'' if first.detail.endswith('?') else '.'}"
        f"{mixed} Nothing was imported; --skip-bad "
        "imports the others"
    )
