"""The page's playground on the real store, Triton and stream.

A ranking is the one that any client gets. A click publishes the impressions of the slate
and the click, as any producer would; then the same candidates are ranked again until the
ranking has a newer sequence and other scores. That time is shown.
"""

import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from srp4ctr.cli.tables.results import STATUS_ADVICE, item_status_words
from srp4ctr.client.messages import Ranking
from srp4ctr.client.rank_client import RankClient
from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.features.tensors.vocabulary import parse_attributes
from srp4ctr.monitoring.collector.probe import has_changed
from srp4ctr.monitoring.web.playground import (
    ClickEffect,
    Offer,
    RankedItem,
    ShownBehavior,
    ShownRanking,
    ShownUser,
)
from srp4ctr.ops.feature_store import attribute_texts
from srp4ctr.playground.reads import PlaygroundReads, recent_ids
from srp4ctr.settings import Settings
from srp4ctr.streams.broker.producer import EventPublisher
from srp4ctr.streams.events.schema import Click, action_name, now_ms

OFFERED_USERS = 12
_DEADLINE_S = 5.0
_POLL_S = 0.025
_PATIENCE_S = 10.0
_MAX_SLATES = 256
_NOTHING_SERVES = (
    "Nothing is promoted yet: `srp4ctr model refresh` trains a model and promotes it."
)
_NOTHING_CHANGED = (
    f"The click is published, but nothing changed within {_PATIENCE_S:.0f} s. Does the "
    "stream worker run, and has it caught up? `srp4ctr stream run`"
)


