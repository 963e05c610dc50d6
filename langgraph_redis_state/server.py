"""The checkpointer of LangGraph's agent server (`langgraph dev`, `langgraph up`), set by `LGRS_*` environment variables.

In `langgraph.json`: `"checkpointer": {"path": "langgraph_redis_state.server:checkpointer"}`. docs/agent-server.md has the
variables.

The server (langgraph-api 0.16) does not hand a checkpointer to its graphs. It wraps it in an adapter, a `BaseCheckpointSaver`
that passes on the methods that the server knows. The rest is done by LangGraph's base class in the adapter, without this
package: the base class rebuilds a DeltaChannel by reading ancestors one by one, and extends the allow-list of types on a clone
of the adapter. With `ServedSaver` both give what they give without an adapter. Nothing here imports langgraph-api.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from .errors import CheckpointerError, InvalidConfigError, ThreadNotFoundError
from .saver import RedisSaver

CHILD = "__lgrs_child"
"""Key in the `parent_config` of a served checkpoint: that checkpoint's id. Names with "__" do not become metadata."""


@asynccontextmanager
async def checkpointer() -> AsyncIterator[ServedSaver]:
    """A saver for the agent server, on the Redis server and with the options that `LGRS_*` variables name.

    The server enters it once for each event loop, and leaves it when it ends.

    Raises:
        InvalidConfigError: a variable is unknown, or its value is not possible; the message names it.
        ServerUnavailableError, ServerRefusedError: the Redis server does not serve. So the agent server does not start.
    """
    from . import environment  # only the agent server needs it

    options = environment.options()
    serde = serializer(environment.value_of("LGRS_ALLOWED_TYPES"))
    if environment.value_of("LGRS_SERDE_KEY_FILE") is not None:
        serde = environment.encrypted(serde or JsonPlusSerializer())
    try:
        saver = ServedSaver(**options, serde=serde)
    except CheckpointerError:
        raise
    except (ValueError, TypeError) as error:
        raise InvalidConfigError(f"the environment variables LGRS_* set an option to what is not possible: {error}") from error
    async with saver:
        await saver.aping()
        yield saver


class ServedSaver(RedisSaver):
    """`RedisSaver` for a server that wraps savers in an adapter. All options are those of `RedisSaver`."""

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint the config names, or the newest of its namespace.

        For the `parent_config` of a checkpoint whose ancestors were removed: what its DeltaChannels had before that checkpoint,
        as if the ancestors were one checkpoint without a parent.

        Raises:
            CheckpointLostError: the checkpoint's DeltaChannels need ancestors that are gone, and not by a removal.
        """
        found = await super().aget_tuple(config)
        if found is not None:
            return _served(found)
        child = config["configurable"].get(CHILD)
        return None if child is None else await self._history_at_cut(config, child)

    async def _history_at_cut(self, config: RunnableConfig, child: str) -> CheckpointTuple | None:
        """What a removal kept of the ancestors of `child`, in the shape in which the base class walks them."""
        named = cast("RunnableConfig", {"configurable": {**config["configurable"], "checkpoint_id": child}})
        found = await super().aget_tuple(named)
        if found is None:
            return None
        values = found.checkpoint["channel_values"]
        rebuilt = [name for name in found.checkpoint["channel_versions"] if name not in values]
        histories = await self.aget_delta_channel_history(config=named, channels=rebuilt)
        seeds = {name: history["seed"] for name, history in histories.items() if "seed" in history}
        writes = [write for history in histories.values() for write in history["writes"]]
        if not seeds and not writes:
            return None
        checkpoint = {**empty_checkpoint(), "id": config["configurable"]["checkpoint_id"], "channel_values": seeds}
        return CheckpointTuple(config, cast("Any", checkpoint), {}, None, writes)

    async def alist(self, config: RunnableConfig | None, **narrowing: Any) -> AsyncIterator[CheckpointTuple]:
        """`list`, awaited page by page."""
        async for found in super().alist(config, **narrowing):
            yield _served(found)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies a whole thread to a new id. If nothing ran in the source yet, there is nothing to copy.

        Raises:
            ThreadExistsError: the target exists; it is not touched.
            ThreadBusyError: the source kept changing while it was read.
        """
        try:
            await super().acopy_thread(source_thread_id, target_thread_id)
        except ThreadNotFoundError:
            return


def _served(found: CheckpointTuple) -> CheckpointTuple:
    """A checkpoint whose parent says of which checkpoint it is the parent, and whose metadata names the thread that it is in.

    The adapter adds the thread's id to the metadata that it stores, and a copied thread has the metadata of its source.
    """
    place = found.config["configurable"]
    if found.metadata.get("thread_id", place["thread_id"]) != place["thread_id"]:
        found = found._replace(metadata=cast("Any", {**found.metadata, "thread_id": place["thread_id"]}))
    if found.parent_config is None:
        return found
    parent = {**found.parent_config["configurable"], CHILD: place["checkpoint_id"]}
    return found._replace(parent_config={**found.parent_config, "configurable": parent})


def serializer(allowed: Collection[tuple[str, str]] | None) -> SerializerProtocol | None:
    """LangGraph's serializer, whose allow-list graphs of the server extend; None for its default, if that is not strict.

    Args:
        allowed: (module, class) of each type that stored values may create beside LangGraph's own. None: what
            LANGGRAPH_STRICT_MSGPACK says.
    """
    if allowed is None:
        strict = SharedAllowList()
        return strict if strict.is_strict() else None
    return SharedAllowList(allowed_msgpack_modules=list(allowed))


class SharedAllowList(JsonPlusSerializer):
    """A serializer whose allow-list grows in place, for all graphs of the process.

    LangGraph asks for a serializer with the types of a graph's schema, and gives it to a clone of the saver. The clone of an
    adapter still reads by the adapted saver, whose serializer this is.
    """

    _growing = threading.Lock()

    def is_strict(self) -> bool:
        """Whether types that are not in the allow-list come back as plain parts."""
        return super().with_msgpack_allowlist([("langgraph_redis_state", "No type")]) is not self

    def with_msgpack_allowlist(self, extra_allowlist: Any) -> JsonPlusSerializer:
        """Extends the allow-list of this serializer, and returns it."""
        with self._growing:
            grown = super().with_msgpack_allowlist(extra_allowlist)
            if grown is not self:
                vars(self).update(vars(grown))
        return self
