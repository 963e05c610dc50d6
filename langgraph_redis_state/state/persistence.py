"""`RedisStatePersistence`: versioned, tagged state for programs without a LangGraph graph. Each method is one line.

The operations are in `versioning`, built on the verbs of the saver; `client/driver.py` runs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from .. import validation
from ..client.driver import arun, run
from ..connected import Connected
from ..saver import RedisSaver
from ..storage.codec import CompressionType
from .metadata import StateLike, StateMetadata, VersionLike
from .versioning import States

_NOT_FOR_STATES = {
    *("url", "ttl", "refresh_ttl_on_read", "tombstone", "compression"),  # named differently here, or fixed
    *("max_age", "conflict", "index_metadata"),
}


class RedisStatePersistence(Connected):
    """Stores any state that the serializer accepts, by id and version, on plain Redis.

    Args:
        redis_url: a URL as for `RedisSaver`: one server, TLS, unix socket, Cluster, Sentinel.
        compression_type: LZ4, ZLIB or NONE, for later saves; what is stored already stays readable.
        enable_versioning: False keeps only the last saved version of each state.
        max_versions: how many of its newest versions a state keeps; None: all.
        default_ttl: a state expires, with all its versions, so many seconds (or a timedelta) after its last save. None: never.
        redis_options: keyword arguments for redis-py's connections. `decode_responses` is accepted and has no effect. On a
            unix socket the keepalive options of TCP have no effect either.
        namespace: states of two namespaces are separate.
        options: other arguments of `RedisSaver`: `serde`, `integrity_key`, `max_thread_bytes`, `client`, ...

    Raises:
        ValueError, TypeError: an option is not valid; the message says which values are.

    Each method has a twin with `a` before its name, to be awaited. They raise what the saver's methods raise: if the server
    does not answer `ServerUnavailableError`, if stored bytes are damaged `CheckpointCorruptError`. None means "not there".

    A `StateMetadata` is accepted in place of a state id or a version. 1 and "1" name the same version.
    """

    def __init__(
        self,
        redis_url: str = "redis://localhost:6379/0",
        compression_type: CompressionType | str = CompressionType.LZ4,
        enable_versioning: bool = True,
        max_versions: int | None = 10,
        default_ttl: float | timedelta | None = None,
        redis_options: Mapping[str, Any] | None = None,
        namespace: str = "state",
        **options: Any,
    ) -> None:
        if idle := options.keys() & _NOT_FOR_STATES:
            raise TypeError(f"{sorted(idle)}: not for states; see max_versions, default_ttl, compression_type and tags")
        options.setdefault("prefix", prefix_of("state", namespace))
        keep = validation.at_most(max_versions, "max_versions") if enable_versioning else 1
        self._saver = RedisSaver(
            redis_url,
            ttl=default_ttl,
            refresh_ttl_on_read=False,
            tombstone=None,  # a save builds on nothing, so none comes too late
            compression=compression_type,
            redis_options=connection_options(redis_url, redis_options),
            **options,
        )
        self._connection, self._engine = self._saver._connection, self._saver._engine
        self._states = States(self._engine, self._saver.serde, keep)

    def save_with_metadata(
        self,
        state: Any,
        state_id: StateLike,
        version: VersionLike | None = None,
        tags: Sequence[str] | None = None,
        ttl_seconds: float | timedelta | None = None,
    ) -> StateMetadata:
        """Saves a state. Version None: the next number. A version that exists is replaced and keeps its position.

        Args:
            tags: `search_by_tags` finds the state by these tags while this version is the newest.
            ttl_seconds: the state's own TTL, which each later save extends again. None: the one it has, else `default_ttl`.

        Raises:
            SerializationError: the serializer refuses a value; names the key, nothing was written.
        """
        return run(self._states.save(state, state_id, version, tags, ttl_seconds), self._connection)

    async def asave_with_metadata(
        self,
        state: Any,
        state_id: StateLike,
        version: VersionLike | None = None,
        tags: Sequence[str] | None = None,
        ttl_seconds: float | timedelta | None = None,
    ) -> StateMetadata:
        """`save_with_metadata`, awaited. The state is serialized before this waits for the first time."""
        return await arun(self._states.save(state, state_id, version, tags, ttl_seconds), self._connection)

    def load_with_metadata(self, state_id: StateLike, version: VersionLike | None = None) -> tuple[Any, StateMetadata] | None:
        """(state, metadata) of a version, by default the newest; None if there is none."""
        return run(self._states.load(state_id, version), self._connection)

    async def aload_with_metadata(
        self, state_id: StateLike, version: VersionLike | None = None
    ) -> tuple[Any, StateMetadata] | None:
        """`load_with_metadata`, awaited."""
        return await arun(self._states.load(state_id, version), self._connection)

    def list_states(self, tags: Sequence[str] | None = None, prefix: str | None = None) -> list[StateMetadata]:
        """The newest version of each state that has any of the tags and whose id begins with `prefix`, last saved first."""
        return run(self._states.list_states(tags or None, prefix, "any"), self._connection)

    async def alist_states(self, tags: Sequence[str] | None = None, prefix: str | None = None) -> list[StateMetadata]:
        """`list_states`, awaited."""
        return await arun(self._states.list_states(tags or None, prefix, "any"), self._connection)

    def search_by_tags(self, tags: Sequence[str], match: Literal["any", "all"] = "any") -> list[StateMetadata]:
        """The newest version of each state if that has any, or all, of the tags; last saved first."""
        return run(self._states.list_states(tags, None, match), self._connection)

    async def asearch_by_tags(self, tags: Sequence[str], match: Literal["any", "all"] = "any") -> list[StateMetadata]:
        """`search_by_tags`, awaited."""
        return await arun(self._states.list_states(tags, None, match), self._connection)

    def list_versions(self, state_id: StateLike) -> list[StateMetadata]:
        """The versions of a state, oldest first, at most `max_versions`; empty if there is no such state."""
        return run(self._states.list_versions(state_id), self._connection)

    async def alist_versions(self, state_id: StateLike) -> list[StateMetadata]:
        """`list_versions`, awaited."""
        return await arun(self._states.list_versions(state_id), self._connection)

    def exists(self, state_id: StateLike, version: VersionLike | None = None) -> bool:
        """Whether there is such a state, or version of it."""
        return run(self._states.exists(state_id, version), self._connection)

    async def aexists(self, state_id: StateLike, version: VersionLike | None = None) -> bool:
        """`exists`, awaited."""
        return await arun(self._states.exists(state_id, version), self._connection)

    def delete_version(self, state_id: StateLike, version: VersionLike) -> bool:
        """Deletes a version and what only it refers to. Returns whether it existed. Without versions a state does not exist."""
        return run(self._states.delete_version(state_id, version), self._connection)

    async def adelete_version(self, state_id: StateLike, version: VersionLike) -> bool:
        """`delete_version`, awaited."""
        return await arun(self._states.delete_version(state_id, version), self._connection)

    def delete_state(self, state_id: StateLike) -> bool:
        """Deletes a state with all its versions. Returns whether it existed."""
        return run(self._states.delete_state(state_id), self._connection)

    async def adelete_state(self, state_id: StateLike) -> bool:
        """`delete_state`, awaited."""
        return await arun(self._states.delete_state(state_id), self._connection)

    def rollback(self, state_id: StateLike, version: VersionLike, truncate: bool = False) -> StateMetadata:
        """Takes a state back to a version: saves its content as a new version. `truncate`: removes the versions after it
        instead.

        Raises:
            CheckpointNotFoundError: there is no such version.
        """
        return run(self._states.rollback(state_id, version, truncate), self._connection)

    async def arollback(self, state_id: StateLike, version: VersionLike, truncate: bool = False) -> StateMetadata:
        """`rollback`, awaited."""
        return await arun(self._states.rollback(state_id, version, truncate), self._connection)

    def touch(self, state_id: StateLike, ttl_seconds: float | timedelta | None = None) -> bool:
        """Gives a state its own TTL; None: `default_ttl` again. Returns whether the state exists."""
        return run(self._states.touch(state_id, ttl_seconds), self._connection)

    async def atouch(self, state_id: StateLike, ttl_seconds: float | timedelta | None = None) -> bool:
        """`touch`, awaited."""
        return await arun(self._states.touch(state_id, ttl_seconds), self._connection)

    def get_stats(self) -> dict[str, Any]:
        """`states` (also as `total_states`), `versions`, `stored_bytes`, `logical_bytes`, `compression_ratio` (logical for each
        stored byte), `hits` and `misses` of loads through this object, and `redis_info`: `used_memory` in bytes,
        `used_memory_human`, `redis_version`; empty where the server does not allow INFO."""
        return run(self._states.stats(), self._connection)

    async def aget_stats(self) -> dict[str, Any]:
        """`get_stats`, awaited."""
        return await arun(self._states.stats(), self._connection)


def prefix_of(kind: str, namespace: str) -> str:
    """The prefix of all keys of a namespace; `kind` separates the two classes of this folder."""
    name = validation.plain(namespace)
    if not isinstance(name, str) or not name:
        raise ValueError(f"namespace must be a non-empty string, not {namespace!r}")
    return f"lgrs:{kind}:{name}"


def connection_options(url: str, options: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """`redis_options` for `RedisSaver`, without those that have no effect."""
    if not isinstance(options, Mapping):
        return options
    idle = {"decode_responses"}
    if isinstance(url, str) and url.lower().startswith("unix:"):
        idle |= {"socket_keepalive", "socket_keepalive_options"}
    return {name: value for name, value in options.items() if name not in idle}
