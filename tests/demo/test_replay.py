"""The replay, with a ranker in memory instead of Triton."""

from collections.abc import Sequence
from dataclasses import dataclass, field

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


def two_slates() -> list[Timeline]:
    events: list[UserEvent] = []
    for n in range(2):
        at_ms, request = NOON_MS + n * 1000, f"r{n}"
        events += [
            an_impression("a", at_ms=at_ms, request_id=request),
            an_impression("b", at_ms=at_ms, request_id=request, position=1),
            a_click("a", at_ms=at_ms + 1, request_id=request),
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


def test_a_failed_request_is_counted_and_the_replay_goes_on() -> None:
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
