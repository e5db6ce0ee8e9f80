"""Settings of the worker, the publisher and the HTTP intake; read by ``settings.py``."""

from dataclasses import dataclass, field
from pathlib import Path

from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.schema import check_action_codes
from srp4ctr.streams.state.sequences import EXPOSURE_LENGTH

SECURITY_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConfig:
    """Where the broker is, and how its topics are laid out."""

    bootstrap: str = "127.0.0.1:9092"
    """Comma-separated host:port list."""
    partitions: int = 4
    """Partitions of each topic that the project creates."""
    replication: int = 1
    security_protocol: str = "PLAINTEXT"
    ssl_ca_file: str = ""
    """PEM certificates that the brokers' are signed with; empty: the system's."""
    sasl_mechanism: str = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password_file: str = ""
    """The password is the file's content, less a last line break."""
    sasl_password: str = field(default="", repr=False)
    """For the variable SRP4CTR_KAFKA__SASL_PASSWORD, where there is no file."""

    def __post_init__(self) -> None:
        if self.partitions < 1:
            raise MistakeError(f"kafka.partitions is {self.partitions}; at least 1")
        for address in self.addresses:
            check_address("kafka.bootstrap", address)
        _one_of("kafka.security_protocol", self.security_protocol, SECURITY_PROTOCOLS)
        _one_of("kafka.sasl_mechanism", self.sasl_mechanism, SASL_MECHANISMS)
        has_password = bool(self.sasl_password or self.sasl_password_file)
        if self.has_sasl and not (self.sasl_username and has_password):
            raise MistakeError(
                f"kafka.security_protocol {self.security_protocol} needs "
                "kafka.sasl_username and kafka.sasl_password_file"
            )
        if self.sasl_username and not self.has_sasl:
            raise MistakeError(
                "kafka.sasl_username is set, but kafka.security_protocol is "
                f"{self.security_protocol}: SASL_SSL would use it"
            )
        if self.ssl_ca_file and not self.has_tls:
            raise MistakeError(
                "kafka.ssl_ca_file is set, but kafka.security_protocol is "
                f"{self.security_protocol}: nothing would be encrypted"
            )

    @property
    def addresses(self) -> list[str]:
        """The brokers of ``bootstrap``, each as host:port."""
        return [address.strip() for address in self.bootstrap.split(",")]

    @property
    def has_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.security_protocol in ("SSL", "SASL_SSL")

    @property
    def has_sasl(self) -> bool:
        """Whether clients authenticate."""
        return self.security_protocol.startswith("SASL_")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """How events become sequences, counters and labels."""

    group_id: str = "srp4ctr-sequences"
    log_group_id: str = "srp4ctr-event-log"
    sequence_length: int = 50
    """L: the last L behaviours of a user are kept."""
    exposure_length: int = EXPOSURE_LENGTH
    """The last impressions of a user that are kept, 16 bytes each."""
    label_window_s: float = 1800.0
    """How long an impression waits, in event time, for its click."""
    correction_window_s: float = 86_400.0
    """How long an impression is kept after its window for a late click's correction."""
    max_kept_impressions: int = 250_000
    """Impressions of a partition that wait for a late click: beyond them the oldest are
    dropped early. Impressions whose window is open are always kept."""
    cache_mb: int = 400
    """Memory of a worker for the rows of users and items that events came of last, over all
    its partitions: beyond it they are read from the store again."""
    flush_interval_ms: int = 100
    """How long dirty rows are coalesced before they are written to the store."""
    max_poll_records: int = 2000
    log_flush_records: int = 20_000
    log_flush_interval_s: float = 2.0
    """The raw log closes a file at these records or after these seconds."""
    log_retention_days: float = 0.0
    """Dates of the raw log older than that are removed; 0 keeps everything."""
    pseudonym_key_file: str = ""
    """Our own publisher and callers send pseudonyms of user ids, made with the key in it;
    empty: the ids themselves. Never change it: every user would be unknown."""
    action_codes: dict[str, int] = field(default_factory=dict, hash=False)
    """A code of its own, 32 to 63, for each of your actions; the others share 16 by hash.
    Never change or reuse a code: stored rows have it."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9101

    def __post_init__(self) -> None:
        check_action_codes(self.action_codes)
        if self.sequence_length < 1:
            raise MistakeError(f"streams.sequence_length is {self.sequence_length}; ≥ 1")
        if self.exposure_length < 1:
            raise MistakeError(f"streams.exposure_length is {self.exposure_length}; ≥ 1")
        if self.label_window_s <= 0 or self.correction_window_s < 0:
            raise MistakeError("streams.label_window_s must be > 0, corrections ≥ 0")
        if (days := self.log_retention_days) < 0:
            raise MistakeError(
                f"streams.log_retention_days is {days}; at least 0, which keeps everything"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeConfig:
    """The HTTP intake: address, tokens, TLS and limits."""

    host: str = "127.0.0.1"
    port: int = 8088
    token_file: str = ""
    """One token per line; any of them lets a producer in. Empty: ``intake_token`` in
    ``embedded.data_dir``, which is made where it is missing."""
    certificate_file: str = ""
    """PEM of the server's certificate; empty: HTTP without TLS."""
    key_file: str = ""
    max_body_bytes: int = 1024 * 1024
    max_events: int = 1000
    """Of one request."""
    max_requests: int = 64
    """That are in progress at once."""
    ack_timeout_s: float = 10.0
    """How long a request waits for Kafka's acknowledgement."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9104

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_events", "max_requests", "ack_timeout_s"):
            if (value := getattr(self, name)) < 1:
                raise MistakeError(f"intake.{name} is {value}; at least 1")
        if bool(self.certificate_file) != bool(self.key_file):
            raise MistakeError("intake.certificate_file and intake.key_file: both or none")


def check_address(setting: str, text: str) -> None:
    """Raise ``MistakeError`` unless ``text`` is HOST:PORT, with IPv6 in brackets."""
    host, _, port = text.rpartition(":")
    is_host = bool(host) and (host.startswith("[") or ":" not in host)
    if not (is_host and port.isdecimal() and int(port) < 1 << 16):
        shown = "a URL with a user" if "@" in text else repr(text)  # and a password
        raise MistakeError(f"{setting} has {shown}: write HOST:PORT")


def password_in(path: str, given: str, setting: str) -> str:
    """Return ``given``, or the password in the file ``path`` where nothing is given.

    Raises ``MistakeError`` with the name of ``setting``, never with what is in the file.
    """
    if given or not path:
        return given
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise MistakeError(f"{setting} {path} is not text in UTF-8") from None
    except OSError as error:
        raise MistakeError(f"{setting} {path}: {error.strerror}") from error


def _one_of(setting: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise MistakeError(f"{setting} is {value!r}; one of {', '.join(choices)}")
