"""Fixtures of the fast tests: one embedded server for the session, one prefix for each test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from shapes import SyncSurface

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.embedded import EmbeddedServer


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """A private server, shared by all tests: never flushed, each test keeps to its own prefix."""
    with EmbeddedServer.start() as running:
        yield running


@pytest.fixture
def url(server: EmbeddedServer) -> str:
    return server.url


@pytest.fixture
def prefix() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


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
