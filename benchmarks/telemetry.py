"""What telemetry costs: `python -m benchmarks.telemetry` prints a put with it off, with the debug log, and with spans.

The three take turns in one process, so that whatever else the machine does disturbs them alike.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from statistics import median

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from langgraph_redis_state import EmbeddedServer, RedisSaver
from langgraph_redis_state.client import driver, telemetry

from .measure import quiet
from .workloads import Thread, chat

ROUNDS, CALLS = 60, 10


def main() -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    telemetry._tracer = lambda: provider.get_tracer("benchmark")  # type: ignore[assignment]
    logger = logging.getLogger("langgraph_redis_state")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    tracing = telemetry._tracing

    def removed() -> None:
        driver.watched = lambda operation, verb, where: operation  # type: ignore[assignment]

    def off() -> None:
        driver.watched = telemetry.watched
        telemetry._tracing = tracing
        logger.setLevel(logging.WARNING)

    def log() -> None:
        logger.setLevel(logging.DEBUG)

    def spans() -> None:
        logger.setLevel(logging.WARNING)
        telemetry._tracing = lambda: True

    modes: dict[str, Callable[[], None]] = {"taken out of the code": removed, "off": off, "debug log": log, "spans": spans}
    samples: dict[str, list[float]] = {name: [] for name in modes}
    with EmbeddedServer.start() as server, RedisSaver(server.url) as saver:
        thread = Thread(saver, "telemetry")
        *before, last = chat(10)
        thread.play(iter(before))
        quiet()
        for _ in range(ROUNDS):
            for name, turn_on in modes.items():
                turn_on()
                for _ in range(CALLS):
                    call = thread.call(last)
                    began = time.perf_counter()
                    saver.put(*call.put)
                    samples[name].append(time.perf_counter() - began)
    base = median(samples["taken out of the code"])
    print("| telemetry | put of a chat of 10, µs | ratio |\n| --- | --- | --- |")
    for name, taken in samples.items():
        print(f"| {name} | {median(taken) * 1e6:.0f} | {median(taken) / base:.3f} |")


if __name__ == "__main__":
    main()
