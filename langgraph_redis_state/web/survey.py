"""What all threads wait for, kept from look to look: a thread is read again when it was written to, or when time decides."""

from __future__ import annotations

import threading
from datetime import datetime

from .. import RedisSaver, ThreadInfo
from ..inspection.diagnosis import ALIVE_SECONDS
from ..inspection.looking import THREADS_AT_ONCE, ThreadRow, of_head, server_now

URGENCY = {"failed": 0, "died": 1, "unreadable": 2, "asks": 3, "running": 4, "done": 5}


class Survey:
    """Thread-safe: requests come beside each other."""

    def __init__(self, saver: RedisSaver) -> None:
        self._saver = saver
        self._rows: dict[str, ThreadRow] = {}
        self._lock = threading.Lock()

    def look(self, most: int | None = None) -> tuple[list[ThreadRow], int, datetime]:
        """Threads, the most urgent first, among the `most` last active ones; how many there are; the server's clock."""
        now = server_now(self._saver)
        infos = list(self._saver.list_threads(limit=None if most is None else most + 1))
        total = len(infos)
        infos = infos[:most]
        with self._lock:
            stale = [info for info in infos if not self._holds(info)]
            for at in range(0, len(stale), THREADS_AT_ONCE):
                batch = stale[at : at + THREADS_AT_ONCE]
                heads = {head.thread_id: head for head in self._saver.heads([info.thread_id for info in batch])}
                for info in batch:
                    head = heads.get(info.thread_id)
                    self._rows[info.thread_id] = ThreadRow(info, head, of_head(head, now, ALIVE_SECONDS))
            rows = [self._rows[info.thread_id] for info in infos]
            if most is None:
                self._rows = {row.info.thread_id: row for row in rows}
        return sorted(rows, key=_urgency), total, now

    def _holds(self, info: ThreadInfo) -> bool:
        known = self._rows.get(info.thread_id)
        return known is not None and known.info == info and known.found.status != "running"


def _urgency(row: ThreadRow) -> tuple[int, float]:
    since = row.found.since or row.info.last_activity
    return URGENCY[row.found.status], -since.timestamp() if row.found.status in ("done", "running") else since.timestamp()
