"""Stores of states for tests, and short ways to ask them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langgraph_redis_state import RedisStatePersistence
from langgraph_redis_state.storage.keys import ThreadKeys

Make = Callable[..., RedisStatePersistence]


class Surface:
    """The sync or the async methods under one name: a test that awaits them covers both."""

    def __init__(self, store: RedisStatePersistence, is_async: bool) -> None:
        self.store, self.is_async = store, is_async

    def __getattr__(self, name: str) -> Any:
        if self.is_async:
            return getattr(self.store, f"a{name}")

        async def call(*args: Any, **options: Any) -> Any:
            return getattr(self.store, name)(*args, **options)

        return call


def numbers(store: RedisStatePersistence, state_id: str) -> list[int | str]:
    return [each.version for each in store.list_versions(state_id)]


def loaded(store: RedisStatePersistence, state_id: str, version: Any = None) -> Any:
    found = store.load_with_metadata(state_id, version)
    assert found is not None
    return found[0]


def thread(store: RedisStatePersistence, state_id: str) -> ThreadKeys:
    return ThreadKeys(store._engine.settings.prefix, state_id.encode())
