"""What a history costs: in Redis as the server counts it, and in `InMemorySaver` as its own dictionaries hold it.

In Redis: the sum of `MEMORY USAGE <key> SAMPLES 0` over the two keys of the thread, that is, with everything the server
spends on them. In memory: the lengths of the serialized checkpoints, metadata, channel values and writes alone. What
Python spends on dictionaries, keys and objects around them is left out, in favour of `InMemorySaver`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import StateSnapshot

from langgraph_redis_state import RedisSaver


@dataclass(frozen=True)
class Count:
    """How many checkpoints a thread has: of the graph itself, and of the calls of its subgraphs."""

    root: int
    subgraphs: int
    writes: int

    @property
    def checkpoints(self) -> int:
        return self.root + self.subgraphs


def count(saver: BaseCheckpointSaver[Any], config: RunnableConfig) -> Count:
    root = subgraphs = writes = 0
    for found in saver.list(config):
        if found.config["configurable"]["checkpoint_ns"]:
            subgraphs += 1
        else:
            root += 1
        writes += len(found.pending_writes or ())
    return Count(root, subgraphs, writes)


def thread_keys(saver: RedisSaver, thread: str) -> list[str]:
    """The keys that hold a thread, as the server lists them."""
    found = (key.decode() for key in saver.client.scan_iter(match=f"*:{thread}", count=1000))
    return sorted(key for key in found if key.split(":")[-2] in ("t", "i"))


def bytes_in_redis(saver: RedisSaver, keys: Iterable[str]) -> int:
    return sum(saver.client.memory_usage(key, samples=0) or 0 for key in keys)


def bytes_in_memory(saver: InMemorySaver) -> int:
    checkpoints = sum(
        len(checkpoint) + len(metadata)
        for namespaces in saver.storage.values()
        for versions in namespaces.values()
        for (_, checkpoint), (_, metadata), _ in versions.values()
    )
    values = sum(len(value) for _, value in saver.blobs.values())
    writes = sum(len(value) for batch in saver.writes.values() for _, _, (_, value), _ in batch.values())
    return checkpoints + values + writes


def comparable(history: list[StateSnapshot]) -> list[dict[str, Any]]:
    """A history without what is drawn at random or from the clock: ids become positions, messages lose theirs."""
    position = {snapshot.config["configurable"]["checkpoint_id"]: place for place, snapshot in enumerate(history)}

    def plain(value: Any) -> Any:
        if isinstance(value, BaseMessage):
            return (type(value).__name__, value.model_dump(exclude={"id"}))
        if isinstance(value, list):
            return [plain(item) for item in value]
        return value

    return [
        {
            "values": {channel: plain(value) for channel, value in snapshot.values.items()},
            "next": sorted(snapshot.next),
            "source": (snapshot.metadata or {}).get("source"),
            "step": (snapshot.metadata or {}).get("step"),
            "asked": [interrupt.value for interrupt in snapshot.interrupts],
            "parent": position.get((snapshot.parent_config or {}).get("configurable", {}).get("checkpoint_id", "")),
        }
        for snapshot in history
    ]
