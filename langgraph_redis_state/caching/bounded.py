"""A lock and a map of bounded size in bytes, for the threads of a process and for its forked children. No I/O."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

K = TypeVar("K")

V = TypeVar("V")


class Locked:
    """Has a lock. A forked child gets a new one, since the thread that held the lock may not exist there."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        _all.add(self)


class BoundedCache(Locked, Generic[K, V]):
    """A map of at most `limit` bytes, where `size` gives the bytes of an entry.

    It keeps two generations instead of an exact LRU order, which would need a lock on each lookup. An entry that is found in
    the old generation moves to the young one. When the young one reaches half of the limit, it becomes the old one.
    """

    def __init__(self, limit: int, size: Callable[[K, V], int]) -> None:
        super().__init__()
        self.limit = limit
        self._size = size
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._bytes = 0

    def get(self, key: K) -> V | None:
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is not None:
                self.put(key, found)
        return found

    def get_all(self, keys: Sequence[K | None]) -> list[V | None]:
        """`get` of each key; None for a key that is None."""
        found: list[V | None] = list(map(cast(dict[K | None, V], self._young).get, keys))
        if None in found:
            found = [self.get(key) if each is None and key is not None else each for key, each in zip(keys, found, strict=True)]
        return found

    def take(self, key: K) -> V | None:
        """Removes an entry and returns it."""
        with self.lock:
            found = self._young.pop(key, None)
            if found is not None:
                self._bytes -= self._size(key, found)
            before = self._old.pop(key, None)
            return before if found is None else found

    def put(self, key: K, value: V) -> None:
        """Adds an entry. One that is larger than half of the limit is not kept."""
        size = self._size(key, value)
        if size > self.limit // 2:
            return
        with self.lock:
            before = self._young.get(key)
            added = size if before is None else size - self._size(key, before)
            if self._bytes + added > self.limit // 2:
                self._old, self._young, self._bytes, added = self._young, {}, 0, size
            self._bytes += added
            self._young[key] = value


_all: weakref.WeakSet[Locked] = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(_all):
        each.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
