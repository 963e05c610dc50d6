"""Fixtures of the tests of connections."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel

from langgraph_redis_state.client.connection import Connection


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    opened = Connection(url)
    yield opened
    opened.close()


@pytest.fixture
def no_cluster_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync cluster client asks the server when it is made; here it does not."""
    monkeypatch.setattr(redis.cluster.NodesManager, "initialize", lambda self, *args, **kwargs: None)
    monkeypatch.setattr(redis.cluster, "CommandsParser", lambda client: None)
