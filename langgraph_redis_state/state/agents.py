"""`AgentCheckpointer`: the last state of each agent thread, as JSON. A front on `RedisStatePersistence`, nothing of its own.

The state is what deep agents share between planner, tools and runtime: a list of todos, files, a scratchpad, messages. It is
kept as plain JSON values and nothing else, so that programs in other languages can exchange it (`to_json`, `from_json`); the
names and forms are those of the Rust crates agents-core and agents-persistence.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from typing_extensions import Self

from ..client.driver import arun, run
from ..connected import Connected
from ..effects import Operation
from ..errors import InvalidConfigError, SerializationError
from .agent_state import AgentStateSnapshot
from .persistence import RedisStatePersistence, prefix_of


class AgentCheckpointer(Connected):
    """Keeps the last state of each agent thread.

    Args:
        url: where the server is, as `RedisSaver` takes it.
        namespace: threads of two namespaces never see each other.
        ttl: seconds or a timedelta after its last save that a thread expires; None: never.
        max_versions: how many states of a thread are kept; `load_state` gives the newest.
        options: whatever else `RedisStatePersistence` takes: `redis_options`, `compression_type`, `integrity_key`, ...

    Each method has a twin with `a` before its name, to be awaited. They raise what the saver's methods raise; None and an
    empty list always mean that there is nothing.
    """

    def __init__(
        self,
        url: str,
        namespace: str = "agents",
        ttl: float | timedelta | None = None,
        *,
        max_versions: int | None = 1,
        **options: Any,
    ) -> None:
        options.setdefault("prefix", prefix_of("agents", namespace))
        self._states = RedisStatePersistence(url, max_versions=max_versions, default_ttl=ttl, **options)
        self._connection, self._engine = self._states._connection, self._states._engine

    @classmethod
    def builder(cls) -> AgentCheckpointerBuilder:
        """`AgentCheckpointer.builder().url(...).namespace(...).ttl(...).build()`"""
        return AgentCheckpointerBuilder()

    def save_state(self, thread_id: str, state: AgentStateSnapshot | Mapping[str, Any]) -> None:
        """Saves the state of a thread in place of the one before.

        Raises:
            SerializationError: JSON cannot hold a value; names thread and field, nothing was written.
        """
        run(self._save(thread_id, state), self._connection)

    async def asave_state(self, thread_id: str, state: AgentStateSnapshot | Mapping[str, Any]) -> None:
        """`save_state`, awaited. The state is serialized before this waits for the first time."""
        await arun(self._save(thread_id, state), self._connection)

    def load_state(self, thread_id: str) -> AgentStateSnapshot | None:
        """The last state of a thread; None if there is none."""
        return run(self._load(thread_id), self._connection)

    async def aload_state(self, thread_id: str) -> AgentStateSnapshot | None:
        """`load_state`, awaited."""
        return await arun(self._load(thread_id), self._connection)

    def delete_thread(self, thread_id: str) -> None:
        """Deletes a thread; nothing happens if there is none."""
        self._states.delete_state(thread_id)

    async def adelete_thread(self, thread_id: str) -> None:
        """`delete_thread`, awaited."""
        await self._states.adelete_state(thread_id)

    def list_threads(self) -> list[str]:
        """The ids of all threads that have not expired, the last saved first."""
        return run(self._states._states.names(), self._connection)

    async def alist_threads(self) -> list[str]:
        """`list_threads`, awaited."""
        return await arun(self._states._states.names(), self._connection)

    def _save(self, thread_id: str, state: AgentStateSnapshot | Mapping[str, Any]) -> Operation[None]:
        try:
            snapshot = state if isinstance(state, AgentStateSnapshot) else AgentStateSnapshot.from_dict(state)
            values = snapshot.to_dict()
        except SerializationError as error:
            raise SerializationError(f"saving agent thread {thread_id!r}: {error}; nothing was written") from None
        yield from self._states._states.save(values, thread_id, None, None, None)

    def _load(self, thread_id: str) -> Operation[AgentStateSnapshot | None]:
        found = yield from self._states._states.load(thread_id, None)
        try:
            return None if found is None else AgentStateSnapshot.from_dict(found[0])
        except SerializationError as error:
            raise SerializationError(f"loading agent thread {thread_id!r}: {error}; something else saved it") from None


class AgentCheckpointerBuilder:
    """Collects the arguments of `AgentCheckpointer`, by their names."""

    def __init__(self) -> None:
        self._arguments: dict[str, Any] = {}

    def url(self, url: str) -> Self:
        self._arguments["url"] = url
        return self

    def namespace(self, namespace: str) -> Self:
        self._arguments["namespace"] = namespace
        return self

    def ttl(self, ttl: float | timedelta | None) -> Self:
        self._arguments["ttl"] = ttl
        return self

    def options(self, **options: Any) -> Self:
        """Whatever else `AgentCheckpointer` takes."""
        self._arguments |= options
        return self

    def build(self) -> AgentCheckpointer:
        """Raises InvalidConfigError if there is no url."""
        if not self._arguments.get("url"):
            raise InvalidConfigError("AgentCheckpointer.builder(): no url; say where the server is with .url('redis://...')")
        return AgentCheckpointer(**self._arguments)
