"""Replays live visits: requests to Triton, impressions in its order, recorded clicks.

A visit's slate is ranked now; its impressions are published with position, score and model
version; the recorded clicks and behaviours follow within seconds, then the user's next
visit. For some clicks the time until the same request gets other scores is measured.
"""

import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from srp4ctr.demo.sessions import (
    BEHAVIORS_SPAN_MS,
    CLICKS_SPAN_MS,
    FIRST_BEHAVIOR_MS,
    FIRST_CLICK_MS,
    VISIT_MS,
    Timeline,
    Visit,
    at_time,
)
from srp4ctr.streams.events.schema import UserEvent

_PROBE_LEAD_S = 0.05  # its first request comes just before the click
_PROBE_POLL_S = 0.05
_PROBE_TIMEOUT_S = 20.0
_RANK_CALLERS = 2  # as many as the machine has cores: the latency is the service's


class SlateRanking(Protocol):
    """A ranker's result: one score and one position per candidate, in their order."""

    @property
    def scores(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def propensities(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def positions(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def model_version(self) -> str: ...  # noqa: D102
    @property
    def feature_version(self) -> str: ...  # noqa: D102


Rank = Callable[[str, Sequence[str], int, str], SlateRanking]
"""(user_id, item_ids, request_time_ms, request_id) → SlateRanking; raises if there is none.
A probe has no request_id: nothing is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedSlate:
    """One slate in the shown order, and the items with a replayed click."""

    user_id: str
    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    clicked: frozenset[str]
    model_version: str
    latency_s: float


@dataclass(slots=True)
class ReplayResult:
    """The measurements of the replay."""

    slates: list[ReplayedSlate] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    freshness_s: list[float] = field(default_factory=list)
    """Click published → a changed score for the same request, one per probe."""
    unchanged_probes: int = 0


@dataclass(slots=True)
class Replay:
    """Replays every live visit once, users concurrently, within about ``seconds``."""

    rank: Rank
    publish: Callable[[UserEvent], None]
    seconds: float
    probe_every: int = 15
    on_progress: Callable[[int, int], None] = lambda done, total: None
    result: ReplayResult = field(default_factory=ReplayResult)
    _queue: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: "itertools.count[int]" = field(default_factory=itertools.count)
    _lock: threading.Condition = field(default_factory=threading.Condition)
    _open_visits: int = 0
    _broken: Exception | None = None
    _ended: threading.Event = field(default_factory=threading.Event)
    _running_probes: list["Future[None]"] = field(default_factory=list)
    _callers: ThreadPoolExecutor = field(init=False)
    _probes: ThreadPoolExecutor = field(init=False)

    def run(self, timelines: Sequence[Timeline]) -> ReplayResult:
        """Replay the live visits of ``timelines``; return when all events are published."""
        lively = [each for each in timelines if each.live]
        total = sum(len(each.live) for each in lively)
        self._open_visits = total
        rng = random.Random(0)
        begin = time.monotonic()
        for timeline in lively:
            length_s = len(timeline.live) * VISIT_MS / 1000
            start = begin + rng.random() * max(0.0, self.seconds - length_s)
            self._at(start, self._visit(timeline, 0))
        with (
            ThreadPoolExecutor(_RANK_CALLERS, "rank") as callers,
            ThreadPoolExecutor(4, "probe") as probes,
        ):
            self._callers, self._probes = callers, probes
            try:
                self._work(total)
            finally:
                self._ended.set()  # no more clicks come: end the probes
        return self.result

    def _work(self, total: int) -> None:
        """Run the actions that are due, in order of time, until no visit is left."""
        while True:
            with self._lock:
                while not self._queue or self._queue[0][0] > time.monotonic():
                    if self._broken:
                        raise self._broken
                    if not self._queue and not self._open_visits:
                        self._finish_probes()
                        return
                    wait = self._queue[0][0] - time.monotonic() if self._queue else 0.2
                    self._lock.wait(min(max(wait, 0.001), 0.2))
                action = heapq.heappop(self._queue)[2]
            action()
            self.on_progress(total - self._open_visits, total)

    def _at(self, due: float, action: Callable[[], None]) -> None:
        with self._lock:
            heapq.heappush(self._queue, (due, next(self._order), action))
            self._lock.notify()

    def _visit(self, timeline: Timeline, index: int) -> Callable[[], None]:
        def submit() -> None:
            self._callers.submit(self._replay_visit, timeline, index)

        return submit

    def _replay_visit(self, timeline: Timeline, index: int) -> None:
        try:
            self._rank_and_show(timeline, index)
        except Exception as error:  # an event that cannot be published ends the replay
            self._broken = self._broken or error
        finally:
            self._close_visit()

    def _rank_and_show(self, timeline: Timeline, index: int) -> None:
        visit, started = timeline.live[index], time.monotonic()
        if index + 1 < len(timeline.live):
            following = started + VISIT_MS / 1000
            self._at(following, self._visit(timeline, index + 1))
        now_ms = time.time_ns() // 1_000_000
        items = [each.item_id for each in visit.impressions]
        try:
            request_id = visit.impressions[0].request_id
            ranking = self.rank(timeline.user_id, items, now_ms, request_id)
        except Exception as error:  # counted and shown: the replay goes on
            self.result.failures.append(str(error))
            return
        latency_s = time.monotonic() - started
        self._show(visit, ranking, now_ms)
        self._follow(visit, started)
        self.result.slates.append(_slate_of(visit, ranking, latency_s))
        # A ranking without features does not change with a click.
        is_probed = len(self.result.slates) % self.probe_every == 0
        if visit.clicks and is_probed and ranking.feature_version:
            click_due = started + FIRST_CLICK_MS / 1000
            self._at(
                click_due - _PROBE_LEAD_S,
                lambda: self._start_probe(timeline.user_id, items, click_due),
            )

    def _close_visit(self) -> None:
        with self._lock:
            self._open_visits -= 1
            self._lock.notify()

    def _show(self, visit: Visit, ranking: SlateRanking, now_ms: int) -> None:
        """Publish the slate in the model's order."""
        for position, place in enumerate(_as_shown(ranking)):
            impression = msgspec.structs.replace(
                visit.impressions[place],
                position=position,
                occurred_at=now_ms,
                score=ranking.scores[place],
                propensity=ranking.propensities[place],
                model_version=ranking.model_version,
            )
            self.publish(impression)

    def _follow(self, visit: Visit, started: float) -> None:
        """Schedule the visit's clicks and behaviours in wall-clock time."""
        offset_ms = int((time.time() - time.monotonic()) * 1000)
        start_ms = int(started * 1000) + offset_ms
        clicks = at_time(visit.clicks, start_ms + FIRST_CLICK_MS, CLICKS_SPAN_MS)
        behaviors = at_time(
            visit.behaviors, start_ms + FIRST_BEHAVIOR_MS, BEHAVIORS_SPAN_MS
        )
        for event in clicks + behaviors:
            due = (event.occurred_at - offset_ms) / 1000
            self._at(due, lambda event=event: self.publish(event))  # type: ignore[misc]

    def _start_probe(self, user_id: str, items: list[str], click_due: float) -> None:
        self._running_probes.append(
            self._probes.submit(self._probe, user_id, items, click_due)
        )

    def _finish_probes(self) -> None:
        """Wait for the probes of the last clicks."""
        for probe in self._running_probes:
            probe.result()

    def _probe(self, user_id: str, items: list[str], click_due: float) -> None:
        """Repeat the request until the click has changed sequence and scores; time it.

        A probe that sees no change, or gets no ranking, counts as the whole timeout.
        """
        is_changed = False
        try:
            is_changed = self._wait_for_change(user_id, items, click_due)
        except Exception as error:
            self.result.failures.append(f"probe: {error}")
        self.result.unchanged_probes += not is_changed
        waited_s = time.monotonic() - click_due
        self.result.freshness_s.append(waited_s if is_changed else _PROBE_TIMEOUT_S)

    def _wait_for_change(self, user_id: str, items: list[str], click_due: float) -> bool:
        before = self.rank(user_id, items, time.time_ns() // 1_000_000, "")
        while time.monotonic() - click_due < _PROBE_TIMEOUT_S:
            if self._ended.wait(_PROBE_POLL_S):
                return False
            now = self.rank(user_id, items, time.time_ns() // 1_000_000, "")
            moved = sequence_version(now) != sequence_version(before)
            if moved and now.scores != before.scores:
                return True
        return False


def _slate_of(visit: Visit, ranking: SlateRanking, latency_s: float) -> ReplayedSlate:
    shown = _as_shown(ranking)
    return ReplayedSlate(
        user_id=visit.impressions[0].user_id,
        item_ids=tuple(visit.impressions[i].item_id for i in shown),
        scores=tuple(ranking.scores[i] for i in shown),
        clicked=frozenset(click.item_id for click in visit.clicks),
        model_version=ranking.model_version,
        latency_s=latency_s,
    )


def _as_shown(ranking: SlateRanking) -> list[int]:
    """Return the places of the candidates from the top."""
    return sorted(range(len(ranking.scores)), key=ranking.positions.__getitem__)


def sequence_version(ranking: SlateRanking) -> str:
    """Return the sequence's part of the version, "" where there is none.

    The counters' version moves with every impression, the item table's every second.
    """
    parts = ranking.feature_version.split(",")
    return next((part for part in parts if part.startswith("sequence=")), "")
