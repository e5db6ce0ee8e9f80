"""The embedded stack's folders and choices."""

from dataclasses import dataclass
from typing import Literal

STACK_FILE = "stack.toml"  # in the data folder: the addresses of the running stack


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedConfig:
    """The embedded stack's folders, broker, store and ports."""

    data_dir: str = ".data"
    """All state of the embedded stack; ``stack.toml`` in it has the addresses of the
    running stack, for other commands."""
    serving_dir: str = ".serving"
    """The embedded tritonserver and its stubs' Python environment."""
    broker: Literal["noida", "kafka"] = "noida"
    store: Literal["single", "cluster"] = "single"
    """``cluster``: a Redis Cluster of three nodes, the minimum."""
    ports: Literal["well-known", "random"] = "well-known"
    """``well-known``: Kafka 9092, Triton 8001 and so on, where they are free. ``random``:
    free ports that no default names, for tests that run alongside each other."""
