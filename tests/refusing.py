"""Verbs to be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shapes import checkpoint, metadata

from langgraph_redis_state import RedisSaver


def every_verb(saver: RedisSaver, config: Any) -> list[Callable[[], Any]]:
    """Each method that takes a config."""
    made = checkpoint({"n": 1})
    return [
        lambda: saver.get_tuple(config),
        lambda: list(saver.list(config)),
        lambda: saver.put(config, made, metadata(), made["channel_versions"]),
        lambda: saver.put_writes(config, [("n", 1)], "task"),
        lambda: saver.get_delta_channel_history(config=config, channels=["n"]),
    ]
