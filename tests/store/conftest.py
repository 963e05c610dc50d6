"""Fixtures of the tests of the store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from keeping import Make, keys_of
from states import Surface

from langgraph_redis_state import RedisStore
from langgraph_redis_state.store import items


@pytest.fixture
def make(url: str, prefix: str) -> Iterator[Make]:
    """Makes stores on the test's own prefix."""
    made: list[RedisStore] = []

    def build(**options: Any) -> RedisStore:
        made.append(RedisStore(url, **{"prefix": prefix, **options}))
        return made[-1]

    yield build
    for each in made:
        each.close()


@pytest.fixture
def memories(make: Make) -> RedisStore:
    return make()


@pytest.fixture(params=["sync", "async"])
async def either(request: pytest.FixtureRequest, url: str, prefix: str) -> AsyncIterator[Any]:
    """A store whose methods are awaited, and are the sync or the async ones."""
    async with RedisStore(url, prefix=prefix, ttl={"default_ttl": None}) as opened:
        yield Surface(opened, request.param == "async")


@pytest.fixture
def expire(raw: Any, prefix: str) -> Callable[..., None]:
    """Lets an item have expired a second ago, or lets it have so many ms left."""

    def backdate(namespace: tuple[str, ...], key: str, left: int = -1000) -> None:
        seconds, micros = raw.time()
        moment = seconds * 1000 + micros // 1000 + left
        assert raw.zadd(keys_of(prefix, namespace)[2], {items.field_name(namespace, key): moment}, xx=True, ch=True) == 1

    return backdate
