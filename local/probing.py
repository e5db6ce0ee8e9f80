"""Settings → the monitor's probe: who publishes for it, and whom it asks.

RankClient and Kafka's producer are imported when there is something to probe.
"""

import time
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry

from monitoring.probe import Answer, Probe
from monitoring.service import Probing
from settings import Settings
from streams.events import Behavior

_ACTION = "view"  # a behaviour: a click would move an item's counters


def probing(settings: Settings) -> Probing:
    """Return what makes a probe of the stack that ``settings`` name."""

    def make(items: Callable[[], Sequence[str]], registry: CollectorRegistry) -> Probe:
        from streams.publisher import EventPublisher
        from triton_repo.client import RankClient

        publisher = EventPublisher(settings.kafka)
        client = RankClient(settings.triton.grpc)

        def act(user: str, item: str) -> None:
            now_ms = time.time_ns() // 1_000_000
            behavior = Behavior(
                event_id=f"{user}-{now_ms}",
                user_id=user,
                item_id=item,
                action=_ACTION,
                occurred_at=now_ms,
            )
            publisher.publish(behavior)
            publisher.flush(5.0)

        def ask(user: str, asked: Sequence[str]) -> Answer:
            return client.rank(user, asked)

        return Probe(act, ask, items, registry)

    return make
