"""Where the feature store is; filled by ``settings.py``."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from srp4ctr.errors import MistakeError
from srp4ctr.streams.config import check_address
from srp4ctr.streams.events.schema import MAX_ID_LENGTH, NUMBER_SUFFIXES

DEFAULT_BUCKETS = 16
MAX_NUMBERS = 8  # of candidates
MAX_WAIT_MS = 4000  # a background call's timeout is 5 s
_MS_PER_DAY = 86_400_000
AttributeKind = Literal["categorical", "multi", "numeric", "vector"]


def ttl_ms_of(days: float) -> int:
    """Return ``sequence_ttl_days`` as milliseconds, for serving and training alike."""
    return round(days * _MS_PER_DAY)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldConfig:
    """One attribute of items, or of users, that is an input of the model."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str
    """As in the attributes of ``item``, or ``user``, events."""
    kind: AttributeKind
    slots: int = 8
    """``multi``: of more known values only the commonest are kept. ``vector``, an
    embedding: the levels of its codes."""
    buckets: int = DEFAULT_BUCKETS
    """``numeric``: the edges are quantiles of the training window's items, or users.
    ``vector``: how many codes each level has."""

    def __post_init__(self) -> None:
        if self.slots < 1 or self.buckets < 2:
            raise MistakeError(
                f"the field {self.name} of features.item_fields or user_fields has "
                f"{self.slots} slots, {self.buckets} buckets; at least 1 and 2"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberConfig:
    """One number of a candidate in its request: a price, a distance, the caller's order."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str
    """As callers send it with a request, and as in ``numbers`` of impressions."""

    def __post_init__(self) -> None:
        is_taken = self.name.endswith(NUMBER_SUFFIXES)
        if is_taken or not 0 < len(self.name) <= MAX_ID_LENGTH:
            raise MistakeError(
                f"features.candidate_numbers has the name {self.name!r:.80}: 1 to "
                f"{MAX_ID_LENGTH} characters, and no {', '.join(NUMBER_SUFFIXES)} at its "
                "end, as the model's columns of a number are named"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureConfig:
    """Addresses of the online store and the registry, and limits of the features."""

    redis: str = "127.0.0.1:6379"
    """Feast's connection string of the online store: host:port, and maybe ``,db=2``; of a
    cluster some of its nodes, ``host:port,host:port``, which name the others."""
    redis_cluster: bool = False
    """The store is a Redis Cluster: a row lies on the node that has its key's slot."""
    redis_tls: bool = False
    redis_ca_file: str = ""
    """PEM certificates that the store's is signed with; empty: the system's."""
    redis_username: str = ""
    """An ACL user; empty: the store's default user."""
    redis_password_file: str = ""
    """The password is the file's content, less a last line break."""
    redis_password: str = field(default="", repr=False)
    """For the variable SRP4CTR_FEATURES__REDIS_PASSWORD, where there is no file."""
    redis_wait_replicas: int = 0
    """How many of the store's replicas must have a worker's rows before it commits their
    events in Kafka: of a cluster, those of each primary. 0 waits for none."""
    redis_wait_ms: int = 1000
    """How long a write waits for these replicas before it is tried again."""
    registry: str = ".data/registry.db"
    """A path (file registry) or an SQLAlchemy URL (SQL registry)."""
    registry_password_file: str = ""
    """Of the URL's user. The password is the file's content, less a last line break."""
    log_dir: str = ".data/events"
    """The folder of the raw event log, and of the reports of its checks."""
    log_uri: str = ""
    """Where the raw log is, the offline truth: Delta Lake tables in a folder, or in an
    object store (``s3://bucket/events``, whose endpoint, region and credentials are in the
    environment: AWS_ENDPOINT_URL, …). Empty: in ``log_dir``."""
    known_lost_records: int = 0
    """How many records Kafka is known to have dropped before they were in the log: the
    doctor reports more than these."""
    offline_engine: Literal["duckdb", "spark"] = "duckdb"
    """Computes training's features from the log: ``duckdb`` in this process, or ``spark``
    with its own session (the extra ``spark``)."""
    offline_memory_gb: float = 4.0
    """DuckDB's memory limit: a quarter of a gigabyte did for ten million events, more is
    faster. What does not fit spills to ``offline_temp_dir``."""
    offline_temp_dir: str = ""
    """The folder for what spills, some 440 bytes an event; empty: the system's."""
    partitions: int = 4
    """An item's counters are the sum of a share per partition of ``behavior-events``: as
    many as ``kafka.partitions``."""
    action_codes: dict[str, int] = field(default_factory=dict, hash=False)
    """``streams.action_codes``: readers of the log code actions as the worker does."""
    sequence_ttl_days: float = 90.0
    """Older behaviours expire, in serving and training; a user without others has the
    status ``stale_sequence``. Feast does not apply a view's ttl to online reads."""
    utc_offset_minutes: int = 0
    """How far users' clocks are ahead of UTC, where a request's context does not say
    ``utc_offset_minutes``. For training; a bundle's vocabulary carries it."""
    visit_gap_minutes: float = 30.0
    """A user's visit ends after so long without a behaviour: what the user did with an item
    in this visit and in earlier ones are columns of their own. For training; a bundle's
    vocabulary carries it."""
    item_fields: tuple[FieldConfig, ...] = ()
    """The item group of side information; empty: inferred from the items' attributes.
    For training; a bundle's vocabulary carries the resulting fields."""
    user_fields: tuple[FieldConfig, ...] = ()
    """The same of users: an input of the request's side; empty: inferred from ``user``
    events, and none without any."""
    candidate_numbers: tuple[NumberConfig, ...] = ()
    """Numbers of candidates that callers send with a request, at most 8. For training; a
    bundle's vocabulary carries them."""
    item_refresh_s: float = 1.0
    """How late a changed item may be in serving's table: it reads the store's stream of
    changes four times as often."""

    def __post_init__(self) -> None:
        parts = self.redis.split(",")
        for node in [each for each in parts if "=" not in each] or [""]:
            check_address("features.redis", node)
        for is_wrong, sentence in self._checks():
            if is_wrong:
                raise MistakeError(f"features.{sentence}")

    @property
    def raw_log(self) -> str:
        """Where the raw log is."""
        return self.log_uri.rstrip("/") or self.log_dir

    def _checks(self) -> Iterator[tuple[bool, str]]:
        """Yield whether a setting is wrong, and why."""
        parts, offset = self.redis.split(","), self.utc_offset_minutes
        yield (
            "password=" in self.redis,  # logs and errors contain the address
            "redis holds a password: put it in a file and its name in "
            "features.redis_password_file",
        )
        yield self.partitions < 1, f"partitions is {self.partitions}; at least 1"
        yield from self._declared()
        yield from self._stored()
        yield (days := self.sequence_ttl_days) <= 0, f"sequence_ttl_days is {days}; > 0"
        gap = self.visit_gap_minutes
        yield gap <= 0, f"visit_gap_minutes is {gap}: it must be above 0"
        yield self.item_refresh_s <= 0, f"item_refresh_s is {self.item_refresh_s}; > 0"
        memory_gb = self.offline_memory_gb
        yield memory_gb <= 0, f"offline_memory_gb is {memory_gb}; > 0"
        yield not -720 <= offset <= 840, f"utc_offset_minutes is {offset}; -720 to 840"
        yield (
            self.offline_engine not in ("duckdb", "spark"),
            f"offline_engine is {self.offline_engine!r}; duckdb or spark",
        )
        yield (
            not self.redis_cluster and sum("=" not in part for part in parts) > 1,
            f"redis names several nodes ({self.redis}), of which only the first would be "
            "read: set features.redis_cluster = true",
        )
        yield (
            self.redis_cluster and any(part.startswith("db=") for part in parts),
            "redis names a db: a Redis Cluster has but one; leave db= out",
        )
        yield (
            bool(self.registry_password_file) and "@" not in self.registry,
            "registry_password_file is set, but features.registry is no URL with a user: "
            "postgresql+psycopg://USER@HOST/DATABASE",
        )

    def _declared(self) -> Iterator[tuple[bool, str]]:
        """Yield the same of the tables of fields and numbers."""
        numbers = len(self.candidate_numbers)
        yield (
            numbers > MAX_NUMBERS,
            f"candidate_numbers has {numbers} numbers; at most {MAX_NUMBERS}",
        )
        for table in ("item_fields", "user_fields", "candidate_numbers"):
            names = [each.name for each in getattr(self, table)]
            yield len(set(names)) < len(names), f"{table} names a field twice"

    def _stored(self) -> Iterator[tuple[bool, str]]:
        """Yield the same of the store's certificates and replicas."""
        yield (
            bool(self.redis_ca_file) and not self.redis_tls,
            "redis_ca_file is set, but features.redis_tls is false: nothing would be "
            "encrypted",
        )
        replicas, wait_ms = self.redis_wait_replicas, self.redis_wait_ms
        yield replicas < 0, f"redis_wait_replicas is {replicas}: it must be at least 0"
        yield (
            not 0 < wait_ms <= MAX_WAIT_MS,
            f"redis_wait_ms is {wait_ms}: it must be 1 to {MAX_WAIT_MS}",
        )

    def portable(self) -> "FeatureConfig":
        """Return the settings for a server that runs in another folder: no password."""
        paths: dict[str, Any] = {
            field.name: str(Path(path).absolute())
            for field in fields(self)
            if field.name == "registry" or field.name.endswith("_file")
            if (path := getattr(self, field.name)) and "://" not in path
        }
        trained: dict[str, Any] = dict.fromkeys(
            ("item_fields", "user_fields", "candidate_numbers"), ()
        )
        return replace(self, **paths, redis_password="", **trained)

    def relocated(self, environment: Mapping[str, str]) -> "FeatureConfig":
        """Return the settings with the store's address in ``environment``."""
        where: dict[str, Any] = {}
        for setting in fields(self):
            text = environment.get(f"SRP4CTR_FEATURES__{setting.name.upper()}")
            if text is not None and setting.name.startswith(("redis", "registry")):
                is_on = text.lower() in ("1", "true", "yes", "on")
                where[setting.name] = is_on if setting.type is bool else text
        return replace(self, **where)
