"""Settings → the monitor's probe: who publishes for it, and whom it asks.

RankClient and Kafka's producer are imported when there is something to probe.
"""

import time
from collections.abc import Callable, Sequence
from functools import cache

from prometheus_client import CollectorRegistry

from srp4ctr.monitoring.probe import Answer, Probe
from srp4ctr.monitoring.service import Probing
from srp4ctr.settings import Settings
from srp4ctr.streams.events import Behavior

_ACTION = "view"  # a behaviour: a click would move an item's counters


def probing(settings: Settings) -> Probing:
    """Return what makes a probe of the stack that ``settings`` name.

    Making it raises ``ValueError`` where tritonclient is missing.
    """

    def make(items: Callable[[], Sequence[str]], registry: CollectorRegistry) -> Probe:
        from srp4ctr.streams.publisher import EventPublisher

        try:
            from srp4ctr.triton_repo.client import RankClient
        except ImportError as error:
            raise ValueError(
                f"monitoring.probe_interval_s asks Triton, and {error.name} is missing: "
                "pip install 'srp4ctr[serving]', or set it to 0"
            ) from error

        client = RankClient(settings.triton.grpc, tls=settings.triton.tls)

        @cache  # made by the first act: a broker that is away is a failed probe, no more
        def publisher() -> EventPublisher:
            return EventPublisher(settings.kafka)

        def act(user: str, item: str) -> None:
            publisher().publish(_view(user, item))
            publisher().flush(5.0)

        def ask(user: str, asked: Sequence[str]) -> Answer:
            return client.rank(user, asked)

        return Probe(act, ask, items, registry)

    return make


def _view(user: str, item: str) -> Behavior:
    now_ms = time.time_ns() // 1_000_000
    return Behavior(
        event_id=f"{user}-{now_ms}",
        user_id=user,
        item_id=item,
        action=_ACTION,
        occurred_at=now_ms,
    )