@dataclass(slots=True, kw_only=True)
class _Slate:
    """A ranking that was shown, for the clicks that may follow."""

    ranking: Ranking
    shown_at_ms: int
    is_published: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class LivePlayground:
    """Implements ``monitoring.web.playground.Playground``; safe for many threads.

    It connects at the first use, so that the page opens at once, even if a part is down.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reads = PlaygroundReads(settings)
        self._slates: OrderedDict[str, _Slate] = OrderedDict()
        self._lock = threading.Lock()
        self._client: RankClient | None = None
        self._producer: EventPublisher | None = None

    def offer(self) -> Offer:
        """Return the newest users, and what to do if there are none or nothing serves."""
        log = self._settings.features.raw_log
        found = recent_ids(log, self._settings.kafka.partitions, OFFERED_USERS)
        advice = ""
        if not found.users:
            advice = (
                f"No events in {log}: publish some (`srp4ctr events publish`), or "
                "enter the id of a user."
            )
        can_rank = not self._reads.nothing_serves()
        return Offer(
            users=found.users,
            can_rank=can_rank,
            advice=advice if can_rank else _NOTHING_SERVES,
        )

    def user(self, user_id: str) -> ShownUser:
        """Return the user's sequence and attributes, as the store has them."""
        found = self._reads.user(user_id)
        elements = found.sequence.elements[::-1]
        items = self._reads.items([element.item_key for element in elements])
        actions = self._reads.actions(element.action for element in elements)
        behaviors = tuple(
            ShownBehavior(
                item=items[element.item_key],
                action=action_name(element.action, actions),
                at_ms=element.occurred_at,
                value=element.value,
            )
            for element in elements
        )
        advice = "" if behaviors else f"The store has no behaviour of user {user_id!r}."
        return ShownUser(
            user_id=user_id,
            attributes=attribute_texts(parse_attributes(found.attributes)),
            behaviors=behaviors,
            advice=advice,
        )

    def rank(
        self, user_id: str, item_ids: Sequence[str], count: int, draw: int
    ) -> ShownRanking:
        """Return Triton's ranking, and store the slate for the clicks that may follow."""
        wanted = item_ids or self._reads.candidates(user_id, count, draw)
        request_id = f"playground-{uuid.uuid4().hex}"
        started = time.perf_counter()
        ranking = self._rank(user_id, wanted, request_id)
        latency_ms = (time.perf_counter() - started) * 1000
        return self._shown(self._store(request_id, ranking), ranking, latency_ms)

    def recommend(self, user_id: str, count: int) -> ShownRanking:
        """Return what Triton recommends, and store the slate for the clicks to come."""
        request_id = f"playground-{uuid.uuid4().hex}"
        started = time.perf_counter()
        ranking = self._call(
            lambda client: client.recommend(
                user_id, count, request_id=request_id, deadline_s=_DEADLINE_S
            )
        )
        latency_ms = (time.perf_counter() - started) * 1000
        return self._shown(self._store(request_id, ranking), ranking, latency_ms)

    def click(self, request_id: str, item_id: str) -> ClickEffect:
        """Publish slate and click, and return the change within ten seconds."""
        slate = self._slates.get(request_id)
        if slate is None or item_id not in slate.ranking.item_ids:
            raise MistakeError("This ranking is no longer known: rank again.")
        with slate.lock:
            before = self._rank(slate.ranking.user_id, slate.ranking.item_ids)
            published = self._publish(request_id, slate, item_id)
        after, latency_ms = before, 0.0
        changed_after_ms = None
        while time.perf_counter() - published < _PATIENCE_S:
            sent = time.perf_counter()
            after = self._rank(before.user_id, before.item_ids)
            latency_ms = (time.perf_counter() - sent) * 1000
            if has_changed(before, after):
                changed_after_ms = (time.perf_counter() - published) * 1000
                break
            time.sleep(_POLL_S)
        advice = "" if changed_after_ms is not None else _NOTHING_CHANGED
        shown_as = self._store(f"playground-{uuid.uuid4().hex}", after)
        return ClickEffect(
            changed_after_ms=changed_after_ms,
            advice=advice,
            user=self.user(before.user_id),
            ranking=self._shown(shown_as, after, latency_ms),
        )

    def close(self) -> None:
        """Disconnect from Triton and the broker; every event is acknowledged by then."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            if self._producer is not None:
                self._producer.close()
            self._client = self._producer = None

    def _rank(
        self, user_id: str, item_ids: Sequence[str], request_id: str | None = None
    ) -> Ranking:
        return self._call(
            lambda client: client.rank(
                user_id, item_ids, request_id=request_id, deadline_s=_DEADLINE_S
            )
        )

    def _call(self, request: Callable[[RankClient], Ranking]) -> Ranking:
        triton = self._settings.triton
        with self._lock:
            if self._client is None:
                self._client = RankClient(triton.grpc, tls=triton.tls)
        try:
            return request(self._client)
        except ConnectionError as error:
            if self._reads.nothing_serves() or "NOT_FOUND" in str(error):
                raise MistakeError(_NOTHING_SERVES) from error
            raise OutageError(
                f"Triton at {triton.grpc} gives no ranking. Does it run? `srp4ctr stack "
                f"status` shows it, `srp4ctr stack up` starts it. ({error})"
            ) from error

    def _publish(self, request_id: str, slate: _Slate, item_id: str) -> float:
        """Publish the click, after the slate's impressions; return when it was sent."""
        producer = self._connected()
        try:
            if not slate.is_published:
                for shown in slate.ranking.impressions(request_id, slate.shown_at_ms):
                    producer.publish(shown)
                producer.flush(_DEADLINE_S)
                slate.is_published = True
            sent = time.perf_counter()
            producer.publish(
                Click(
                    event_id=f"c-{request_id}-{uuid.uuid4().hex[:8]}",
                    request_id=request_id,
                    user_id=slate.ranking.user_id,
                    item_id=item_id,
                    occurred_at=max(now_ms(), slate.shown_at_ms + 1),
                )
            )
            producer.flush(_DEADLINE_S)
        except Exception:
            with self._lock:
                if self._producer is producer:
                    self._producer = None  # the next click connects again
            raise
        return sent

    def _connected(self) -> EventPublisher:
        """Return the producer; no lock, so a broker that hangs blocks no other visitor."""
        if (producer := self._producer) is not None:
            return producer
        made = EventPublisher(self._settings.kafka)
        with self._lock:
            kept = self._producer = self._producer or made
        if kept is not made:
            made.close()
        return kept

    def _store(self, request_id: str, ranking: Ranking) -> str:
        with self._lock:
            self._slates[request_id] = _Slate(ranking=ranking, shown_at_ms=now_ms())
            while len(self._slates) > _MAX_SLATES:
                self._slates.popitem(last=False)
        return request_id

    def _shown(self, request_id: str, ranking: Ranking, latency_ms: float) -> ShownRanking:
        items = self._reads.items_of(ranking.item_ids)
        place = {item_id: i for i, item_id in enumerate(ranking.item_ids)}
        sources = dict(zip(ranking.item_ids, ranking.sources, strict=False))

        def ranked_item(item_id: str) -> RankedItem:
            notes = item_status_words(ranking.item_statuses[place[item_id]])
            source = sources.get(item_id, "")
            return RankedItem(
                item=items[item_id],
                score=ranking.scores[place[item_id]],
                notes=", ".join(filter(None, (source, notes))),
            )

        ranked = tuple(map(ranked_item, ranking.to_show()))
        return ShownRanking(
            request_id=request_id,
            items=ranked,
            model_version=ranking.model_version,
            calibrated=ranking.calibrated,
            status=ranking.status,
            advice=STATUS_ADVICE.get(ranking.status, ""),
            feature_version=ranking.feature_version,
            latency_ms=latency_ms,
            cost=self._reads.cost(ranking.model_version, len(ranked)),
        )
