"""The queue of idle connections in a pool that waits: the `queue_class` of redis-py's `BlockingConnectionPool`. No I/O.

Python's `LifoQueue` uses a `Condition`, whose `__enter__` is Python code. If a signal handler raises there, as the soft time
limits of task queues do, the lock stays locked, and every later call waits forever, in spite of its timeout. This queue has no
such lock: it is a list, whose operations are atomic, and a queue written in C that wakes the waiting threads.

If a handler raises while a connection is handed over, the pool can still lose this connection. If all are lost, calls fail with
`ServerUnavailableError` after the pool's `timeout`.
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
        if self._returned.qsize() < self._most:  # enough to wake every thread for which there is a connection
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
