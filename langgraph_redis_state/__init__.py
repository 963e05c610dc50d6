"""LangGraph checkpoints on plain Redis: content-addressed, compressed, checksummed, with history and TTL.

from langgraph_redis_state import RedisSaver
graph = builder.compile(checkpointer=RedisSaver("redis://localhost:6379/0"))
"""

from .agents import AgentCheckpointer, AgentStateSnapshot, TodoItem, TodoStatus
from .codec import CompressionType
from .durability import Fsync, Replicas
from .embedded import EmbeddedServer
from .errors import (
    CheckpointConflictError,
    CheckpointCorruptError,
    CheckpointerError,
    CheckpointLostError,
    CheckpointNotFoundError,
    DurabilityError,
    EmbeddedServerError,
    FormatError,
    IntegrityKeyError,
    InvalidConfigError,
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
)
from .faults import Finding, Repair
from .history import ChannelDiff, Stats, ThreadInfo, Version
from .persistence import RedisStatePersistence, StateMetadata
from .saver import AsyncRedisSaver, RedisSaver
from .verification import Progress

__version__ = "0.1.0"

__all__ = [
    "AgentCheckpointer",
    "AgentStateSnapshot",
    "AsyncRedisSaver",
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
    "Finding",
    "FormatError",
    "Fsync",
    "IntegrityKeyError",
    "InvalidConfigError",
    "LayoutError",
    "Progress",
    "RedisSaver",
    "RedisStatePersistence",
    "Repair",
    "Replicas",
    "SaverClosedError",
    "SerializationError",
    "ServerRefusedError",
    "ServerUnavailableError",
    "StateMetadata",
    "Stats",
    "ThreadBusyError",
    "ThreadDeletedError",
    "ThreadExistsError",
    "ThreadInfo",
    "ThreadNotFoundError",
    "ThreadTooLargeError",
    "TodoItem",
    "TodoStatus",
    "Version",
]
