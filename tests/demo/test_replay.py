"""The replay, with a ranker in memory instead of Triton."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event

import pytest

from srp4ctr.demo.replay import Replay
from srp4ctr.demo.sessions import Timeline, timelines
from srp4ctr.streams.events.schema import Click, Impression, UserEvent
from tests.builders import NOON_MS, a_click, an_impression


@dataclass(frozen=True)
class FixedRanking:
    scores: tuple[float, ...]
    feature_version: str
    model_version: str = "v1"
    experiment: str | None = None
    arm: str | None = None

    @property
    def positions(self) -> tuple[int, ...]:
        return tuple(reversed(range(len(self.scores))))  # later items are better

    @property
    def propensities(self) -> tuple[float, ...]:
        return (1.0,) * len(self.scores)


@dataclass
class World:
    """Ranks later items higher; the sequence's version is the number of clicks seen."""

    events: list[UserEvent] = field(default_factory=list)
    has_sequences: bool = True
    request_ids: list[str] = field(default_factory=list)
    """The request_id of each call; "" of a probe."""

    def rank(
        self, user_id: str, item_ids: Sequence[str], now_ms: int, request_id: str
    ) -> FixedRanking:
        self.request_ids.append(request_id)
        clicks = sum(isinstance(event, Click) for event in self.events)
        scores = tuple((place + 1) / (10.0 + clicks) for place in range(len(item_ids)))
        moves = len(self.events)
        version = f"activity={moves}@{moves},items={moves}"
        if self.has_sequences:
            version = f"user={clicks}@{clicks},{version}"
        return FixedRanking(scores, feature_version=version)


def two_slates(user_id: str = "u1") -> list[Timeline]:
    events: list[UserEvent] = []
    for n in range(2):
        at_ms, request = NOON_MS + n * 1000, f"r{n}"
        events += [
            an_impression("a", user_id=user_id, at_ms=at_ms, request_id=request),
            an_impression(
                "b", user_id=user_id, at_ms=at_ms, request_id=request, position=1
            ),
            a_click("a", user_id=user_id, at_ms=at_ms + 1, request_id=request),
        ]
    return timelines(events, 0.5)


def test_a_slate_is_shown_in_the_models_order_and_its_clicks_follow() -> None:
    world = World()
    replay = Replay(rank=world.rank, publish=world.events.append, seconds=0, probe_every=1)
    result = replay.run(two_slates())
    shown = [event for event in world.events if isinstance(event, Impression)]
    assert [(i.item_id, i.position) for i in shown] == [("b", 0), ("a", 1)]
    assert all(i.model_version == "v1" and i.score is not None for i in shown)
    (click,) = (event for event in world.events if isinstance(event, Click))
    assert 500 < click.occurred_at - shown[0].occurred_at < 3_000
    assert result.slates[0].clicked == {"a"}
    assert set(world.request_ids) == {shown[0].request_id, ""}  # what is logged, and probes
    assert not result.failures


def test_a_probe_times_the_click_until_the_scores_have_changed() -> None:
    world = World()
    replay = Replay(rank=world.rank, publish=world.events.append, seconds=0, probe_every=1)
    result = replay.run(two_slates())
    assert len(result.freshness_s) == 1
    assert result.unchanged_probes == 0


