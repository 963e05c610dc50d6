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
from .saver import AsyncRedisSaver, RedisSaver

__version__ = "0.1.0"

__all__ = [
    "AsyncRedisSaver",
    "CheckpointConflictError",
    "CheckpointCorruptError",
    "CheckpointLostError",
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
    "ThreadBusyError",
    "ThreadDeletedError",
    "ThreadExistsError",
    "ThreadNotFoundError",
    "ThreadTooLargeError",
]
