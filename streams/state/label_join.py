"""Impression + click → label: did the click come within the window?

In: the impressions and clicks of one partition. Out: labels, the same for out-of-order
events, duplicates and any batches. Pure: watermarks and the wall clock are passed in.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from srp4ctr.streams.events.schema import Click, Forget, Id, Impression, Millis, UserEvent

# Revisions, the weakest first.
UNCLICKED = 0
CLICKED_LATE = 1
CLICKED = 2


class ImpressionLabel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether an impression was clicked, as JSON on ``impression-labels``.

    Of two labels of one (request_id, item_id) the greater ``revision`` holds. A revision
    is a rank, not a count, so that equal revisions say the same and a repeated label
    never contradicts a stronger one.
    """

    request_id: Id
    user_id: Id
    item_id: Id
    position: int
    score: float | None
    propensity: float | None
    model_version: Id | None
    impression_at: Millis
    clicked: bool
    within_window: bool
    """False only where the click came after the window."""
    matured_at: Millis
    """Event time: the click, or the window's end where none came in it."""
    revision: int
    """0: the window closed without a click; 1: a click came later; 2: one came in time."""
    experiment: Id | None = None
    arm: Id | None = None
    """The version that the user was assigned to in ``experiment``."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ImpressionLabel)


def encode_label(label: ImpressionLabel) -> bytes:
    """Return ``label`` as one line of JSON."""
    return _encoder.encode(label)


def decode_label(payload: bytes) -> ImpressionLabel:
    """Return the label in ``payload``; raises ``ValueError`` where there is none."""
    return _decoder.decode(payload)


_Key = tuple[str, str, str]  # user, request, item: another user's click never matches


@dataclass(slots=True, eq=False)
class _Ticket:
    """A place in the queues; without a key once nothing waits there any more.

    So the id of a user who was erased is in no queue.
    """

    key: _Key | None


# When it is due, its own time and its arrival: behind the watermark many are due at once,
# and of those the oldest is the first.
_Due = tuple[int, int, int, _Ticket]


@dataclass(slots=True)
class _Kept:
    """An impression that a click may still change."""

    unclicked: ImpressionLabel
    revision: int = -1  # none published yet
    late_click_at: int | None = None


class LabelJoin:
    """The impressions and early clicks of one partition that still wait for each other.

    An impression is kept for the window, and then for the corrections' window, in event
    time; a click without an impression as long as both. Beyond ``max_kept`` impressions
    whose window has closed, and such clicks, are dropped earlier, the oldest first; one
    whose window is open never.
    """

    def __init__(self, window_ms: int, correction_ms: int, max_kept: int) -> None:
        self._window_ms = window_ms
        self._correction_ms = correction_ms
        self._max_kept = max_kept
        self._kept: dict[_Key, _Kept] = {}
        self._early_clicks: dict[_Key, int] = {}
        # By user, of both, in the order in which they came: for erasure.
        self._keys_of: dict[str, dict[_Key, _Ticket]] = {}
        self._arrivals = 0
        # Of the last impression: version, experiment and arm.
        self._names: tuple[str | None, str | None, str | None] = (None, None, None)
        # Impressions to mature, then to leave; early clicks to leave.
        self._maturing: list[_Due] = []
        self._leaving: list[_Due] = []
        self._expiring: list[_Due] = []
        self._latest_event_ms = 0
        self._latest_record_ms = 0
        self._idle_until_ms = 0
        self.unmatched_clicks = 0
        """Clicks that were dropped without an impression."""
        self.dropped_early = 0
        """Impressions that ``max_kept`` dropped before their corrections' window closed."""

    @property
    def watermark_ms(self) -> int:
        """Event time so far: one wrong clock, an event's or a record's, moves nothing."""
        seen = min(self._latest_event_ms, self._latest_record_ms)
        return max(seen, self._idle_until_ms)

    @property
    def waiting(self) -> int:
        """How many impressions and early clicks are held in memory."""
        return len(self._kept) + len(self._early_clicks)

    def add(self, event: UserEvent, record_ms: int) -> list[ImpressionLabel]:
        """Add ``event``, known since ``record_ms``; return the labels that it decides."""
        self._latest_event_ms = max(self._latest_event_ms, event.occurred_at)
        self._latest_record_ms = max(self._latest_record_ms, record_ms)
        if isinstance(event, Impression):
            return self._add_impression(event)
        if isinstance(event, Click):
            return self._add_click(event)
        if isinstance(event, Forget):
            self._forget_user(event)
        return []

    def advance(self, idle_until_ms: int = 0) -> list[ImpressionLabel]:
        """Return the labels whose window the watermark has closed, and drop the oldest.

        ``idle_until_ms`` moves the watermark of a partition in which nothing happens.
        """
        self._idle_until_ms = max(self._idle_until_ms, idle_until_ms)
        watermark = self.watermark_ms
        labels: list[ImpressionLabel] = []
        for at_ms, key in _due(self._maturing, watermark):
            if kept := self._kept.get(key):
                labels += self._mature(kept)
                # A late impression has as long for corrections as a punctual one.
                until = max(at_ms, watermark) + self._correction_ms
                self._queue(self._leaving, until, at_ms, key)
        for _, key in _due(self._leaving, watermark):
            self._release(key)
        for _, key in _due(self._expiring, watermark):
            self._expire(key)
        self._make_room()
        return labels

    def _make_room(self) -> None:
        """Drop what has waited longest, first the clicks without an impression."""
        while self._expiring and len(self._early_clicks) > self._max_kept:
            if key := heapq.heappop(self._expiring)[-1].key:
                self._expire(key)
        while self._leaving and self.waiting > self._max_kept:
            if key := heapq.heappop(self._leaving)[-1].key:
                self.dropped_early += self._release(key)

    def _queue(self, queue: list[_Due], due_ms: int, at_ms: int, key: _Key) -> None:
        """Put ``key`` into ``queue``; all its places share a ticket."""
        ticket = self._keys_of.setdefault(key[0], {}).setdefault(key, _Ticket(key))
        self._arrivals += 1
        heapq.heappush(queue, (due_ms, at_ms, self._arrivals, ticket))

    def _expire(self, key: _Key) -> None:
        """Drop an early click, unless its impression has come."""
        if self._early_clicks.pop(key, None) is not None:
            self._release(key)
            self.unmatched_clicks += 1

    def _release(self, key: _Key) -> bool:
        """Drop an impression; return whether it was still kept."""
        tickets = self._keys_of[key[0]]
        tickets.pop(key).key = None
        if not tickets:
            del self._keys_of[key[0]]
        return self._kept.pop(key, None) is not None

    def _add_impression(self, impression: Impression) -> list[ImpressionLabel]:
        key = _key(impression)
        if key in self._kept:
            return []
        due_ms = impression.occurred_at + self._window_ms
        label = self._unclicked(impression, due_ms)
        key = (label.user_id, label.request_id, label.item_id)  # the strings held once
        kept = self._kept[key] = _Kept(label)
        self._queue(self._maturing, due_ms, due_ms, key)
        click_at = self._early_clicks.pop(key, None)
        return [] if click_at is None else self._click(kept, click_at)

    def _unclicked(self, shown: Impression, due_ms: int) -> ImpressionLabel:
        """Return the label of ``shown`` without a click; a slate holds its ids once.

        Not by ``sys.intern``, which some versions of Python never free.
        """
        keys = self._keys_of.get(shown.user_id)
        user_id, request_id, _ = next(reversed(keys)) if keys else _key(shown)
        names = (shown.model_version, shown.experiment, shown.arm)
        if self._names != names:
            self._names = names
        version, experiment, arm = self._names
        return ImpressionLabel(
            request_id=request_id if request_id == shown.request_id else shown.request_id,
            user_id=user_id,
            item_id=shown.item_id,
            position=shown.position,
            score=shown.score,
            propensity=shown.propensity,
            model_version=version,
            experiment=experiment,
            arm=arm,
            impression_at=shown.occurred_at,
            clicked=False,
            within_window=True,
            matured_at=due_ms,
            revision=UNCLICKED,
        )

    def _add_click(self, click: Click) -> list[ImpressionLabel]:
        key = _key(click)
        kept = self._kept.get(key)
        if kept is not None:
            return self._click(kept, click.occurred_at)
        if key not in self._early_clicks:
            kept_ms = self._window_ms + self._correction_ms
            until = max(click.occurred_at, self.watermark_ms) + kept_ms
            self._queue(self._expiring, until, click.occurred_at, key)
        seen = self._early_clicks.get(key, click.occurred_at)
        self._early_clicks[key] = min(seen, click.occurred_at)
        return []

    def _click(self, kept: _Kept, at_ms: int) -> list[ImpressionLabel]:
        if at_ms <= kept.unclicked.matured_at:
            return self._publish(kept, CLICKED, at_ms)
        if kept.revision < UNCLICKED:  # a click in time may still come: wait for the window
            kept.late_click_at = min(kept.late_click_at or at_ms, at_ms)
            return []
        return self._publish(kept, CLICKED_LATE, at_ms)

    def _mature(self, kept: _Kept) -> list[ImpressionLabel]:
        labels = self._publish(kept, UNCLICKED, kept.unclicked.matured_at)
        if kept.late_click_at is not None:
            labels += self._publish(kept, CLICKED_LATE, kept.late_click_at)
        return labels

    def _publish(self, kept: _Kept, revision: int, at_ms: int) -> list[ImpressionLabel]:
        if revision <= kept.revision:
            return []
        kept.revision = revision
        if revision == UNCLICKED:
            return [kept.unclicked]
        label = msgspec.structs.replace(
            kept.unclicked,
            clicked=True,
            within_window=revision == CLICKED,
            matured_at=at_ms,
            revision=revision,
        )
        return [label]

    def _forget_user(self, forget: Forget) -> None:
        """Drop the user's impressions and clicks, and the keys of their places."""
        for key, ticket in self._keys_of.pop(forget.user_id, {}).items():
            ticket.key = None
            self._kept.pop(key, None)
            self._early_clicks.pop(key, None)


def _key(event: Impression | Click) -> _Key:
    return (event.user_id, event.request_id, event.item_id)


def _due(queue: list[_Due], watermark_ms: int) -> Iterator[tuple[int, _Key]]:
    """Take what is due; yield its due time and its key, where it still has one."""
    while queue and queue[0][0] <= watermark_ms:
        due_ms, _, _, ticket = heapq.heappop(queue)
        if ticket.key:
            yield due_ms, ticket.key
