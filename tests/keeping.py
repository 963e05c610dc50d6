"""What the tests of the store share: how stores are made, and the keys of a bucket."""

from __future__ import annotations

from collections.abc import Callable

from langgraph_redis_state import RedisStore
from langgraph_redis_state.store import items

Make = Callable[..., RedisStore]


def keys_of(prefix: str, namespace: tuple[str, ...]) -> tuple[bytes, ...]:
    """The keys of the items, their order, their expiry and their vectors, of the bucket that a namespace is in."""
    return items.bucket_keys(prefix, items.bucket_of(namespace))
