"""Where Triton is, and where its live model repository is rendered."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonConfig:
    """Addresses and limits of serving."""

    grpc: str = "127.0.0.1:8001"
    metrics_url: str = "http://127.0.0.1:8002/metrics"
    repository: str = ".data/triton"
    """The live repository: rendered at promotion, read by the server."""
    max_candidates: int = 1000
    """A request with more items is refused with a clear error."""
    max_batch_size: int = 32
    """Requests (users) that one call may carry."""
    backend: str = "python"
    """``python``: one step on the CPU does all (embedded server); ``onnxruntime``: encoder
    and head are steps of Triton's own backend (NVIDIA's container, on a GPU)."""
    instances: int = 2
    """Processes of that one step, a request at a time each: as many as there are cores."""
    kept_states_mb: float = 64.0
    """How much of the states of recent histories each instance keeps, to encode none twice:
    an L of 200 takes 0.27 MB. 0: nothing is kept."""
    max_wrong_features: float = 0.01
    """No bundle is promoted while a greater share of the feature store's sampled rows
    differs from the raw log: see ``features/check.py``."""
    max_latency_ratio: float = 1.5
    """No bundle is promoted whose golden requests take longer than so many times those of
    the one that serves, and a millisecond longer."""
    http_port: int = 0
    """0: HTTP off. The embedded server's HTTP front end can be crashed by its input."""

    def __post_init__(self) -> None:
        if self.backend not in ("python", "onnxruntime"):
            raise ValueError(f"triton.backend is {self.backend!r}; python or onnxruntime")
        if self.instances < 1 or self.kept_states_mb < 0.0:
            raise ValueError(
                f"triton.instances is {self.instances}, at least 1; "
                f"triton.kept_states_mb is {self.kept_states_mb}, at least 0"
            )
        if not 0.0 <= self.max_wrong_features <= 1.0:
            raise ValueError(
                f"triton.max_wrong_features is {self.max_wrong_features}; a share, 0 to 1"
            )
