"""Settings of serving: Triton's address, its live model repository and its limits."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar
from urllib.parse import urlsplit

from srp4ctr.errors import MistakeError
from srp4ctr.streams.config import check_address, password_in

# The protocols of Triton's gRPC that change a server; a client that only ranks needs none.
CONTROLS = "model-repository,model-config,shared-memory,trace,logging"
CONTROL_HEADER = "srp4ctr-control"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplorationConfig:
    """How the order of the items explores instead of best first: exploration.py."""

    kind: str = "none"
    """``none``, ``epsilon_greedy`` or ``plackett_luce``."""
    epsilon: float = 0.05
    """Of epsilon_greedy: the share of places that get a random item."""
    temperature: float = 0.25
    """Of plackett_luce: 0 would be best first; with 1 an item whose ranking score is higher
    by ln 2 is twice as likely to be first."""
    depth: int = 10
    """The number of places, from the top, that explore."""

    def __post_init__(self) -> None:
        if self.kind not in ("none", "epsilon_greedy", "plackett_luce"):
            raise MistakeError(
                f"triton.exploration.kind is {self.kind!r}; none, epsilon_greedy or "
                "plackett_luce"
            )
        if not 0.0 < self.epsilon <= 1.0 or self.temperature <= 0.0 or self.depth < 1:
            raise MistakeError(
                f"triton.exploration: epsilon is {self.epsilon}, in (0, 1]; temperature is "
                f"{self.temperature}, above 0; depth is {self.depth}, at least 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendConfig:
    """What ``recommend_items`` ranks: triton_repo/serving/retriever.py."""

    candidates: int = 200
    """Items of a request, of all sources together."""
    popular: float = 0.4
    """The share of what is popular now."""
    new: float = 0.05
    """The share of items that were added since the bundle was trained; the other candidates
    are those that pre-training expects next."""

    def __post_init__(self) -> None:
        shares = (self.popular, self.new)
        if self.candidates < 1 or min(shares) < 0.0 or sum(shares) > 1.0:
            raise MistakeError(
                f"triton.recommend: candidates is {self.candidates}, at least 1; popular "
                f"is {self.popular}, new is {self.new}, shares of at most 1 together"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedLogConfig:
    """The log of answered requests: features/bundles/request_log.py."""

    share: float = 0.0
    """The share that is logged of the requests with a ``request_id``."""
    folder: str = ".data/served"
    max_mb: float = 200.0
    """Beyond it the oldest are removed."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0 or self.max_mb <= 0.0:
            raise MistakeError(
                f"triton.served_log: share is {self.share}, 0 to 1; max_mb is "
                f"{self.max_mb}, above 0"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """How a client of Triton's gRPC port encrypts and authenticates."""

    enabled: bool = False
    ca_file: str = ""
    """PEM certificates that the server's is signed with; empty: the system's."""
    certificate_file: str = ""
    """The client's own, for a server that requires one (mutual TLS)."""
    key_file: str = ""

    def __post_init__(self) -> None:
        files = (self.ca_file, self.certificate_file, self.key_file)
        if any(files) and not self.enabled:
            raise MistakeError(
                "triton.tls names files, but triton.tls.enabled is false: nothing would "
                "be encrypted"
            )
        if bool(self.certificate_file) != bool(self.key_file):
            raise MistakeError(
                "triton.tls.certificate_file and triton.tls.key_file belong together"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaConfig:
    """A further server of the same bundles."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    grpc: str
    """Its own address, not that of a load balancer: promotion loads models by it."""
    repository: str
    """Its own live repository."""
    metrics_url: str = ""
    """Its metrics page, which the monitor reads; "": the path and port of
    ``triton.metrics_url`` on the host of ``grpc``."""

    def __post_init__(self) -> None:
        check_address("triton.replicas.grpc", self.grpc)


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonConfig:
    """Addresses and limits of serving."""

    grpc: str = "127.0.0.1:8001"
    metrics_url: str = "http://127.0.0.1:8002/metrics"
    repository: str = ".data/triton"
    """The live model repository: written at promotion, read by the server."""
    replicas: tuple[ReplicaConfig, ...] = ()
    """Further servers, which a promotion changes one after another: promotion.py."""
    tls: TlsConfig = field(default_factory=TlsConfig)
    control_key_file: str = ""
    """The file of the key that a client needs to load, unload or list models, without its
    last line break. No file: no key, or ``control_key``."""
    control_key: str = field(default="", repr=False)
    """For the variable SRP4CTR_TRITON__CONTROL_KEY, where there is no file."""
    max_candidates: int = 1000
    """A request with more items is refused with a clear error."""
    max_batch_size: int = 32
    """Requests (users) that one call may carry."""
    max_wait_ms: float = 1000.0
    """Calls are refused as UNAVAILABLE when they wait for longer: they would be late. A
    call may set less by its ``timeout``; ``RankClient`` sets half its deadline."""
    canary_share: float = 0.05
    """Share of the users, 0 to 1, that ``model promote --canary`` assigns to the canary,
    unless it has ``--share``. ``RankClient`` gets it from the server."""
    backend: str = "python"
    """``python``: one step on the CPU does all (embedded server); ``onnxruntime``: encoder
    and head are steps of Triton's own backend (NVIDIA's container, on a GPU)."""
    instances: int = 2
    """Processes of that one step, a request at a time each: as many as there are cores."""
    native: bool = True
    """A step in C answers ``rank_clicks``, for less CPU; what it does not know, the Python
    step. With ``backend = "python"``, without exploration, and with one Redis server;
    otherwise the Python step answers all."""
    kept_states_mb: float = 64.0
    """The size of each instance's cache of encoder states of recent histories: at L = 200
    one takes 0.22 MB. 0: no cache."""
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    served_log: ServedLogConfig = field(default_factory=ServedLogConfig)
    recommend: RecommendConfig = field(default_factory=RecommendConfig)
    max_wrong_features: float = 0.01
    """No bundle is promoted while a greater share of the feature store's sampled rows
    differs from the raw log: see ``features/consistency/check.py``."""
    max_latency_ratio: float = 1.5
    """No bundle is promoted whose golden requests take more than this ratio of the CPU time
    of the serving one's; of steps that do not measure it, of the time until the answer."""
    http_port: int = 0
    """0: HTTP off. The embedded server's HTTP front end can be crashed by its input."""

    def servers(self) -> tuple["TritonConfig", ...]:
        """Return the settings of each single server: this one's, then the replicas'."""
        single = replace(self, replicas=())
        return (
            single,
            *(
                replace(
                    single,
                    grpc=replica.grpc,
                    repository=replica.repository,
                    metrics_url=replica.metrics_url
                    or self._metrics_on_host_of(replica.grpc),
                )
                for replica in self.replicas
            ),
        )

    def metrics_pages(self) -> dict[str, str]:
        """Return the address of each server's metrics page by its ``grpc`` address.

        Raises ``MistakeError`` if two servers have one address or one page: the monitor
        would count one of them twice and the other never.
        """
        pages: dict[str, str] = {}
        for server in self.servers():
            if server.grpc in pages or server.metrics_url in pages.values():
                raise MistakeError(
                    f"triton.replicas: {server.grpc} with the metrics page "
                    f"{server.metrics_url} is listed twice: give each server its own grpc "
                    "and metrics_url"
                )
            pages[server.grpc] = server.metrics_url
        return pages

    def _metrics_on_host_of(self, grpc: str) -> str:
        """Return ``metrics_url`` with the host of the address ``grpc``."""
        page, host = urlsplit(self.metrics_url), grpc.rpartition(":")[0]
        port = f":{page.port}" if page.port else ""
        return page._replace(netloc=f"{host}{port}").geturl()

    def __post_init__(self) -> None:
        check_address("triton.grpc", self.grpc)
        repositories = [replica.repository for replica in self.replicas]
        if len({self.repository, *repositories}) <= len(repositories):
            raise MistakeError(
                "triton.replicas: two servers share a repository; each needs its own"
            )
        if self.backend not in ("python", "onnxruntime"):
            raise MistakeError(f"triton.backend is {self.backend!r}; python or onnxruntime")
        for name, value in self._needs_one_step():
            if self.backend != "python":
                raise MistakeError(
                    f"triton.{name} is {value!r}: that needs the one step of "
                    f"triton.backend 'python', which is {self.backend!r}"
                )
        if self.instances < 1 or self.kept_states_mb < 0.0:
            raise MistakeError(
                f"triton.instances is {self.instances}, at least 1; "
                f"triton.kept_states_mb is {self.kept_states_mb}, at least 0"
            )
        if self.max_wait_ms < 1.0 or not 0.0 <= self.canary_share <= 1.0:
            raise MistakeError(
                f"triton.max_wait_ms is {self.max_wait_ms}, at least 1; "
                f"triton.canary_share is {self.canary_share}, a share, 0 to 1"
            )
        if not 0.0 <= self.max_wrong_features <= 1.0:
            raise MistakeError(
                f"triton.max_wrong_features is {self.max_wrong_features}; a share, 0 to 1"
            )

    def _needs_one_step(self) -> Iterator[tuple[str, object]]:
        """Yield name and value of settings that Triton's own backends do not support."""
        if self.exploration.kind != "none":
            yield "exploration.kind", self.exploration.kind
        if self.served_log.share > 0.0:
            yield "served_log.share", self.served_log.share

    def known_control_key(self) -> str:
        """Return the control key; raises ``ValueError`` if its file cannot be read."""
        return password_in(
            self.control_key_file, self.control_key, "triton.control_key_file"
        )
