"""LangGraph checkpoints on plain Redis: content-addressed, compressed, checksummed, with history and TTL.

from langgraph_redis_state import RedisSaver
graph = builder.compile(checkpointer=RedisSaver("redis://localhost:6379/0"))
"""

from .codec import CompressionType
from .embedded import EmbeddedServer
from .errors import (
    CheckpointConflictError,
    CheckpointCorruptError,
    CheckpointerError,
    CheckpointLostError,
    CheckpointNotFoundError,
    EmbeddedServerError,
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
from .history import ChannelDiff, Stats, ThreadInfo, Version
from .saver import AsyncRedisSaver, RedisSaver

__version__ = "0.1.0"

__all__ = [
    "AsyncRedisSaver",
    "ChannelDiff",
    "CheckpointConflictError",
    "CheckpointCorruptError",
    "CheckpointLostError",
    "CheckpointNotFoundError",
    "CheckpointerError",
    "CompressionType",
    "EmbeddedServer",
    "EmbeddedServerError",
    "IntegrityKeyError",
    "InvalidConfigError",
    "LayoutError",
    "RedisSaver",
    "SaverClosedError",
    "SerializationError",
    "ServerRefusedError",
    "ServerUnavailableError",
    "Stats",
    "ThreadBusyError",
    "ThreadDeletedError",
    "ThreadExistsError",
    "ThreadInfo",
    "ThreadNotFoundError",
    "ThreadTooLargeError",
    "Version",
]
