"""Sources by name: the saver that a SPEC such as `sqlite:checkpoints.sqlite` means."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ..saver import RedisSaver

SPECS = {
    "sqlite": "sqlite:PATH",
    "postgres": "postgres:URL",
    "mongodb": "mongodb:DATABASE@URL (MongoDBSaver; without DATABASE@: checkpointing_db)",
    "redis": "redis:URL (langgraph-checkpoint-redis)",
    "shallow": "shallow:URL (its ShallowRedisSaver)",
    "valkey": "valkey:URL (ValkeySaver)",
    "plainredis": "plainredis:URL",
    "lgrs": "lgrs:PREFIX@URL (this package)",
}

CLASSES = {
    "sqlite": ("langgraph.checkpoint.sqlite", "SqliteSaver"),
    "postgres": ("langgraph.checkpoint.postgres", "PostgresSaver"),
    "mongodb": ("langgraph.checkpoint.mongodb", "MongoDBSaver"),
    "redis": ("langgraph.checkpoint.redis", "RedisSaver"),
    "shallow": ("langgraph.checkpoint.redis", "ShallowRedisSaver"),
    "valkey": ("langgraph_checkpoint_aws", "ValkeySaver"),
    "plainredis": ("langgraph_checkpoint_plainredis", "RedisSaver"),
}


def opened(spec: str, stack: contextlib.ExitStack, own: Mapping[str, Any] | None = None) -> Any:
    """The saver that a SPEC names, closed with the stack. Its package must be installed.

    Args:
        own: options of `RedisSaver`, for a source of this package. It is opened with `read_only`.

    Raises:
        ValueError: there is no such kind, the package of the saver cannot be imported, or a file is not there.
    """
    kind, _, where = spec.partition(":")
    if kind not in SPECS or not where:
        raise ValueError(f"--from {spec!r} is unknown; allowed are {', '.join(SPECS.values())}")
    if kind == "lgrs":
        prefix, _, url = where.partition("@")
        return stack.enter_context(RedisSaver(url, prefix=prefix, read_only=True, **(own or {})))
    if kind == "plainredis":
        return _saver_class(kind)(url=where)
    if kind == "sqlite" and not Path(where).is_file():  # SQLite would make an empty one
        raise ValueError(f"--from {spec!r}: there is no file {where!r}")
    named: dict[str, Any] = {}
    if kind == "mongodb" and not where.startswith(("mongodb://", "mongodb+srv://")):
        named["db_name"], _, where = where.partition("@")
    found = stack.enter_context(_saver_class(kind).from_conn_string(where, **named))
    if kind in ("redis", "shallow"):
        found.setup()
    return found


def _saver_class(kind: str) -> Any:
    module, name = CLASSES[kind]
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        raise ValueError(f"--from {kind}: {module} cannot be imported ({error}); install the package of this saver") from error
