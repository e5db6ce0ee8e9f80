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
    """``python`` runs the ONNX files in shells (embedded server); ``onnxruntime`` uses
    Triton's own backend (NVIDIA's container)."""
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
        if not 0.0 <= self.max_wrong_features <= 1.0:
            raise ValueError(
                f"triton.max_wrong_features is {self.max_wrong_features}; a share, 0 to 1"
            )
