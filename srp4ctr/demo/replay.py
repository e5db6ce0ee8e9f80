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
from typing import Any, Protocol, TypeVar

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
_MAX_BEHIND = 500  # records that the stream may lag by, about ten slates
_LOOK_S = 0.25
_T = TypeVar("_T")


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
    @property
    def experiment(self) -> str | None: ...  # noqa: D102
    @property
    def arm(self) -> str | None: ...  # noqa: D102


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
    late_probes: int = 0
    """Clicks that were to be timed, but had no free caller when they were due."""
    held_visits: int = 0
    """Visits that waited for the stream to catch up."""
    seconds: float = 0.0


@dataclass(slots=True)
class Replay:
    """Replays every live visit once, users concurrently.

    It takes about ``seconds``, or as long as the machine needs: none starts while the
    stream is ``behind`` by many records.
    """

    rank: Rank
    publish: Callable[[UserEvent], None]
    seconds: float
    behind: Callable[[], float] = lambda: 0.0
    probe_every: int = 15
    on_progress: Callable[[int, int], None] = lambda done, total: None
    result: ReplayResult = field(default_factory=ReplayResult)
    _shown: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _probes: list["asyncio.Task[None]"] = field(default_factory=list)
    _num_probing: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)
    _free_callers: asyncio.Semaphore = field(init=False)
    _keeps_up: asyncio.Event = field(init=False)
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
        total = sum(len(timeline.live) for timeline in timelines)
        self._free_callers = asyncio.Semaphore(_RANK_CALLERS)
        self._keeps_up = asyncio.Event()
        await self._look_at_stream()

        async def replay_user(visits: Sequence[Visit]) -> None:
            free_s = max(0.0, self.seconds - len(visits) * VISIT_MS / 1000)
            start = begin + rng.random() * free_s
            for visit in visits:
                await _sleep_until(start)
                start = await self._replay_visit(visit) + VISIT_MS / 1000
                self.on_progress(next(done), total)

        users = (replay_user(timeline.live) for timeline in timelines if timeline.live)
        watch = asyncio.create_task(self._watch_stream())
        both: set[asyncio.Future[Any]] = {watch, asyncio.gather(*users)}
        ended, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for each in ended:
            each.result()  # raises the error that ended it
        self.result.seconds = time.monotonic() - begin
        watch.cancel()
        await asyncio.gather(*self._probes)

    async def _watch_stream(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            await self._look_at_stream()

    async def _look_at_stream(self) -> None:
        """Let visits start if the stream is at most ``_MAX_BEHIND`` records behind."""
        if await asyncio.to_thread(self.behind) <= _MAX_BEHIND:
            self._keeps_up.set()
        else:
            self._keeps_up.clear()

    async def _replay_visit(self, visit: Visit) -> float:
        """Show a slate, then publish its events; return when its request began."""
        loop = asyncio.get_running_loop()
        async with self._free_callers:
            self.result.held_visits += not self._keeps_up.is_set()
            await self._keeps_up.wait()
            call = loop.run_in_executor(self._callers, self._rank_and_show, visit)
            started, ranking = await call
        if ranking is None:
            return started
        events = _events_after(visit, started)
        # A ranking without features does not change with a click.
        is_probed = next(self._shown) % self.probe_every == 0
        if visit.clicks and is_probed and ranking.feature_version:
            await self._publish_timed(visit, *next(events))
        for due, event in events:
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
        except Exception as error:  # counted and shown: the replay continues
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
                experiment=ranking.experiment,
                arm=ranking.arm,
            )
            self.publish(impression)
        return started, ranking

    async def _publish_timed(self, visit: Visit, due: float, click: UserEvent) -> None:
        """Read the user's scores, publish the click, and time until they have changed.

        The scores are read first, however long that takes: else they might be those after
        the click. Without a free caller the click is published untimed.
        """
        await _sleep_until(due - _PROBE_LEAD_S)
        probe = None
        if self._num_probing < _PROBE_CALLERS:
            probe = await self._begin_probe(visit)
        else:
            self.result.late_probes += 1
        await _sleep_until(due)
        published_at = time.monotonic()
        self.publish(click)
        if probe is not None:
            task = asyncio.create_task(self._end_probe(probe, published_at))
            self._probes.append(task)

    async def _begin_probe(self, visit: Visit) -> "_Probe | None":
        """Return the ranking before the click, and how to repeat it; None if it failed."""
        user, items = visit.impressions[0].user_id, [i.item_id for i in visit.impressions]

        def rank() -> SlateRanking:
            return self.rank(user, items, time.time_ns() // 1_000_000, "")

        self._num_probing += 1
        before = await self._call_probe(rank)
        if before is None:
            self._count_probe(None)
            return None
        return _Probe(before=before, rank=rank)

    async def _end_probe(self, probe: "_Probe", published_at: float) -> None:
        """Repeat the request until the click has changed sequence and scores; time it."""

        def wait() -> float | None:
            return wait_for_change(
                probe.rank, probe.before, published_at, self._ended, _PROBE_TIMEOUT_S
            )

        self._count_probe(await self._call_probe(wait))

    async def _call_probe(self, call: Callable[[], _T | None]) -> _T | None:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._probers, call)
        except Exception as error:
            self.result.failures.append(f"probe: {error}")
            return None

    def _count_probe(self, waited_s: float | None) -> None:
        """One that saw no change, or got no ranking, counts as the whole timeout."""
        self._num_probing -= 1
        self.result.unchanged_probes += waited_s is None
        self.result.freshness_s.append(_PROBE_TIMEOUT_S if waited_s is None else waited_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    """The ranking before a click, and the request that is repeated after it."""

    before: SlateRanking
    rank: Callable[[], SlateRanking]


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
