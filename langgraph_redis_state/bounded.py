"""A map of bounded size in bytes that forgets what was not used lately; for threads, and across `fork`. No I/O."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

K = TypeVar("K")
V = TypeVar("V")


class Bounded(Generic[K, V]):
    """At most `limit` bytes, by what `size` says of an entry.

    Two generations stand in for an exact order of use, which would cost a lock on each lookup: what is found in the older
    one moves to the younger, and when the younger holds half of the limit, the older is forgotten.
    """

    def __init__(self, limit: int, size: Callable[[K, V], int]) -> None:
        self.limit = limit
        self._size = size
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._bytes = 0
        self._lock = threading.Lock()
        _maps.add(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()  # its holder may not exist in the child

    def get(self, key: K) -> V | None:
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is not None:
                self.put(key, found)
        return found

    def get_all(self, keys: Sequence[K | None]) -> list[V | None]:
        """`get` of each, of None None."""
        found: list[V | None] = list(map(cast(dict[K | None, V], self._young).get, keys))
        if None in found:
            found = [self.get(key) if each is None and key is not None else each for key, each in zip(keys, found, strict=True)]
        return found

    def put(self, key: K, value: V) -> None:
        """An entry larger than half of the limit is not kept."""
        size = self._size(key, value)
        if size > self.limit // 2:
            return
        with self._lock:
            if self._bytes + size > self.limit // 2:
                self._old, self._young, self._bytes = self._young, {}, 0
            if key not in self._young:
                self._bytes += size
            self._young[key] = value


_maps: weakref.WeakSet[Bounded[Any, Any]] = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(_maps):
        each.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
