"""Fixtures of the fast tests: one embedded server for the session, one prefix for each test."""

from __future__ import annotations

import gc
import os
import sys
import uuid
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest
import redis
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from shapes import SyncSurface

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.embedded import EmbeddedServer


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Three workers for two cores: a test often waits, for the server, a process or a time-out."""
    return max(2, (os.cpu_count() or 1) * 3 // 2)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported stays until the end, so no garbage collection looks at it, neither now nor when a test causes one."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """A private server, shared by all tests: never flushed, each test keeps to its own prefix."""
    with EmbeddedServer.start() as running:
        yield running


@pytest.fixture(scope="session")
def store(server: EmbeddedServer) -> str:
    """The prefix of threads in every state (storehouse.py). Nothing in it is changed."""
    from storehouse import fill

    prefix = f"t-{uuid.uuid4().hex[:12]}"
    with redis.Redis.from_url(server.url) as raw:
        fill(server.url, prefix, raw)
    return prefix


@pytest.fixture
def url(server: EmbeddedServer) -> str:
    return server.url


@pytest.fixture
def prefix() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def raw(url: str) -> Iterator[Any]:
    """A plain client, to look at what the saver keeps, and to damage it."""
    with redis.Redis.from_url(url) as client:
        yield client


@pytest.fixture
def saver(url: str, prefix: str) -> Iterator[RedisSaver]:
    """A saver for sync tests."""
    with RedisSaver(url, prefix=prefix) as opened:
        yield opened


@pytest.fixture
async def asaver(url: str, prefix: str) -> AsyncIterator[RedisSaver]:
    """A saver for async tests, on the same prefix as `saver`."""
    async with RedisSaver(url, prefix=prefix) as opened:
        yield opened


@pytest.fixture(params=["sync", "async"])
def either(request: pytest.FixtureRequest, saver: RedisSaver, asaver: RedisSaver) -> BaseCheckpointSaver[Any]:
    """A saver whose async methods are its own, or its sync ones: a test that awaits them covers both."""
    return asaver if request.param == "async" else SyncSurface(saver)


@pytest.fixture
def memory() -> InMemorySaver:
    """What LangGraph itself does, to compare with."""
    return InMemorySaver()


if os.environ.get("KEYED"):
    from keyed import give_keys, leave_out

    give_keys(names="names" in os.environ["KEYED"], fresh="fresh" in os.environ["KEYED"])

NEEDS_PYTHON_3_11 = (
    "several_interrupts_in_parallel_tasks-async",
    "test_a_graph_built_at_import_time_serves_two_event_loops",
    "test_a_graph_built_at_import_time_is_paused_sync_and_resumed_async_and_back",
    "test_a_graph_built_at_import_time_serves_many_threads_and_loops_at_once",
    "test_the_same_with_ainvoke_and_then_a_new_run",
    "test_an_interrupt_inside_a_subgraph_is_answered_after_pruning",
    "test_max_versions_one_runs_a_graph_and_resumes_it",
)
"""Graphs whose async nodes ask or interrupt, or pass their config to a subgraph."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("KEYED"):
        leave_out(items)
    if sys.version_info >= (3, 11):
        return
    # asyncio tasks take a context only since 3.11, so LangGraph knows no config in async nodes before, with any saver
    reason = "LangGraph: 'Called get_config outside of a runnable context' in async nodes before Python 3.11"
    for item in items:
        if any(name in item.nodeid for name in NEEDS_PYTHON_3_11):
            item.add_marker(pytest.mark.skip(reason=reason))
