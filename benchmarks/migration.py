"""`python -m benchmarks.migration [threads]`: how fast threads migrate, and their bytes before and after. Prints a table.

The threads are chats of 10 turns. Sources are savers that need no server of their own. Before: the serialized bytes that the
source keeps (InMemorySaver), or the size of its file (SqliteSaver). After: the bytes of all fields that are stored.
"""

from __future__ import annotations

import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.embedded import EmbeddedServer
from langgraph_redis_state.migrate import migrate


def fill(saver: Any, threads: int) -> None:
    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [("ai", f"{len(state['messages'])}: " + "a sentence of some words. " * 8)]}

    graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile(checkpointer=saver)
    for n in range(threads):
        for turn in range(10):
            graph.invoke({"messages": [("user", f"question {turn} of {n}")]}, {"configurable": {"thread_id": f"thread {n}"}})


def in_memory(saver: InMemorySaver) -> int:
    blobs = [blob for _, blob in saver.blobs.values()]
    kept = [stored for spaces in saver.storage.values() for each in spaces.values() for stored in each.values()]
    blobs += [part for checkpoint, metadata, _ in kept for part in (checkpoint[1], metadata[1])]
    blobs += [value[1] for writes in saver.writes.values() for _, _, value, _ in writes.values()]
    return sum(map(len, blobs))


def main(threads: int = 100) -> None:
    print("| source | threads | checkpoints | threads/s | threads/s, verified | bytes before | bytes after |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with EmbeddedServer.start() as server:
        memory = InMemorySaver()
        fill(memory, threads)
        _row("InMemorySaver", memory, in_memory(memory), server.url)
        from langgraph.checkpoint.sqlite import SqliteSaver

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "checkpoints.sqlite")
            with SqliteSaver.from_conn_string(str(path)) as sqlite:
                fill(sqlite, threads)
                sqlite.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                _row("SqliteSaver", sqlite, path.stat().st_size, server.url)


def _row(name: str, source: Any, before: int, url: str) -> None:
    rates = []
    for verify in (False, True):
        with RedisSaver(url, prefix=f"m-{uuid.uuid4().hex[:8]}") as target:
            report = migrate(source, target, verify=verify)
            assert report.ok, report
            rates.append(report.threads / report.seconds)
            after = target.stats().stored_bytes
    cells = (name, report.threads, report.checkpoints, f"{rates[0]:.0f}", f"{rates[1]:.0f}", f"{before:,}", f"{after:,}")
    print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
