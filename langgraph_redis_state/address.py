"""`Address`: the thread, namespace and checkpoint that a config names, as keys and in errors. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig

from .errors import InvalidConfigError
from .storage import keys
from .storage.keys import ThreadKeys
from .storage.records import RecordKey


class Address:
    """A thread, a namespace, and maybe a checkpoint."""

    __slots__ = ("checkpoint", "given", "keys", "ns", "prefix", "thread")

    def __init__(self, prefix: str, thread: Any, ns: Any, checkpoint: Any) -> None:
        self.given = thread
        text = keys.thread_text(thread)
        self.thread = text
        self.keys = ThreadKeys(prefix, keys.encode(text, "thread_id"))
        self.prefix = prefix.encode()
        self.ns = keys.encode(ns, "checkpoint_ns")
        self.checkpoint = keys.encode(checkpoint, "checkpoint_id") if checkpoint else b""

    @classmethod
    def of(cls, prefix: str, config: RunnableConfig) -> Address:
        found = configurable(config)
        return cls(prefix, found["thread_id"], found.get("checkpoint_ns") or "", found.get("checkpoint_id"))

    def place(self, kind: bytes, ns: bytes, checkpoint: bytes) -> RecordKey:
        return RecordKey(self.prefix, self.keys.name, kind, ns, checkpoint)

    def config(self, ns: bytes, checkpoint: str) -> RunnableConfig:
        return {"configurable": {"thread_id": self.given, "checkpoint_ns": ns.decode(), "checkpoint_id": checkpoint}}

    def about(self, what: str) -> str:
        where = f"{what}: thread {self.thread!r}, namespace {self.ns.decode()!r}"
        return f"{where}, checkpoint {self.checkpoint.decode()!r}" if self.checkpoint else where


def configurable(config: Any) -> Mapping[str, Any]:
    found = config.get("configurable") if isinstance(config, Mapping) else None
    if not isinstance(found, Mapping) or found.get("thread_id") is None:
        raise InvalidConfigError(
            "the config names no thread; pass config={'configurable': {'thread_id': '...'}} to the graph or the saver"
        )
    return found
