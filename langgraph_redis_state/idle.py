"""The idle connections of a pool that waits: what redis-py's `BlockingConnectionPool` takes as `queue_class`. No I/O.

Python's own `LifoQueue` guards itself with a `Condition`, whose `__enter__` is Python code: when a signal handler raises there,
as the soft time limits of task queues do, its lock stays locked, and every later call waits for it, for ever and in spite of
its time-out. Here nothing is locked that a handler could leave locked: a list, whose steps are atomic, and a queue written in
C, which only wakes those that wait.

A handler that raises at the moment when a connection is handed over can still cost the pool this one connection. When all are
gone, calls fail after the pool's `timeout`, with `ServerUnavailableError`.
"""

from __future__ import annotations

import queue
import time
from typing import Any


class Idle:
    """Connections, the last returned first, and None for each that was never made."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.queue: list[Any] = []
        self._returned: queue.SimpleQueue[None] = queue.SimpleQueue()

    def put_nowait(self, connection: Any) -> None:
        if len(self.queue) >= self._most:
            raise queue.Full
        self.queue.append(connection)
        if self._returned.qsize() < self._most:  # enough to wake all that can wait with a reason
            self._returned.put(None)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return self.queue.pop()
            except IndexError:
                if not block or (until is not None and time.monotonic() >= until):
                    raise queue.Empty from None
            try:
                self._returned.get(timeout=None if until is None else max(until - time.monotonic(), 0))
            except queue.Empty:
                continue  # one more look
