"""LangGraph checkpoints on plain Redis: content-addressed, compressed, checksummed, with history and TTL.

from langgraph_redis_state import RedisSaver
graph = builder.compile(checkpointer=RedisSaver("redis://localhost:6379/0"))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .durability import Fsync, Replicas
from .errors import (
    ArchiveDamagedError,
    CheckpointConflictError,
    CheckpointCorruptError,
    CheckpointerError,
    CheckpointLostError,
    CheckpointNotFoundError,
    DurabilityError,
    EmbeddedServerError,
    EncryptionKeyError,
    FormatError,
    IntegrityKeyError,
    InvalidConfigError,
    KeyProviderError,
    LayoutError,
    SaverClosedError,
    SerializationError,
    ServerRefusedError,
    ServerUnavailableError,
    ThreadBusyError,
    ThreadDeletedError,
    ThreadExistsError,
    ThreadNotFoundError,
    ThreadTooLargeError,
    WitnessError,
)
from .history.diff import ChannelDiff
from .history.heads import Head, StoredWrite
from .history.threads import Stats, ThreadInfo
from .history.versions import Version
from .saver import RedisSaver
from .server import checkpointer as _checkpointer
from .storage.codec import CompressionType

if TYPE_CHECKING:
    from .drop_in import AsyncRedisSaver, AsyncShallowRedisSaver, ShallowRedisSaver
    from .embedded import EmbeddedServer
    from .state.agent_state import AgentStateSnapshot, TodoItem, TodoStatus
    from .state.agents import AgentCheckpointer
    from .state.metadata import StateMetadata
    from .state.persistence import RedisStatePersistence
    from .store.surface import AsyncRedisStore, RedisStore
    from .verification.findings import Finding, Progress, Repair

__version__ = "0.1.0"

# langgraph-api 0.16 splits the path "langgraph_redis_state.server:checkpointer" at its last dot, and looks here for the rest
vars()["server:checkpointer"] = _checkpointer

_LATER = {
    "AgentCheckpointer": ".state.agents",
    "AgentStateSnapshot": ".state.agent_state",
    "AsyncRedisSaver": ".drop_in",
    "AsyncRedisStore": ".store.surface",
    "AsyncShallowRedisSaver": ".drop_in",
    "EmbeddedServer": ".embedded",
    "Finding": ".verification.findings",
    "Progress": ".verification.findings",
    "RedisStatePersistence": ".state.persistence",
    "RedisStore": ".store.surface",
    "Repair": ".verification.findings",
    "ShallowRedisSaver": ".drop_in",
    "StateMetadata": ".state.metadata",
    "TodoItem": ".state.agent_state",
    "TodoStatus": ".state.agent_state",
}
"""Names, and the modules that hold them. A saver needs none of these modules; each is imported when a name is first used."""


if not TYPE_CHECKING:  # else a name that does not exist would be right for a type checker

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_LATER[name], __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "AgentCheckpointer",
    "AgentStateSnapshot",
    "ArchiveDamagedError",
    "AsyncRedisSaver",
    "AsyncRedisStore",
    "AsyncShallowRedisSaver",
    "ChannelDiff",
    "CheckpointConflictError",
    "CheckpointCorruptError",
    "CheckpointLostError",
    "CheckpointNotFoundError",
    "CheckpointerError",
    "CompressionType",
    "DurabilityError",
    "EmbeddedServer",
    "EmbeddedServerError",
    "EncryptionKeyError",
    "Finding",
    "FormatError",
    "Fsync",
    "Head",
    "IntegrityKeyError",
    "InvalidConfigError",
    "KeyProviderError",
    "LayoutError",
    "Progress",
    "RedisSaver",
    "RedisStatePersistence",
    "RedisStore",
    "Repair",
    "Replicas",
    "SaverClosedError",
    "SerializationError",
    "ServerRefusedError",
    "ServerUnavailableError",
    "ShallowRedisSaver",
    "StateMetadata",
    "Stats",
    "StoredWrite",
    "ThreadBusyError",
    "ThreadDeletedError",
    "ThreadExistsError",
    "ThreadInfo",
    "ThreadNotFoundError",
    "ThreadTooLargeError",
    "TodoItem",
    "TodoStatus",
    "Version",
    "WitnessError",
]
