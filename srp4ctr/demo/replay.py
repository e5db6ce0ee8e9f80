"""Replays live visits: requests to Triton, impressions in its order, recorded clicks.

A visit's slate is ranked now; its impressions are published with position, score and model
version; the recorded clicks and behaviours follow within seconds, then the user's next
visit. For some clicks the time until the same request gets other scores is measured.
"""

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from srp4ctr.monitoring.collector.probe import wait_for_change
from srp4ctr.streams.events.schema import UserEvent

_PROBE_LEAD_S = 0.05  # its first request comes just before the click
_PROBE_TIMEOUT_S = 20.0
_PROBE_CALLERS = 4
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
    _shown: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _probes: list["asyncio.Task[None]"] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _callers: ThreadPoolExecutor = field(init=False)
    _probers: ThreadPoolExecutor = field(init=False)

    def run(self, timelines: Sequence[Timeline]) -> ReplayResult:
        """Replay the live visits of ``timelines``; return when all events are published."""
        with (
            ThreadPoolExecutor(_RANK_CALLERS, "rank") as self._callers,
            ThreadPoolExecutor(_PROBE_CALLERS, "probe") as self._probers,
        ):
            try:
                asyncio.run(self._replay(timelines))
            finally:
                self._ended.set()  # no more clicks come: end the probes
        return self.result

    async def _replay(self, timelines: Sequence[Timeline]) -> None:
        rng, begin, done = random.Random(0), time.monotonic(), itertools.count(1)
        total = sum(len(each.live) for each in timelines)

        async def replay_user(visits: Sequence[Visit]) -> None:
            free_s = max(0.0, self.seconds - len(visits) * VISIT_MS / 1000)
            start = begin + rng.random() * free_s
            for visit in visits:
                await _sleep_until(start)
                start = await self._replay_visit(visit) + VISIT_MS / 1000
                self.on_progress(next(done), total)

        await asyncio.gather(*(replay_user(each.live) for each in timelines if each.live))
        await asyncio.gather(*self._probes)

    async def _replay_visit(self, visit: Visit) -> float:
        """Show a slate, then publish its events; return when its request began."""
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(self._callers, self._rank_and_show, visit)
        started, ranking = await call
        if ranking is None:
            return started
        # A ranking without features does not change with a click.
        is_probed = next(self._shown) % self.probe_every == 0
        if visit.clicks and is_probed and ranking.feature_version:
            self._probes.append(asyncio.create_task(self._probe(visit, started)))
        for due, event in _events_after(visit, started):
            await _sleep_until(due)
            self.publish(event)
        return started

    def _rank_and_show(self, visit: Visit) -> tuple[float, SlateRanking | None]:
        """Publish the slate in the ranker's order; return when the request began."""
        started, now_ms = time.monotonic(), time.time_ns() // 1_000_000
        first = visit.impressions[0]
        items = [each.item_id for each in visit.impressions]
        try:
            ranking = self.rank(first.user_id, items, now_ms, first.request_id)
        except Exception as error:  # counted and shown: the replay goes on
            self.result.failures.append(str(error))
            return started, None
        self.result.slates.append(_slate_of(visit, ranking, time.monotonic() - started))
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
        return started, ranking

    async def _probe(self, visit: Visit, started: float) -> None:
        """Repeat the request until the click has changed sequence and scores; time it.

        A probe that sees no change, or gets no ranking, counts as the whole timeout.
        """
        loop, click_due = asyncio.get_running_loop(), started + FIRST_CLICK_MS / 1000
        await _sleep_until(click_due - _PROBE_LEAD_S)
        waited_s = None
        try:
            waited_s = await loop.run_in_executor(
                self._probers, self._wait_for_change, visit, click_due
            )
        except Exception as error:
            self.result.failures.append(f"probe: {error}")
        self.result.unchanged_probes += waited_s is None
        self.result.freshness_s.append(_PROBE_TIMEOUT_S if waited_s is None else waited_s)

    def _wait_for_change(self, visit: Visit, click_due: float) -> float | None:
        user, items = visit.impressions[0].user_id, [i.item_id for i in visit.impressions]

        def rank() -> SlateRanking:
            return self.rank(user, items, time.time_ns() // 1_000_000, "")

        return wait_for_change(rank, rank(), click_due, self._ended, _PROBE_TIMEOUT_S)


async def _sleep_until(due: float) -> None:
    await asyncio.sleep(due - time.monotonic())


def _events_after(visit: Visit, started: float) -> Iterator[tuple[float, UserEvent]]:
    """Yield the visit's clicks and behaviours, each with the instant when it is due."""
    offset_ms = int((time.time() - time.monotonic()) * 1000)
    start_ms = int(started * 1000) + offset_ms
    clicks = at_time(visit.clicks, start_ms + FIRST_CLICK_MS, CLICKS_SPAN_MS)
    behaviors = at_time(visit.behaviors, start_ms + FIRST_BEHAVIOR_MS, BEHAVIORS_SPAN_MS)
    for event in clicks + behaviors:
        yield (event.occurred_at - offset_ms) / 1000, event


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
