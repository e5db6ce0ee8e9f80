"""One form of log lines for every process: time, level, process, message, and ids.

A line names what it is about by ``extra={"request_id": …}``: any of ``IDS``, and the trace
that it belongs to. As text they follow the message, as JSON they are fields.
"""

import logging
import os
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from srp4ctr.errors import MistakeError

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
FORMAT_VARIABLE, LEVEL_VARIABLE = "SRP4CTR_LOGGING__FORMAT", "SRP4CTR_LOGGING__LEVEL"
EVERY_S = 10.0  # the same message of a library
_MOST_TEMPLATES = 1000
IDS = ("request_id", "event_id", "topic", "partition", "offset", "version", "trace_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """How processes log to standard error."""

    format: str = "text"
    """``text``, or ``json``: one object a line."""
    level: str = "info"
    """The least that is logged: ``debug``, ``info``, ``warning`` or ``error``."""

    def __post_init__(self) -> None:
        for name, known in (("format", FORMATS), ("level", LEVELS)):
            if (value := getattr(self, name)) not in known:
                message = f"logging.{name} is {value!r}; one of {', '.join(known)}"
                raise MistakeError(message)


def configure(process: str, config: LogConfig | None = None) -> None:
    """Log to standard error from now on, as ``process``; replaces what was configured.

    Without ``config`` the variables ``SRP4CTR_LOGGING__FORMAT`` and ``…__LEVEL`` decide:
    for processes that read no settings.
    """
    if config is None:
        default = LogConfig()
        config = LogConfig(
            format=os.environ.get(FORMAT_VARIABLE, default.format),
            level=os.environ.get(LEVEL_VARIABLE, default.level),
        )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter((_Json if config.format == "json" else _Text)(process))
    handler.addFilter(_is_no_close)
    handler.addFilter(_Seldom())
    level = logging.getLevelName(config.level.upper())
    # Libraries log each connection and each refresh: only their warnings are kept.
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    for name in ("srp4ctr", "faust", "mode"):
        logging.getLogger(name).setLevel(level)
    # It warns of each turn of its loop over 0.1 s: on a busy machine many.
    logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)


def _is_no_close(record: logging.LogRecord) -> bool:
    """Return False for what kafka-python logs as an error where its client was closed.

    It cancels a request, or reads once more from a socket that it no longer has.
    """
    causes = record.args if isinstance(record.args, tuple) else ()
    is_cancelled = any(type(cause).__name__ == "Cancelled" for cause in causes)
    # Also False, as `exc_info=False` leaves it, and not only None or a tuple.
    error = record.exc_info[0] if record.exc_info else None
    has_no_socket = error is AttributeError
    return not (
        (is_cancelled and record.name == "kafka.cluster")
        or (has_no_socket and record.name == "kafka.net.transport")
    )


class _Seldom(logging.Filter):
    """Lets a library's message pass every ten seconds, and says how often it came.

    While a broker is away, aiokafka logs the same hundreds of times a second. What has a
    trace always passes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info or record.name.partition(".")[0] == "srp4ctr":
            return True
        template = str(record.msg)
        passed_at, left_out = self._seen.get((record.name, template), (-EVERY_S, 0))
        if record.created - passed_at < EVERY_S:
            self._seen[record.name, template] = passed_at, left_out + 1
            return False
        if len(self._seen) >= _MOST_TEMPLATES:  # some are whole texts
            self._seen.clear()
        self._seen[record.name, template] = record.created, 0
        if left_out:
            record.msg = f"{template} (and {left_out} times before)"
        return True


class SeldomLog:
    """Logs what may come with each row: an error every ten seconds, and how many since."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._next_s, self._left_out = 0.0, 0

    def error(self, text: str) -> None:
        """Log ``text``, or count it where another one was logged just before."""
        if time.monotonic() < self._next_s:
            self._left_out += 1
            return
        more = f" (and {self._left_out} others before)" if self._left_out else ""
        self._next_s, self._left_out = time.monotonic() + EVERY_S, 0
        self._log.error("%s%s", text, more)


class _Text(logging.Formatter):
    """``2026-11-27T18:00:00.123Z INFO worker srp4ctr.streams…: message offset=12``."""

    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return _utc(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        ids = "".join(f" {name}={value}" for name, value in _ids(record).items())
        return super().formatMessage(record) + ids


class _Json(logging.Formatter):
    """``{"time": …, "level": …, "process": …, "logger": …, "message": …, "offset": 1}``."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _utc(record),
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            **_ids(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=repr).decode()


def _utc(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, tz=UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def _ids(record: logging.LogRecord) -> dict[str, Any]:
    found = {name: record.__dict__[name] for name in IDS if name in record.__dict__}
    if "trace_id" not in found and (trace_id := _current_trace()):
        found["trace_id"] = trace_id
    return found


def _current_trace() -> str:
    """Return the current span's trace in hexadecimal; "" without one."""
    if "opentelemetry.trace" not in sys.modules:
        return ""
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""
