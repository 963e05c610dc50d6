"""Fixtures of the tests of states."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from states import Make, Surface

from langgraph_redis_state import RedisStatePersistence


@pytest.fixture
def namespace() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def make(url: str, namespace: str) -> Iterator[Make]:
    """Makes stores on the test's own namespace."""
    made: list[RedisStatePersistence] = []

    def build(**options: Any) -> RedisStatePersistence:
        made.append(RedisStatePersistence(url, **{"namespace": namespace, **options}))
        return made[-1]

    yield build
    for each in made:
        each.close()


@pytest.fixture
def states(make: Make) -> RedisStatePersistence:
    return make()


@pytest.fixture(params=["sync", "async"])
async def either(request: pytest.FixtureRequest, url: str, namespace: str) -> Any:
    async with RedisStatePersistence(url, namespace=namespace) as store:
        yield Surface(store, request.param == "async")
