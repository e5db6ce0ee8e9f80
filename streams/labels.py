"""Impression + click → label: did the click come within the window?

In: the impressions and clicks of one partition, in any order. Out: labels, the same
whatever the order, the batches and the repetitions were. Pure: watermarks and the wall
clock are passed in.
"""

import heapq
from dataclasses import dataclass

import msgspec

from streams.events import Click, Id, Impression, Millis, UserEvent

UNCLICKED, CLICKED_LATE, CLICKED = 0, 1, 2  # revisions, the weakest first


class ImpressionLabel(msgspec.Struct, frozen=True, kw_only=True):
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


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ImpressionLabel)


def encode_label(label: ImpressionLabel) -> bytes:
    """Return ``label`` as one line of JSON."""
    return _encoder.encode(label)


def decode_label(payload: bytes) -> ImpressionLabel:
    """Return the label in ``payload``; raises ``ValueError`` where there is none."""
    return _decoder.decode(payload)


_Key = tuple[str, str, str]  # user, request, item: another user's click never matches


@dataclass(slots=True)
class _Kept:
    """An impression that a click may still change."""

    impression: Impression
    revision: int = -1  # none published yet
    late_click_at: int | None = None


class LabelJoin:
    """The impressions and early clicks of one partition that still wait for each other.

    Bounded by event time: an impression is kept for the window and the corrections'
    window after it came, a click without an impression as long.
    """

    def __init__(self, window_ms: int, correction_ms: int) -> None:
        self._window_ms = window_ms
        self._kept_ms = window_ms + correction_ms
        self._kept: dict[_Key, _Kept] = {}
        self._early_clicks: dict[_Key, int] = {}
        self._maturing: list[tuple[int, _Key]] = []
        self._leaving: list[tuple[int, _Key]] = []
        self._latest_event_ms = 0
        self._latest_record_ms = 0
        self._idle_until_ms = 0
        self.unmatched_clicks = 0
        """Clicks that were forgotten without an impression."""

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
        """Take ``event``, known since ``record_ms``; return the labels that it decides."""
        self._latest_event_ms = max(self._latest_event_ms, event.occurred_at)
        self._latest_record_ms = max(self._latest_record_ms, record_ms)
        if isinstance(event, Impression):
            return self._add_impression(event)
        return self._add_click(event) if isinstance(event, Click) else []

    def advance(self, idle_until_ms: int = 0) -> list[ImpressionLabel]:
        """Return the labels whose window the watermark has closed, and forget the oldest.

        ``idle_until_ms`` moves the watermark of a partition in which nothing happens.
        """
        self._idle_until_ms = max(self._idle_until_ms, idle_until_ms)
        watermark = self.watermark_ms
        labels: list[ImpressionLabel] = []
        while self._maturing and self._maturing[0][0] <= watermark:
            kept = self._kept.get(heapq.heappop(self._maturing)[1])
            labels += [] if kept is None else self._mature(kept)
        while self._leaving and self._leaving[0][0] <= watermark:
            self._forget(heapq.heappop(self._leaving)[1])
        return labels

    def _add_impression(self, impression: Impression) -> list[ImpressionLabel]:
        key = (impression.user_id, impression.request_id, impression.item_id)
        if key in self._kept:
            return []
        if impression.context:  # no label carries it: not worth a day in memory
            impression = msgspec.structs.replace(impression, context=None)
        kept = self._kept[key] = _Kept(impression)
        at = impression.occurred_at
        heapq.heappush(self._maturing, (at + self._window_ms, key))
        self._keep(at, key)
        click_at = self._early_clicks.pop(key, None)
        return [] if click_at is None else self._click(kept, click_at)

    def _add_click(self, click: Click) -> list[ImpressionLabel]:
        key = (click.user_id, click.request_id, click.item_id)
        kept = self._kept.get(key)
        if kept is not None:
            return self._click(kept, click.occurred_at)
        if key not in self._early_clicks:
            self._keep(click.occurred_at, key)
        seen = self._early_clicks.get(key, click.occurred_at)
        self._early_clicks[key] = min(seen, click.occurred_at)
        return []

    def _click(self, kept: _Kept, at_ms: int) -> list[ImpressionLabel]:
        if at_ms <= kept.impression.occurred_at + self._window_ms:
            return self._publish(kept, CLICKED, at_ms)
        if kept.revision < UNCLICKED:  # a click in time may still come: wait for the window
            kept.late_click_at = min(kept.late_click_at or at_ms, at_ms)
            return []
        return self._publish(kept, CLICKED_LATE, at_ms)

    def _mature(self, kept: _Kept) -> list[ImpressionLabel]:
        window_end = kept.impression.occurred_at + self._window_ms
        labels = self._publish(kept, UNCLICKED, window_end)
        if kept.late_click_at is not None:
            labels += self._publish(kept, CLICKED_LATE, kept.late_click_at)
        return labels

    def _publish(self, kept: _Kept, revision: int, at_ms: int) -> list[ImpressionLabel]:
        if revision <= kept.revision:
            return []
        kept.revision = revision
        shown = kept.impression
        label = ImpressionLabel(
            request_id=shown.request_id,
            user_id=shown.user_id,
            item_id=shown.item_id,
            position=shown.position,
            score=shown.score,
            propensity=shown.propensity,
            model_version=shown.model_version,
            impression_at=shown.occurred_at,
            clicked=revision != UNCLICKED,
            within_window=revision != CLICKED_LATE,
            matured_at=at_ms,
            revision=revision,
        )
        return [label]

    def _keep(self, at_ms: int, key: _Key) -> None:
        """Remember ``key`` for a while; a late arrival gets as long as a punctual one."""
        until = max(at_ms, self.watermark_ms) + self._kept_ms
        heapq.heappush(self._leaving, (until, key))

    def _forget(self, key: _Key) -> None:
        # An impression that met its early click is in the queue twice, the click's time
        # first: it leaves at most one window sooner.
        self._kept.pop(key, None)
        if self._early_clicks.pop(key, None) is not None:
            self.unmatched_clicks += 1
