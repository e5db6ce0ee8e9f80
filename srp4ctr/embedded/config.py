"""The embedded stack's folders and choices."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalConfig:
    """Where the embedded stack keeps everything, and which broker it starts."""

    data_dir: str = ".data"
    """All state of the embedded stack; ``stack.toml`` in it tells other commands where
    the running stack listens."""
    serving_dir: str = ".serving"
    """The embedded tritonserver and its stubs' own Python environment."""
    broker: Literal["noida", "kafka"] = "noida"
    audit_log: str = ""
    """Where promotions, rollbacks, … are written down; empty: ``audit.jsonl`` beside
    ``features.log_dir``."""
    actor: str = ""
    """Who is written down there; empty: the login and its machine."""
    store: Literal["single", "cluster"] = "single"
    """``cluster``: three nodes of a Redis Cluster, as many as it takes."""
    ports: Literal["well-known", "random"] = "well-known"
    """``well-known``: Kafka 9092, Triton 8001 and so on, where they are free. ``random``:
    free ports that no default names, as tests want that run alongside each other."""
