"""Spans, metrics and the debug log: what each verb did, without ids and values."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from shapes import at, checkpoint, metadata

from langgraph_redis_state import (
    AgentCheckpointer,
    RedisSaver,
    RedisStatePersistence,
    ServerUnavailableError,
    ThreadNotFoundError,
)

SECRET = "jane@example.org"
"""In every id and value below."""


def put(saver: RedisSaver, config: Any, values: dict[str, Any]) -> Any:
    made = checkpoint(values)
    return saver.put(config, made, metadata(user=SECRET), made["channel_versions"])


@pytest.fixture(scope="session")
def exporter() -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):  # a page of the docs that ran in this process may have set it, for good
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


@pytest.fixture(scope="session")
def reader() -> InMemoryMetricReader:
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    return reader


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[Callable[[], dict[str, ReadableSpan]]]:
    exporter.clear()
    yield lambda: {span.name: span for span in exporter.get_finished_spans()}
    exporter.clear()


def points(reader: InMemoryMetricReader, name: str) -> list[Any]:
    data = reader.get_metrics_data()
    found = [
        metric.data.data_points
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
    ]
    return [point for each in found for point in each]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_each_verb_is_a_span_with_its_own_name_and_nothing_personal(
    url: str, prefix: str, spans: Callable[[], dict[str, ReadableSpan]]
) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=["user"]) as saver:
        config = put(saver, at(SECRET), {"text": SECRET})
        second = put(saver, put(saver, config, {"text": SECRET * 2}), {"text": SECRET})
        saver.put_writes(second, [("text", SECRET)], SECRET)
        verbs: dict[str, Callable[[], object]] = {
            "get_tuple": lambda: saver.get_tuple(config),
            "get_delta_channel_history": lambda: saver.get_delta_channel_history(config=second, channels=["text"]),
            "list": lambda: list(saver.list(at(SECRET))),
            "history": lambda: list(saver.history(SECRET)),
            "list_threads": lambda: list(saver.list_threads()),
            "find_threads": lambda: list(saver.find_threads(user=SECRET)),
            "tag": lambda: saver.tag(SECRET, SECRET),
            "tags": lambda: saver.tags(SECRET),
            "untag": lambda: saver.untag(SECRET, SECRET),
            "diff": lambda: saver.diff(SECRET, -2, -1),
            "stats": lambda: saver.stats(SECRET),
            "set_ttl": lambda: saver.set_ttl(SECRET, 100),
            "persist": lambda: saver.persist(SECRET),
            "apply_ttl": saver.apply_ttl,
            "copy_thread": lambda: saver.copy_thread(SECRET, f"{SECRET}2"),
            "rekey": lambda: saver.rekey([SECRET]),
            "verify": lambda: list(saver.verify(SECRET)),
            "repair": lambda: list(saver.repair(SECRET)),
            "rollback": lambda: saver.rollback(SECRET, -1),
            "prune": lambda: saver.prune([SECRET]),
            "delete_for_runs": lambda: saver.delete_for_runs([SECRET]),
            "delete_thread": lambda: saver.delete_thread(SECRET),
            "ping": saver.ping,
        }
        for call in verbs.values():
            call()
    assert spans().keys() == {*verbs, "put", "put_writes"}
    for span in spans().values():
        assert span.kind is SpanKind.CLIENT
        assert span.status.status_code is StatusCode.UNSET
        assert attributes(span)["db.system.name"] == "redis"
        assert attributes(span)["db.operation.name"] == span.name
        assert {"lgrs.round_trips", "lgrs.bytes_sent", "lgrs.bytes_received"} <= attributes(span).keys()
        assert SECRET not in span.to_json()


def test_verbs_of_the_state_apis_are_spans(url: str, spans: Callable[[], dict[str, ReadableSpan]], prefix: str) -> None:
    with RedisStatePersistence(url, namespace=prefix) as states:
        states.save_with_metadata({"a": 1}, "s")
        states.load_with_metadata("s")
        states.delete_state("s")
    with AgentCheckpointer(url, namespace=prefix) as agents:
        agents.save_state("t", {"todos": []})
        assert agents.list_threads() == ["t"]
        agents.delete_thread("t")
    assert {"save", "load", "delete_state", "list_threads"} <= spans().keys()


def test_a_put_tells_what_it_sent_and_what_was_there(saver: RedisSaver, spans: Callable[[], dict[str, ReadableSpan]]) -> None:
    config = put(saver, at("t"), {"text": "a" * 5_000, "other": "b" * 5_000})
    first = attributes(spans()["put"])
    put(saver, config, {"text": "a" * 5_000, "other": "c" * 5_000})
    second = attributes(spans()["put"])
    assert (first["lgrs.parts_sent"], first["lgrs.parts_shared"]) == (2, 0)
    assert (second["lgrs.parts_sent"], second["lgrs.parts_shared"]) == (1, 1)
    assert second["lgrs.bytes_sent"] > 0
    assert second["lgrs.bytes_received"] > 0
    saver.get_tuple(at("t"))
    assert attributes(spans()["get_tuple"])["lgrs.parts_cached"] == 2


async def test_a_verb_is_the_parent_of_what_it_sends_and_the_child_of_who_calls(
    asaver: RedisSaver, spans: Callable[[], dict[str, ReadableSpan]], monkeypatch: pytest.MonkeyPatch
) -> None:
    await asaver.aping()
    client = asaver._connection.async_client()
    sent = client.evalsha

    async def traced(*args: Any) -> Any:
        with trace.get_tracer("client").start_as_current_span("EVALSHA"):
            return await sent(*args)

    monkeypatch.setattr(client, "evalsha", traced)
    with trace.get_tracer("application").start_as_current_span("turn") as turn:
        await asyncio.gather(asaver.aget_tuple(at("t")), asaver.aget_tuple(at("u")))
        assert trace.get_current_span() is turn
    verb, command, turned = spans()["get_tuple"], spans()["EVALSHA"], spans()["turn"]
    assert command.parent is not None
    assert verb.parent is not None
    assert verb.parent.span_id == turned.context.span_id
    assert command.context.trace_id == turned.context.trace_id
    assert command.parent.span_id != turned.context.span_id


def test_an_error_is_told_by_its_type_alone(
    spans: Callable[[], dict[str, ReadableSpan]], reader: InMemoryMetricReader, tmp_path: Any
) -> None:
    with RedisSaver(f"unix://{tmp_path}/none", redis_options={"retry": None}) as saver:
        with pytest.raises(ServerUnavailableError):
            saver.get_tuple(at(SECRET))
    span = spans()["get_tuple"]
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)["error.type"] == "ServerUnavailableError"
    assert attributes(span)["server.address"] == f"{tmp_path}/none"
    assert SECRET not in span.to_json()
    assert [
        point.value for point in points(reader, "lgrs.errors") if point.attributes["server.address"] == f"{tmp_path}/none"
    ] == [1]


async def test_a_cancelled_verb_ends_its_span(
    asaver: RedisSaver, spans: Callable[[], dict[str, ReadableSpan]], monkeypatch: pytest.MonkeyPatch
) -> None:
    await asaver.aping()
    asked = asyncio.Event()

    async def never(*args: Any) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(asaver._connection.async_client(), "evalsha", never)
    task = asyncio.ensure_future(asaver.aget_tuple(at("t")))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert attributes(spans()["get_tuple"])["error.type"] == "cancelled"


def test_durations_and_parts_are_measured(saver: RedisSaver, reader: InMemoryMetricReader) -> None:
    put(saver, at("t"), {"text": "a" * 5_000})
    durations = [
        point for point in points(reader, "db.client.operation.duration") if point.attributes["db.operation.name"] == "put"
    ]
    assert sum(point.count for point in durations) >= 1
    assert all(0 < point.sum < 60 for point in durations)
    assert {point.attributes["lgrs.part.origin"] for point in points(reader, "lgrs.parts")} >= {"sent"}


def test_the_debug_log_has_a_line_for_each_verb(saver: RedisSaver, caplog: pytest.LogCaptureFixture) -> None:
    saver.ping()
    with caplog.at_level(logging.DEBUG, logger="langgraph_redis_state"):
        config = put(saver, at("t"), {"text": "a" * 5_000})
        saver.get_tuple(config)
        with pytest.raises(ThreadNotFoundError):
            saver.copy_thread("absent", "t2")
    lines = [record.getMessage() for record in caplog.records if record.name == "langgraph_redis_state"]
    assert len(lines) == 3
    assert re.match(r"put \(put: thread 't'.*\): [\d.]+ ms, 2 round trips, \d+ bytes sent, .* 1 parts sent$", lines[0])
    assert "thread 't'" in lines[1]
    assert lines[2].endswith(", ThreadNotFoundError")
    assert SECRET not in caplog.text


def test_it_is_off_where_nobody_asks(url: str, prefix: str) -> None:
    """In a process of its own, without a tracer provider: the operation goes to the driver as it is."""
    code = """
import sys
from langgraph_redis_state import RedisSaver
from langgraph_redis_state.client.telemetry import watched
from langgraph_redis_state.operations.engine import ping
with RedisSaver(sys.argv[1], prefix=sys.argv[2]) as saver:
    saver.ping()
    operation = ping(saver._engine)
    assert watched(operation, "ping", "") is operation
"""
    subprocess.run([sys.executable, "-c", code, url, prefix], check=True)
