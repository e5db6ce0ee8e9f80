import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry

from srp4ctr.monitoring.collector import probe
from srp4ctr.monitoring.collector.probe import USERS, Probe
from srp4ctr.streams.events.schema import SYNTHETIC_USERS


@dataclass(frozen=True)
class Ranked:
    scores: tuple[float, ...]
    feature_version: str


@dataclass
class Service:
    """Ranks as the real path does: the sequence changes some requests after an event."""

    delay: int = 2
    moves_scores: bool = True
    published: list[tuple[str, str]] = field(default_factory=list)
    requests: int = 0
    fails_at: int = -1

    def publish(self, user: str, item: str) -> None:
        self.published.append((user, item))
        self.requests = 0

    def rank(self, user: str, items: Sequence[str]) -> Ranked:
        self.requests += 1
        if self.requests == self.fails_at:
            raise ConnectionError("no server")
        is_new = bool(self.published) and self.requests > self.delay
        moved = len(self.published) if is_new and self.moves_scores else 0
        # Items' counters change all the time, which is no effect of the behaviour.
        scores = tuple(0.1 + moved / 100 + self.requests / 1e6 for _ in items)
        version = f"user={is_new * len(self.published)}@1,items={self.requests}"
        return Ranked(scores, version)


def a_probe(
    service: Service, items: Sequence[str] = ("a", "b", "c")
) -> tuple[Probe, CollectorRegistry]:
    registry = CollectorRegistry()
    return Probe(service.publish, service.rank, lambda: items, registry), registry


def failures(registry: CollectorRegistry, reason: str) -> float | None:
    return registry.get_sample_value("srp4ctr_probe_failures_total", {"reason": reason})


def test_the_time_ends_when_the_history_and_the_scores_have_changed() -> None:
    service = Service(delay=3)
    probe_, registry = a_probe(service)
    assert probe_.once() is not None
    assert service.requests == 4
    assert registry.get_sample_value("srp4ctr_probe_seconds_count") == 1.0
    age = registry.get_sample_value("srp4ctr_probe_age_seconds")
    assert age is not None
    assert age < 1.0


def test_users_are_synthetic_and_rotate() -> None:
    service = Service()
    probe_, _ = a_probe(service)
    for _ in range(USERS + 1):
        probe_.once()
    users = [user for user, _ in service.published]
    assert all(user.startswith(SYNTHETIC_USERS) for user in users)
    assert (len(set(users)), users[0]) == (USERS, users[-1])


def test_other_scores_of_the_same_history_do_not_end_the_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.2)
    probe_, registry = a_probe(Service(delay=10_000))
    assert probe_.once() is None
    assert failures(registry, "unchanged") == 1.0
    assert registry.get_sample_value("srp4ctr_probe_seconds_count") == 0.0


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_ranking_failure_is_counted(fails_at: int) -> None:
    probe_, registry = a_probe(Service(fails_at=fails_at))
    assert probe_.once() is None
    assert failures(registry, "rank") == 1.0


def test_a_publishing_failure_is_counted() -> None:
    def publish(user: str, item: str) -> None:
        raise ConnectionError("no broker")

    registry = CollectorRegistry()
    assert Probe(publish, Service().rank, lambda: ["a", "b"], registry).once() is None
    assert failures(registry, "publish") == 1.0
    assert failures(registry, "rank") == 0.0


def test_a_bug_is_no_failed_probe() -> None:
    def publish(user: str, item: str) -> None:
        raise TypeError("a mistake of ours")

    probe_ = Probe(publish, Service().rank, lambda: ["a", "b"], CollectorRegistry())
    with pytest.raises(TypeError, match="of ours"):
        probe_.once()


def test_without_items_nothing_is_requested() -> None:
    service = Service()
    probe_, _ = a_probe(service, items=["a"])
    assert probe_.once() is None
    assert service.requests == 0


def test_it_runs_until_it_is_stopped() -> None:
    service, stop = Service(), threading.Event()
    probe_, _ = a_probe(service)
    thread = threading.Thread(target=probe_.run, args=(0.01, stop))
    thread.start()
    while len(service.published) < 2:
        stop.wait(0.01)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
