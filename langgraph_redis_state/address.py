"""`Address`: the thread, namespace and checkpoint that a config names, as keys and in errors. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig

from .errors import InvalidConfigError
from .storage import keys
from .storage.names import PLAIN_NAMES, Names
from .storage.records import RecordKey
from .storage.seals import Seal


class Address:
    """A thread, a namespace, and maybe a checkpoint."""

    __slots__ = ("_seal", "checkpoint", "given", "keys", "ns", "prefix", "thread")

    def __init__(self, prefix: str, thread: Any, ns: Any, checkpoint: Any, names: Names = PLAIN_NAMES) -> None:
        self.given = thread
        text = keys.thread_text(thread)
        self.thread = text
        self.keys = keys.thread_keys(prefix, keys.encode(text, "thread_id"), names)
        self.prefix = prefix.encode()
        self.ns = keys.encode(ns, "checkpoint_ns")
        self.checkpoint = keys.encode(checkpoint, "checkpoint_id") if checkpoint else b""
        self._seal: Seal | None = None

    @classmethod
    def of(cls, prefix: str, config: RunnableConfig, names: Names = PLAIN_NAMES) -> Address:
        found = configurable(config)
        return cls(prefix, found["thread_id"], found.get("checkpoint_ns") or "", found.get("checkpoint_id"), names)

    @property
    def seal(self) -> Seal:
        """How the thread is protected, from `Engine.unlock` on."""
        assert self._seal is not None, "Engine.unlock was not called"
        return self._seal

    @seal.setter
    def seal(self, seal: Seal) -> None:
        self._seal = seal

    @property
    def unlocked(self) -> bool:
        return self._seal is not None

    def place(self, kind: bytes, ns: bytes, checkpoint: bytes) -> RecordKey:
        return RecordKey(self.prefix, self.thread.encode(), kind, ns, checkpoint, self.keys.names)

    def config(self, ns: bytes, checkpoint: str) -> RunnableConfig:
        return {"configurable": {"thread_id": self.given, "checkpoint_ns": ns.decode(), "checkpoint_id": checkpoint}}

    def about(self, what: str) -> str:
        where = f"{what}: thread {self.thread!r}, namespace {self.ns.decode()!r}"
        return f"{where}, checkpoint {self.checkpoint.decode()!r}" if self.checkpoint else where


def configurable(config: Any) -> Mapping[str, Any]:
    found = config.get("configurable") if type(config) is dict or isinstance(config, Mapping) else None
    if not (type(found) is dict or isinstance(found, Mapping)) or found.get("thread_id") is None:
        raise InvalidConfigError(
            "the config names no thread; pass config={'configurable': {'thread_id': '...'}} to the graph or the saver"
        )
    return found
