"""`AgentCheckpointer`: the last state of each agent thread, as JSON, stored with `RedisStatePersistence`.

The state is what deep agents share between planner, tools and runtime: todos, files, a scratchpad, messages. It is stored as
plain JSON values, so that programs in other languages can read it (`to_json`, `from_json`). Names and formats are those of the
Rust crates agents-core and agents-persistence.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from typing_extensions import Self

from ..client.driver import arun, run
from ..connected import Connected
from ..errors import InvalidConfigError, SerializationError
from .agent_state import AgentStateSnapshot
from .metadata import StateMetadata
from .persistence import RedisStatePersistence, prefix_of
from .versioning import state_ids


class AgentCheckpointer(Connected):
    """Keeps the last state of each agent thread.

    Args:
        url: where the server is, as `RedisSaver` takes it.
        namespace: threads of two namespaces are separate.
        ttl: a thread expires so many seconds, or this timedelta, after its last save; None: never.
        max_versions: how many states of a thread are kept; `load_state` gives the newest.
        options: other arguments of `RedisStatePersistence`: `redis_options`, `compression_type`, `integrity_key`, ...

    Each method has a twin with `a` before its name, to be awaited. They raise what the saver's methods raise; None and an
    empty list always mean that nothing is stored.
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
        """Saves the state of a thread. It replaces the previous state.

        Raises:
            SerializationError: JSON cannot hold a value; names thread and field, nothing was written.
        """
        self._states.save_with_metadata(_plain(thread_id, state), thread_id)

    async def asave_state(self, thread_id: str, state: AgentStateSnapshot | Mapping[str, Any]) -> None:
        """`save_state`, awaited. The state is serialized before this waits for the first time."""
        await self._states.asave_with_metadata(_plain(thread_id, state), thread_id)

    def load_state(self, thread_id: str) -> AgentStateSnapshot | None:
        """The last state of a thread; None if there is none."""
        return _snapshot(thread_id, self._states.load_with_metadata(thread_id))

    async def aload_state(self, thread_id: str) -> AgentStateSnapshot | None:
        """`load_state`, awaited."""
        return _snapshot(thread_id, await self._states.aload_with_metadata(thread_id))

    def delete_thread(self, thread_id: str) -> None:
        """Deletes a thread, if it exists."""
        self._states.delete_state(thread_id)

    async def adelete_thread(self, thread_id: str) -> None:
        """`delete_thread`, awaited."""
        await self._states.adelete_state(thread_id)

    def list_threads(self) -> list[str]:
        """The ids of all threads that have not expired, the last saved first."""
        return run(state_ids(self._engine), self._connection, "list_threads")

    async def alist_threads(self) -> list[str]:
        """`list_threads`, awaited."""
        return await arun(state_ids(self._engine), self._connection, "list_threads")


def _plain(thread_id: str, state: AgentStateSnapshot | Mapping[str, Any]) -> dict[str, Any]:
    try:
        return (state if isinstance(state, AgentStateSnapshot) else AgentStateSnapshot.from_dict(state)).to_dict()
    except SerializationError as error:
        raise SerializationError(f"saving agent thread {thread_id!r}: {error}; nothing was written") from None


def _snapshot(thread_id: str, found: tuple[Any, StateMetadata] | None) -> AgentStateSnapshot | None:
    try:
        return None if found is None else AgentStateSnapshot.from_dict(found[0])
    except SerializationError as error:
        raise SerializationError(f"loading agent thread {thread_id!r}: {error}; another program saved it") from None


class AgentCheckpointerBuilder:
    """Collects the arguments of `AgentCheckpointer` by name."""

    def __init__(self) -> None:
        self._arguments: dict[str, Any] = {}

    def options(self, **options: Any) -> Self:
        """Any arguments of `AgentCheckpointer`."""
        self._arguments |= options
        return self

    def url(self, url: str) -> Self:
        return self.options(url=url)

    def namespace(self, namespace: str) -> Self:
        return self.options(namespace=namespace)

    def ttl(self, ttl: float | timedelta | None) -> Self:
        return self.options(ttl=ttl)

    def build(self) -> AgentCheckpointer:
        """Raises InvalidConfigError if there is no url."""
        if not self._arguments.get("url"):
            raise InvalidConfigError("AgentCheckpointer.builder(): no url; say where the server is with .url('redis://...')")
        return AgentCheckpointer(**self._arguments)
