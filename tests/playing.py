"""Plays a script on a graph and writes a transcript that two savers must agree on."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from langgraph.errors import EmptyInputError
from langgraph.types import Interrupt, Send, StateSnapshot
from shapes import at
from soak import times

DURABILITIES = ["sync", "async", "exit"]
THREAD = {"configurable": {"thread_id": "t"}}


RANDOM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b")


Script = Callable[["Play"], Awaitable[None]]


class Play:
    """One performance: a graph on a saver, sync or async, and the transcript of what it did."""

    def __init__(self, build: Callable[[Any], Any], open_saver: Callable[[], Any], awaited: bool, durability: str) -> None:
        self.build, self.open_saver, self.awaited, self.durability = build, open_saver, awaited, durability
        self.transcript: list[tuple[str, Any]] = []
        self.seen: dict[str, str] = {}
        self.threads: dict[str, None] = {}
        self.compiled: tuple[Any, Any] = (None, None)
        self.moves = 0

    @property
    def graph(self) -> Any:
        """Compiled for the saver: once, if it is the same for all moves."""
        saver = self.open_saver()
        if saver is not self.compiled[0]:
            self.compiled = saver, self.build(saver)
        return self.compiled[1]

    async def call(self, verb: str, *arguments: Any, **options: Any) -> Any:
        if self.awaited:
            return await getattr(self.graph, f"a{verb}")(*arguments, **options)
        return getattr(self.graph, verb)(*arguments, **options)

    async def gather(self, verb: str, *arguments: Any, **options: Any) -> list[Any]:
        if self.awaited:
            return [found async for found in getattr(self.graph, f"a{verb}")(*arguments, **options)]
        return list(getattr(self.graph, verb)(*arguments, **options))

    async def invoke(self, given: Any, config: Any = THREAD, **options: Any) -> Any:
        try:
            result = await self.call("invoke", given, config, durability=self.durability, **options)
        except (RuntimeError, EmptyInputError) as failure:
            result = failure
        await self.note("invoke", result, config)
        return result

    async def stream(self, given: Any, config: Any = THREAD, **options: Any) -> None:
        events = await self.gather("stream", given, config, durability=self.durability, **options)
        await self.note("stream", events, config)

    async def update(self, config: Any, values: Any, as_node: str | None = None) -> Any:
        updated = await self.call("update_state", config, values, as_node=as_node)
        await self.note("update_state", updated, updated)
        return updated

    async def bulk_update(self, config: Any, supersteps: Any) -> Any:
        updated = await self.call("bulk_update_state", config, supersteps)
        await self.note("bulk_update_state", updated, updated)
        return updated

    async def state(self, config: Any = THREAD) -> StateSnapshot:
        return await self.call("get_state", config, subgraphs=True)

    async def history(self, config: Any = THREAD) -> list[StateSnapshot]:
        return await self.gather("get_state_history", config)

    async def before(self, *nodes: str, skip: int = 0) -> Any:
        """The config of the newest checkpoint that waits for these nodes.

        The oldest there is instead, if none does: with durability "exit" only the ends of runs are kept.
        """
        history = await self.history()
        fitting = [found for found in history[skip:] if nodes in (found.next, found.next[: len(nodes)])]
        return (fitting or history[-1:])[0].config

    async def note(self, move: str, result: Any, config: Any) -> None:
        """With durability "sync" everything after every third move, or every one in `make soak`; else the state, and the rest
        when the script is over."""
        self.moves += 1
        self.threads.setdefault(config["configurable"]["thread_id"])
        self.transcript.append((move, self.told(result)))
        if "checkpoint_id" in config["configurable"]:
            self.transcript.append(("state there", self.told(await self.state(config))))
        for thread in self.threads:
            self.transcript.append(("state", self.told(await self.state(at(thread, None)))))
        if self.durability == "sync" and self.moves % times(3, 1, 1) == 0:
            await self.note_history()

    async def note_history(self) -> None:
        for thread in self.threads:
            self.transcript.append(("history", self.told(await self.history(at(thread, None)))))
            self.transcript.append(("kept", self.told(await self.kept(at(thread, None)))))

    async def perform(self, script: Script) -> list[tuple[str, Any]]:
        await script(self)
        await self.note_history()
        return self.transcript

    async def kept(self, thread: Any) -> list[Any]:
        saver = self.graph.checkpointer
        found = [found async for found in saver.alist(thread)] if self.awaited else list(saver.list(thread))
        found.sort(key=lambda t: t.checkpoint["id"])
        return [
            {
                "config": t.config["configurable"],
                "parent": t.parent_config and t.parent_config["configurable"],
                "metadata": dict(sorted(t.metadata.items())),
                "values": dict(sorted(t.checkpoint["channel_values"].items())),
                "versions": ordinals(t.checkpoint["channel_versions"]),
                "seen": {name: ordinals(seen) for name, seen in sorted(t.checkpoint["versions_seen"].items())},
                "updated": t.checkpoint.get("updated_channels"),
                "writes": [tuple(write) for write in t.pending_writes],
            }
            for t in found
        ]

    def told(self, value: Any) -> Any:
        """The value without what is random; the containers that LangGraph fills are told as plain ones."""
        match value:
            case str():
                return RANDOM.sub(lambda found: self.seen.setdefault(found[0], f"<{len(self.seen)}>"), value)
            case StateSnapshot():
                return {name: self.told(part) for name, part in value._asdict().items() if name != "created_at"}
            case dict() if "thread_id" in value:  # a configurable; LangGraph may leave keys of its own in it
                return {key: self.told(part) for key, part in sorted(value.items()) if not key.startswith("__")}
            case dict():
                return {self.told(key): self.told(part) for key, part in value.items() if key not in ("ts", "thread_ts")}
            case [Interrupt(), *_]:  # those of parallel tasks come in the order in which these happen to end
                return [self.told(asked) for asked in sorted(value, key=lambda asked: repr(asked.value))]
            case list() | tuple() if not hasattr(value, "_fields"):
                return type(value)(self.told(part) for part in value)
            case tuple():
                return {name: self.told(part) for name, part in value._asdict().items()}
            case BaseException():
                return (type(value).__name__, self.told(str(value)))
        if hasattr(value, "model_copy"):
            return value.model_copy(update={"id": self.told(value.id)}) if getattr(value, "id", None) else value
        if isinstance(value, Interrupt):
            return ("Interrupt", self.told(value.value), self.told(value.id))
        if isinstance(value, Send):
            return ("Send", value.node, self.told(value.arg))
        return value


def ordinals(versions: Any) -> dict[str, int]:
    """`"0002.0.123"` of InMemorySaver and `"0002"` of RedisSaver are both the second version."""
    return {name: int(str(version).split(".")[0]) for name, version in sorted(versions.items())}
