"""LangGraph checkpoints on plain Redis: content-addressed, compressed, checksummed, with history and TTL.

from langgraph_redis_state import RedisSaver
graph = builder.compile(checkpointer=RedisSaver("redis://localhost:6379/0"))
"""

from .drop_in import AsyncRedisSaver, AsyncShallowRedisSaver, ShallowRedisSaver
from .durability import Fsync, Replicas
from .embedded import EmbeddedServer
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
from .state.agent_state import AgentStateSnapshot, TodoItem, TodoStatus
from .state.agents import AgentCheckpointer
from .state.metadata import StateMetadata
from .state.persistence import RedisStatePersistence
from .storage.codec import CompressionType
from .store.surface import AsyncRedisStore, RedisStore
from .verification.findings import Finding, Progress, Repair

__version__ = "0.1.0"

# langgraph-api 0.16 splits the path "langgraph_redis_state.server:checkpointer" at its last dot, and looks here for the rest
vars()["server:checkpointer"] = _checkpointer

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
