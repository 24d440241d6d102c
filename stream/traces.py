"""Spans of what a process does (OpenTelemetry), exported by OTLP where the usual OTEL_* variables are set.

    with traces.exported(settings.traces, service="tastewave-tracks"):
        with traces.processing(record), traces.stage("fetch"):
            ...

Elsewhere nothing of OpenTelemetry is imported, and the other blocks of this module do nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from stream.settings import TraceSettings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

_NOTHING: AbstractContextManager[None] = contextlib.nullcontext()
_END_TIMEOUT_S = 3.0  # the collector may be away, and a supervisor kills what ends late
_PROBES = ("/live", "/ready", "/metrics")  # asked again and again, by nobody who follows a trace
_MOST_LINKS = 128  # the SDK's own default, and it takes 10 us to read one
_TRACE_CONTEXT = ("traceparent", "tracestate")  # the headers of W3C Trace Context

_tracer: Tracer | None = None


class Record(Protocol):
    """What is read of a record of Kafka."""

    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...  # noqa: D102


@contextlib.contextmanager
def exported(settings: TraceSettings, *, service: str) -> Iterator[None]:
    """Export the spans of the block where the settings ask for it; at its end, those that are left.

    The SDK of OpenTelemetry reads further OTEL_* variables by itself: the address, headers, sampling, limits.

    Args:
        settings: whether to.
        service: service.name of the spans; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over it.
    """
    global _tracer  # noqa: PLW0603 - spans go to one place in a process, as metrics and logs do
    if not settings.exported:
        yield
        return
    from importlib.metadata import version

    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    of_this = version("tastewave")
    resource = Resource.create({"service.name": service, "service.version": of_this})
    provider = TracerProvider(resource=resource.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("tastewave", of_this)
    try:
        yield
    finally:
        _tracer = None
        ending = threading.Thread(target=provider.shutdown, daemon=True)
        ending.start()
        ending.join(_END_TIMEOUT_S)


def processing(record: Record) -> AbstractContextManager[object]:
    """A span of the work on a record of Kafka. Its parent is the span that the record's header traceparent names."""
    if _tracer is None:
        return _NOTHING
    from opentelemetry.trace import SpanKind

    told = _told("process", record.topic) | {
        "messaging.destination.partition.id": str(record.partition),
        "messaging.kafka.offset": record.offset,
    }
    return _span(f"process {record.topic}", _context(record.headers), kind=SpanKind.CONSUMER, attributes=told)


def processing_batch(records: Sequence[Record]) -> AbstractContextManager[object]:
    """A span of the work on many records, with links to the first 128 spans that their headers traceparent name."""
    if _tracer is None:
        return _NOTHING
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, get_current_span

    topic = records[0].topic
    told = _told("process", topic) | {"messaging.batch.message_count": len(records)}
    origins_told = dict.fromkeys(tuple(record.headers) for record in records if record.headers)  # each once
    contexts = [_context(headers) for headers in itertools.islice(origins_told, _MOST_LINKS)]
    origins = [get_current_span(context).get_span_context() for context in contexts]
    links = [Link(origin) for origin in origins if origin.is_valid]
    return _span(f"process {topic}", Context(), kind=SpanKind.CONSUMER, attributes=told, links=links)


def stage(name: str) -> AbstractContextManager[object]:
    """A span of a part of the work."""
    return _NOTHING if _tracer is None else _span(name)


@contextlib.contextmanager
def sending(topic: str) -> Iterator[list[tuple[str, bytes | None]]]:
    """A span of sending a record; gives the headers by which it is the parent of what is done with the record."""
    if _tracer is None:
        yield []
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    with _span(f"send {topic}", kind=SpanKind.PRODUCER, attributes=_told("send", topic)):
        headers = dict[str, str]()
        TraceContextTextMapPropagator().inject(headers)
        yield [(name, value.encode()) for name, value in headers.items()]


def answering(scope: Mapping[str, Any]) -> AbstractContextManager[dict[str, int]]:
    """A span of a request over HTTP; its parent is the span that the request's header traceparent names.

    It does not tell the path, which names users, but the route: `path_template` of the scope, when the block ends.

    Args:
        scope: ASGI's.

    Returns:
        The block's; it gives where the `status` of the answer is put.
    """
    return contextlib.nullcontext({}) if _tracer is None or scope["path"] in _PROBES else _answering(scope)


@contextlib.contextmanager
def _answering(scope: Mapping[str, Any]) -> Iterator[dict[str, int]]:
    from opentelemetry.trace import SpanKind

    answered = dict[str, int]()
    method = scope["method"]
    context = _context([(name.decode("latin-1"), value) for name, value in scope["headers"]])
    with _span(method, context, kind=SpanKind.SERVER, attributes={"http.request.method": method}) as span:
        try:
            yield answered
        finally:
            status = answered.get("status", 500)
            span.set_attribute("http.response.status_code", status)
            if route := scope.get("path_template"):
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
            if status >= 500:
                _note_error(span, str(status))


def failed(reason: str) -> None:
    """Note on the span of this work that it fails, and why."""
    if _tracer is not None:
        from opentelemetry.trace import get_current_span

        _note_error(get_current_span(), reason)


@contextlib.contextmanager
def _span(name: str, context: Context | None = None, **options: Any) -> Iterator[Span]:
    """A span that tells the kind of an error and not its text, which may hold what logs leave out."""
    if _tracer is None:
        raise TypeError("spans are made within `exported` alone")
    with _tracer.start_as_current_span(
        name, context, record_exception=False, set_status_on_exception=False, **options
    ) as span:
        try:
            yield span
        except BaseException as error:
            _note_error(span, type(error).__name__)
            raise


def _note_error(span: Span, kind: str) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)


def _told(operation: str, topic: str) -> dict[str, Any]:
    """Attributes by the semantic conventions of messaging."""
    return {
        "messaging.system": "kafka",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": topic,
    }


def _context(headers: Iterable[tuple[str, bytes | None]]) -> Context:
    """The context that these headers tell; an empty one where they tell none."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    texts = {name: value.decode("latin-1") for name, value in headers if name in _TRACE_CONTEXT and value}
    return TraceContextTextMapPropagator().extract(texts, Context())
