"""`RedisStatePersistence`: versioned, tagged state for programs that are no LangGraph graph. Each method is one line.

What the methods do stands in `states.py`, on the operations of the saver; who waits, in `drivers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from . import checks
from .codec import CompressionType
from .connected import Connected
from .drivers import arun, run
from .saver import RedisSaver
from .states import StateLike, StateMetadata, States, VersionLike

__all__ = ["RedisStatePersistence", "StateMetadata"]


_NOT_FOR_STATES = {
    *("url", "ttl", "refresh_ttl_on_read", "tombstone", "compression"),  # have names of their own here, or are as they must be
    *("max_age", "conflict", "index_metadata"),
}


class RedisStatePersistence(Connected):
    """Saves any state the serializer takes, by id and version, on plain Redis.

    Args:
        redis_url: as `RedisSaver` takes it: one server, TLS, unix socket, Cluster, Sentinel.
        compression_type: LZ4, ZLIB or NONE, for what is saved from now on; everything stored stays readable.
        enable_versioning: False keeps one version of each state, the one saved last.
        max_versions: how many versions a state keeps, the newest; None: all of them.
        default_ttl: seconds (or a timedelta) after its last save that a state expires, whole and at once. None: never.
        redis_options: keyword arguments for redis-py's connections. `decode_responses` is accepted and has no effect: bytes are
            stored, and objects come back. On a unix socket the keepalive options of TCP have none either.
        namespace: states of two namespaces never see each other.
        options: whatever else `RedisSaver` takes: `serde`, `integrity_key`, `max_thread_bytes`, `client`, ...

    Raises:
        ValueError, TypeError: an option is not possible; the message says what is.

    Each method has a twin with `a` before its name, to be awaited. They raise what the saver's methods raise: a server that
    does not answer is `ServerUnavailableError`, damaged bytes are `CheckpointCorruptError`, and never "not there".

    Where a state id or version is asked for, the `StateMetadata` of one will do. 1 and "1" name the same version.
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
        keep = checks.at_most(max_versions, "max_versions") if enable_versioning else 1
        self._saver = RedisSaver(
            redis_url,
            ttl=default_ttl,
            refresh_ttl_on_read=False,
            tombstone=None,  # a save builds on nothing, so none comes too late
            compression=compression_type,
            redis_options=connection_options(redis_url, redis_options),
            **options,
        )
        self._connection, self._operations = self._saver._connection, self._saver._operations
        self._states = States(self._operations, self._saver.serde, keep)

    def save_with_metadata(
        self,
        state: Any,
        state_id: StateLike,
        version: VersionLike | None = None,
        tags: Sequence[str] | None = None,
        ttl_seconds: float | timedelta | None = None,
    ) -> StateMetadata:
        """Saves a state. Version None counts on; one that exists is replaced where it stands among the others.

        Args:
            tags: what `search_by_tags` shall find this version by while it is the newest.
            ttl_seconds: the state's own TTL, from now on and at each later save. None: the one it has, else `default_ttl`.

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
        """The newest version of each state, the last saved first: those with any of the tags, whose id begins with `prefix`."""
        return run(self._states.list_states(tags or None, prefix, "any"), self._connection)

    async def alist_states(self, tags: Sequence[str] | None = None, prefix: str | None = None) -> list[StateMetadata]:
        """`list_states`, awaited."""
        return await arun(self._states.list_states(tags or None, prefix, "any"), self._connection)

    def search_by_tags(self, tags: Sequence[str], match: Literal["any", "all"] = "any") -> list[StateMetadata]:
        """The newest version of each state that has any, or all, of the tags; the last saved first."""
        return run(self._states.list_states(tags, None, match), self._connection)

    async def asearch_by_tags(self, tags: Sequence[str], match: Literal["any", "all"] = "any") -> list[StateMetadata]:
        """`search_by_tags`, awaited."""
        return await arun(self._states.list_states(tags, None, match), self._connection)

    def list_versions(self, state_id: StateLike) -> list[StateMetadata]:
        """The versions of a state, oldest first, never more than `max_versions`; none if there is no such state."""
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
        """Deletes a version with all that only it used; whether there was one. With its last version a state goes."""
        return run(self._states.delete_version(state_id, version), self._connection)

    async def adelete_version(self, state_id: StateLike, version: VersionLike) -> bool:
        """`delete_version`, awaited."""
        return await arun(self._states.delete_version(state_id, version), self._connection)

    def delete_state(self, state_id: StateLike) -> bool:
        """Deletes a state with all its versions; whether there was one."""
        return run(self._states.delete_state(state_id), self._connection)

    async def adelete_state(self, state_id: StateLike) -> bool:
        """`delete_state`, awaited."""
        return await arun(self._states.delete_state(state_id), self._connection)

    def rollback(self, state_id: StateLike, version: VersionLike, truncate: bool = False) -> StateMetadata:
        """Goes back to a version: saves its content as a new one, so that the mistake stays visible. `truncate`: removes what
        came after it instead.

        Raises:
            CheckpointNotFoundError: there is no such version.
        """
        return run(self._states.rollback(state_id, version, truncate), self._connection)

    async def arollback(self, state_id: StateLike, version: VersionLike, truncate: bool = False) -> StateMetadata:
        """`rollback`, awaited."""
        return await arun(self._states.rollback(state_id, version, truncate), self._connection)

    def touch(self, state_id: StateLike, ttl_seconds: float | timedelta | None = None) -> bool:
        """Gives a state its own TTL from now on; None: `default_ttl` again. Whether there is such a state."""
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
    """The prefix of the keys of a namespace: another one for each namespace, and for each of the two fronts."""
    name = checks.plain(namespace)
    if not isinstance(name, str) or not name:
        raise ValueError(f"namespace must be a non-empty string, not {namespace!r}")
    return f"lgrs:{kind}:{name}"


def connection_options(url: str, options: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """redis_options as `RedisSaver` takes them: without what can have no effect here."""
    if not isinstance(options, Mapping):
        return options
    socket = (
        {"socket_keepalive", "socket_keepalive_options"} if isinstance(url, str) and url.lower().startswith("unix:") else set()
    )
    idle = {"decode_responses"} | socket
    return {name: value for name, value in options.items() if name not in idle}
