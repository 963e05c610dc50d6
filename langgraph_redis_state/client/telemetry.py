"""What each verb did, for OpenTelemetry and for the debug log. While both are off it costs one look-up a verb.

A verb is an operation, so it is watched in one place: `watched` passes its effects on and counts. OpenTelemetry is on when the
application has set a tracer provider; each verb is then a span of kind CLIENT, the parent of the spans of an instrumented Redis
client, and is counted in the metrics below. The debug log has one line a verb. Names of attributes are
those of OpenTelemetry's conventions for databases (https://opentelemetry.io/docs/specs/semconv/database/) where it has them,
else they begin with ``lgrs.``. Spans and metrics hold no ids and no values; the log names thread and checkpoint.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ..effects import Await, Call, Calls, Compute, Note, Operation, Read, Scan, Stream

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Histogram
    from opentelemetry.trace import Span, Tracer

T = TypeVar("T")

logger = logging.getLogger("langgraph_redis_state")

PACKAGE = "langgraph-redis-state"


def named(operation: Operation[Any] | Stream) -> str:
    """The name of the function that made an operation."""
    return getattr(operation, "__name__", "")


def watched(operation: Operation[T], verb: str, where: str) -> Operation[T]:
    """The operation, watched if anybody wants to know. `verb`: its name; `where`: the server, as in error messages."""
    if not _tracing() and not logger.isEnabledFor(logging.DEBUG):
        return operation
    return _watched(operation, verb, where)


def _watched(operation: Operation[T], verb: str, where: str) -> Operation[T]:
    watch, error = Watch(verb), ""
    with _span(verb, where) as span:
        began = time.perf_counter()
        try:
            with closing(operation):  # at once, when it is given up: it may hold a turn that others wait for
                return (yield from watch.passing(operation))
        except BaseException as caught:
            error = "cancelled" if isinstance(caught, GeneratorExit) else type(caught).__name__
            raise
        finally:
            seconds = time.perf_counter() - began
            logger.debug("%s (%s): %.2f ms, %s%s", verb, watch.about, seconds * 1000, watch, f", {error}" if error else "")
            if span is not None:
                _tell(span, watch, where, error, seconds)


class Watch:
    """Counts what passes between an operation and its driver."""

    def __init__(self, verb: str) -> None:
        self.verb, self.about = verb, ""
        self.counts = {"round_trips": 0, "bytes_sent": 0, "bytes_received": 0}

    def __str__(self) -> str:
        return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in self.counts.items() if count)

    def passing(self, operation: Operation[T]) -> Operation[T]:
        reply: Any = None
        error: Exception | None = None
        while True:
            try:
                effect = operation.send(reply) if error is None else operation.throw(error)
            except StopIteration as stop:
                result: T = stop.value
                return result
            reply = error = None
            if isinstance(effect, Note):
                for name, count in effect.counts().items():
                    self.counts[name] = self.counts.get(name, 0) + count
                continue
            if not isinstance(effect, Compute | Await):
                self._sent(effect)
            try:
                reply = yield effect
            except Exception as caught:  # noqa: BLE001 - thrown into the operation, never dropped
                error = caught
                continue
            if not isinstance(effect, Compute | Await):
                self.counts["bytes_received"] += _size(reply)

    def _sent(self, effect: Call | Calls | Read | Scan) -> None:
        if not self.about and not (isinstance(effect, Call) and effect.script.name == "first_look"):
            self.about = effect.about
        self.counts["round_trips"] += 1
        if isinstance(effect, Call | Calls):
            calls = effect.calls if isinstance(effect, Calls) else [effect]
            self.counts["bytes_sent"] += sum(len(each) for call in calls for each in call.arguments)
        elif isinstance(effect, Read):
            self.counts["bytes_sent"] += sum(_size(command) for command in effect.commands)


def _size(reply: object) -> int:
    """Bytes of a request or reply, without the protocol's own."""
    if isinstance(reply, bytes | str):
        return len(reply)
    if isinstance(reply, Mapping):
        return sum(_size(name) + _size(content) for name, content in reply.items())
    return sum(map(_size, reply)) if isinstance(reply, list | tuple) else 0


# --- OpenTelemetry ---


def _tracing() -> bool:
    """Whether there is a tracer provider; nobody can have set one who did not import the API."""
    api = sys.modules.get("opentelemetry.trace")
    return api is not None and not isinstance(api.get_tracer_provider(), api.ProxyTracerProvider)


@cache
def _tracer() -> Tracer:
    from opentelemetry import trace

    return trace.get_tracer(PACKAGE, version(PACKAGE))


@cache
def _instruments() -> tuple[Histogram, Counter, Counter]:
    from opentelemetry import metrics

    meter = metrics.get_meter(PACKAGE, version(PACKAGE))
    return (
        meter.create_histogram("db.client.operation.duration", "s", "Duration of a verb"),
        meter.create_counter("lgrs.errors", "{error}", "Verbs that raised, by error.type"),
        meter.create_counter("lgrs.parts", "{part}", "Chunks and pages, by lgrs.part.origin: sent, shared, cached"),
    )


@cache
def _server(where: str) -> Mapping[str, str | int]:
    """What the URL says of the server."""
    at = urlsplit(where)
    found: dict[str, str | int] = {"db.system.name": "redis"}
    if at.scheme.endswith("unix"):
        found["server.address"] = at.path
    elif at.scheme and at.hostname and "," not in at.netloc:
        found |= {"server.address": at.hostname} | ({"server.port": at.port} if at.port else {})
    return found


@contextmanager
def _span(verb: str, where: str) -> Iterator[Span | None]:
    if not _tracing():
        yield None
        return
    from opentelemetry.trace import SpanKind

    with _tracer().start_as_current_span(
        verb,
        kind=SpanKind.CLIENT,
        attributes={**_server(where), "db.operation.name": verb},
        record_exception=False,  # messages name threads
        set_status_on_exception=False,
    ) as span:
        yield span


def _tell(span: Span, watch: Watch, where: str, error: str, seconds: float) -> None:
    from opentelemetry.trace import StatusCode

    kind = {"error.type": error} if error else {}
    attributes = {**_server(where), "db.operation.name": watch.verb, **kind}
    duration, errors, parts = _instruments()
    duration.record(seconds, attributes)
    if error:
        errors.add(1, attributes)
        span.set_attributes(kind)
        span.set_status(StatusCode.ERROR)
    span.set_attributes({f"lgrs.{name}": count for name, count in watch.counts.items()})
    for name in ("sent", "shared", "cached"):
        if count := watch.counts.get(f"parts_{name}"):
            parts.add(count, {"db.operation.name": watch.verb, "lgrs.part.origin": name})
