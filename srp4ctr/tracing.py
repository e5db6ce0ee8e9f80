"""Spans of OpenTelemetry: what one event or one request spent its time on.

Off unless ``tracing.endpoint`` is set, or the host application has a tracer provider of its
own. W3C's ``traceparent`` carries a trace from process to process: in a header of Kafka's
record, and in a parameter of Triton's request.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

from srp4ctr.errors import MistakeError

try:  # of the extra ``tracing``; Feast brings the interface, too
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    trace = None  # type: ignore[assignment]  # no interface, no spans

HEADER = "traceparent"
"""The Kafka header and the parameter of Triton's request."""
ENDPOINT_VARIABLE, SAMPLE_VARIABLE = "SRP4CTR_TRACING__ENDPOINT", "SRP4CTR_TRACING__SAMPLE"
# The spans whose parts ``part`` adds to: those of the requests that are being answered.
_answering: ContextVar[Sequence[Any]] = ContextVar("answering", default=())
_NOTHING = nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingConfig:
    """Where spans go."""

    endpoint: str = ""
    """OTLP over HTTP, as ``http://127.0.0.1:4318``; empty: no tracing."""
    sample: float = 0.01
    """The share of events and requests that are traced, 0 to 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.sample <= 1:
            raise MistakeError(f"tracing.sample is {self.sample}; a share, from 0 to 1")


def start(process: str, config: TracingConfig | None = None) -> None:
    """Export this process' spans, as service ``srp4ctr-<process>``, if tracing is on.

    Without ``config`` the variables ``SRP4CTR_TRACING__ENDPOINT`` and ``…__SAMPLE``
    decide. Raises ``MistakeError`` where the extra ``tracing`` is not installed.
    """
    if config is None:
        default = TracingConfig()
        config = TracingConfig(
            endpoint=os.environ.get(ENDPOINT_VARIABLE, default.endpoint),
            sample=float(os.environ.get(SAMPLE_VARIABLE, default.sample)),
        )
    if not config.endpoint or is_on():
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        needed = f"tracing.endpoint is set, and {error.name} is not installed"
        raise MistakeError(f"{needed}: pip install 'srp4ctr[tracing]'") from error
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(config.sample)),
        resource=Resource.create({"service.name": f"srp4ctr-{process}"}),
    )
    exporter = OTLPSpanExporter(f"{config.endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    trace.set_tracer_provider(provider)


def is_on() -> bool:
    """Return whether this process, or the application that it is part of, records spans."""
    if trace is None:
        return False
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def span(name: str, **attributes: Any) -> AbstractContextManager[Any]:
    """Return a block that is a span below the current one; nothing with tracing off."""
    if not is_on():
        return nullcontext()
    as_current_span = _tracer().start_as_current_span(name, attributes=attributes)
    return cast(AbstractContextManager[Any], as_current_span)


def traceparent() -> str:
    """Return the current span's ``traceparent``; "" if it is not recorded."""
    if trace is None or not trace.get_current_span().is_recording():
        return ""
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(HEADER, "")


def record(
    parent: str | Any, name: str, began_ns: int, ended_ns: int, **attributes: Any
) -> Any:
    """Record a span that is over, from and until UTC nanoseconds; return it.

    ``parent`` is a ``traceparent`` or a span; None is returned where tracing is off, and
    for a ``traceparent`` that is not sampled.
    """
    if not is_on() or not parent:
        return None
    if isinstance(parent, str):
        if not _is_sampled(parent):
            return None
        context = TraceContextTextMapPropagator().extract({HEADER: parent})
    else:
        context = trace.set_span_in_context(parent)
    span = _tracer().start_span(
        name, context=context, start_time=began_ns, attributes=attributes
    )
    span.end(ended_ns)
    return span


def answering(
    parents: Sequence[str], name: str, **attributes: Any
) -> AbstractContextManager[None]:
    """Return a block that is span ``name`` of each ``traceparent`` that is sampled.

    ``part`` adds to all of them: requests that are answered together share their parts.
    """
    sampled = list(filter(_is_sampled, filter(None, parents)))
    return _answered(sampled, name, attributes) if sampled and is_on() else _NOTHING


@contextmanager
def _answered(
    sampled: Sequence[str], name: str, attributes: Mapping[str, Any]
) -> Iterator[None]:
    with ExitStack() as ending:
        spans = []
        for parent in sampled:
            context = TraceContextTextMapPropagator().extract({HEADER: parent})
            span = _tracer().start_span(name, context=context, attributes=attributes)
            ending.callback(span.end)
            spans.append(span)
        token = _answering.set(spans)
        ending.callback(_answering.reset, token)
        yield


def part(name: str) -> AbstractContextManager[None]:
    """Return a block that is span ``name`` below those of ``answering``, if any."""
    spans = _answering.get()
    return _part(name, spans) if spans else _NOTHING


@contextmanager
def _part(name: str, spans: Sequence[Any]) -> Iterator[None]:
    began_ns = time.time_ns()
    try:
        yield
    finally:
        for parent in spans:
            record(parent, name, began_ns, time.time_ns())


def from_parameters(parameters: str | Mapping[str, Any]) -> str:
    """Return the ``traceparent`` in a Triton request's parameters, JSON; "" without."""
    if not parameters or HEADER not in parameters:
        return ""
    import json

    given = json.loads(parameters) if isinstance(parameters, str) else parameters
    return str(given.get(HEADER, ""))


def _is_sampled(parent: str) -> bool:
    """Return whether the last field, two hexadecimal digits of flags, has W3C's bit 1."""
    try:
        return bool(int(parent[-2:], 16) & 1)
    except ValueError:
        return False


def _tracer() -> Any:
    return trace.get_tracer("srp4ctr")
