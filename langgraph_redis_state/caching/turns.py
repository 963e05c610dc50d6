"""Turns: who writes next to a thread, among the tasks and threads of a process. No waiting here.

Writers that must begin with what the one before left would else fail and repeat, each as often as others are faster. Turns
only save that: what is right is decided on the server. So whoever does not go on, since its event loop stands still or the
server does not answer it, may be passed over.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future
from typing import Any

from .bounded import Locked


class Turns(Locked):
    """A queue for each name. Whoever takes a turn gets a future, which is done when it is his turn, and must end it."""

    def __init__(self) -> None:
        super().__init__()
        self._queues: dict[bytes, deque[Future[None]]] = {}
        self._process = os.getpid()

    def take(self, name: bytes) -> Future[None]:
        mine: Future[None] = Future()
        with self.lock:
            if self._process != os.getpid():  # nobody else came along
                self._queues, self._process = {}, os.getpid()
            queue = self._queues.setdefault(name, deque())
            queue.append(mine)
            if queue[0] is mine:
                _begin(mine)
        return mine

    def first(self, name: bytes) -> Future[None] | None:
        """The turn of whoever writes now."""
        with self.lock:
            queue = self._queues.get(name)
            return queue[0] if queue else None

    def end(self, name: bytes, mine: Future[Any]) -> None:
        with self.lock:
            queue = self._queues.get(name)
            if not queue or mine not in queue:
                return
            first = queue[0] is mine
            queue.remove(mine)
            if not queue:
                del self._queues[name]
            elif first:
                _begin(queue[0])


def _begin(turn: Future[None]) -> None:
    if turn.set_running_or_notify_cancel():  # else whoever waited for it was cancelled, and ends it
        turn.set_result(None)