def test_a_probe_is_not_taken_in_by_counters_that_move(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("srp4ctr.demo.replay._PROBE_TIMEOUT_S", 0.2)
    world = World(has_sequences=False)
    replay = Replay(rank=world.rank, publish=world.events.append, seconds=0, probe_every=1)
    assert replay.run(two_slates()).unchanged_probes == 1


def test_a_failed_request_is_counted_and_the_replay_continues() -> None:
    def refuse(
        user_id: str, item_ids: Sequence[str], now_ms: int, request_id: str
    ) -> FixedRanking:
        raise ConnectionError("nobody there")

    events: list[UserEvent] = []
    result = Replay(rank=refuse, publish=events.append, seconds=0).run(two_slates())
    assert result.failures == ["nobody there"]
    assert events == []


def test_an_event_that_cannot_be_published_ends_the_replay() -> None:
    def refuse(event: UserEvent) -> None:
        raise RuntimeError("the broker is gone")

    replay = Replay(rank=World().rank, publish=refuse, seconds=0)
    with pytest.raises(RuntimeError, match="the broker is gone"):
        replay.run(two_slates())


def test_a_probe_that_sees_no_change_counts_with_the_time_that_it_waited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("srp4ctr.demo.replay._PROBE_TIMEOUT_S", 0.2)
    world, unmoved = World(), World()
    replay = Replay(
        rank=unmoved.rank, publish=world.events.append, seconds=0, probe_every=1
    )
    result = replay.run(two_slates())
    assert (result.unchanged_probes, result.freshness_s) == (1, [0.2])


@dataclass
class Loaded:
    """A system under load: what is between a click and its probe comes after the click."""

    clicked: set[str] = field(default_factory=set)
    has_click: Event = field(default_factory=Event)
    changes: bool = True
    ranked_before_click: list[bool] = field(default_factory=list)

    def publish(self, event: UserEvent) -> None:
        if isinstance(event, Click):
            self.clicked.add(event.user_id)
            self.has_click.set()

    def rank(
        self, user_id: str, item_ids: Sequence[str], now_ms: int, request_id: str
    ) -> FixedRanking:
        if not request_id and not self.ranked_before_click:
            self.has_click.wait(0.5)  # a busy machine: the click overtakes this request
            self.ranked_before_click.append(user_id not in self.clicked)
        seen = self.changes and user_id in self.clicked
        scores = tuple((place + 1 + seen) / 10.0 for place in range(len(item_ids)))
        return FixedRanking(scores, feature_version=f"user={int(seen)}@0,items=0")


def test_the_scores_before_a_click_are_read_before_it_is_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("srp4ctr.demo.replay._PROBE_TIMEOUT_S", 1.0)
    system = Loaded()
    replay = Replay(rank=system.rank, publish=system.publish, seconds=0, probe_every=1)
    result = replay.run(two_slates())
    assert system.ranked_before_click == [True]
    assert (result.unchanged_probes, len(result.freshness_s)) == (0, 1)


def test_a_click_without_a_free_probe_is_counted_and_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("srp4ctr.demo.replay._PROBE_TIMEOUT_S", 0.5)
    monkeypatch.setattr("srp4ctr.demo.replay._PROBE_CALLERS", 1)
    system = Loaded(changes=False)  # the first probe waits to its end
    replay = Replay(rank=system.rank, publish=system.publish, seconds=0, probe_every=1)
    result = replay.run([*two_slates("u1"), *two_slates("u2")])
    assert (result.late_probes, result.unchanged_probes) == (1, 1)
    assert len(result.freshness_s) == 1
    assert system.clicked == {"u1", "u2"}


def test_visits_wait_while_the_stream_is_behind() -> None:
    world, lags = World(), [10_000.0, 10_000.0, 3.0]

    def behind() -> float:
        shown = any(isinstance(event, Impression) for event in world.events)
        assert len(lags) == 1 or not shown
        return lags.pop(0) if len(lags) > 1 else lags[0]

    replay = Replay(
        rank=world.rank, publish=world.events.append, seconds=0.5, behind=behind
    )
    result = replay.run(two_slates())
    assert (len(result.slates), result.held_visits) == (1, 1)


def test_a_stream_that_has_ended_ends_the_replay() -> None:
    def behind() -> float:
        raise RuntimeError("the worker has ended")

    world = World()
    replay = Replay(rank=world.rank, publish=world.events.append, seconds=0, behind=behind)
    with pytest.raises(RuntimeError, match="the worker has ended"):
        replay.run(two_slates())
