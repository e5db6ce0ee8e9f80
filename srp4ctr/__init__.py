"""srp4ctr: streams, features, training and serving of SRP4CTR for click-through rates.

What an application imports: ``RankClient`` requests scores, ``EventPublisher`` publishes
events, and the event types are what it publishes; both raise ``MistakeError`` and
``OutageError``. Each is loaded when it is first named, so that a publisher needs no Triton
client, and a caller no Kafka client.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srp4ctr.client.messages import Ranking, RankRequest
    from srp4ctr.client.rank_client import RankClient
    from srp4ctr.errors import MistakeError, OutageError
    from srp4ctr.streams.broker.producer import EventPublisher
    from srp4ctr.streams.config import KafkaConfig
    from srp4ctr.streams.events.pseudonymization import read_pseudonyms
    from srp4ctr.streams.events.schema import (
        Behavior,
        Click,
        Event,
        Forget,
        Impression,
        ItemUpdate,
        UserUpdate,
        item_key,
    )
    from srp4ctr.triton_repo.config import TlsConfig

_HOMES = {
    "Behavior": "streams.events.schema",
    "Click": "streams.events.schema",
    "Event": "streams.events.schema",
    "EventPublisher": "streams.broker.producer",
    "Forget": "streams.events.schema",
    "Impression": "streams.events.schema",
    "ItemUpdate": "streams.events.schema",
    "KafkaConfig": "streams.config",
    "MistakeError": "errors",
    "OutageError": "errors",
    "RankClient": "client.rank_client",
    "RankRequest": "client.messages",
    "Ranking": "client.messages",
    "TlsConfig": "triton_repo.config",
    "UserUpdate": "streams.events.schema",
    "item_key": "streams.events.schema",
    "read_pseudonyms": "streams.events.pseudonymization",
}

__all__ = [
    "Behavior",
    "Click",
    "Event",
    "EventPublisher",
    "Forget",
    "Impression",
    "ItemUpdate",
    "KafkaConfig",
    "MistakeError",
    "OutageError",
    "RankClient",
    "RankRequest",
    "Ranking",
    "TlsConfig",
    "UserUpdate",
    "item_key",
    "read_pseudonyms",
]


def __getattr__(name: str) -> Any:
    """Return a public name from the module where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    try:
        return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    except ModuleNotFoundError as error:
        extra = "client" if home.startswith(("client", "triton_repo")) else "streams"
        missing = (error.name or "").partition(".")[0]
        raise ImportError(
            f"{name} needs {missing}: pip install 'srp4ctr[{extra}]'"
        ) from error


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
