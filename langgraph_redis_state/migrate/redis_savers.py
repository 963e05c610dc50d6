"""Savers of other packages on Redis: langgraph-checkpoint-redis (full and shallow), ValkeySaver, langgraph-checkpoint-
plainredis.

`list(None)` of these gives nothing, or at most 10,000 checkpoints, so their keys are walked, with SCAN, once for each
migration. What is remembered of the walk are ids.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from .flow import Flow
from .sources import Found, Place, Row, Source, Write

BATCH = 200
"""Documents that are read in one round trip."""

_EMPTY = "__empty__"
_NO_PATHS = "the source does not keep task paths; the order of writes is kept as it tells it"


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def parsed(reply: Any) -> Any:
    """A JSON document: a client whose JSON commands were used parses replies itself."""
    return json.loads(reply) if isinstance(reply, str | bytes) else reply


class WalkedSource(Source):
    """A source whose keys are walked for threads and places."""

    _walked: dict[str, set[Place]] | None = None

    @property
    def client(self) -> Any:
        return self.saver.client

    def walk(self) -> Flow[dict[str, set[Place]]]:
        """All places, by thread."""
        raise NotImplementedError

    def threads(self) -> Flow[list[str]]:
        self._walked = yield from self.walk()
        return list(self._walked)

    def places(self, thread: str) -> Flow[list[Place]]:
        if self._walked is None:
            self._walked = yield from self.walk()
        return sorted(self._walked.get(thread, ()))

    def scan(self, pattern: str) -> Flow[list[str]]:
        found: dict[str, None] = {}
        cursor = 0
        while True:
            cursor, keys = yield partial(self.client.scan, cursor, match=pattern, count=1000)
            found.update((text(key), None) for key in keys)
            if not int(cursor):
                return list(found)

    def documents(self, *commands: Sequence[Any]) -> Flow[list[Any]]:
        """The replies to these commands, so many in a round trip."""
        replies: list[Any] = []
        for batch in (commands[at : at + BATCH] for at in range(0, len(commands), BATCH)):
            pipe = self.client.pipeline(transaction=False)
            for command in batch:
                pipe.execute_command(*command)
            replies += yield pipe.execute
        return replies


class RedisStackSource(WalkedSource):
    """RedisSaver and ShallowRedisSaver of langgraph-checkpoint-redis, and their async twins. Writes are read from their
    documents: the saver's own search gives 1,000 at most, and not in LangGraph's order."""

    notes = ("langgraph-checkpoint-redis stores values as JSON: tuples became lists, keys of dictionaries text, NaN null",)

    @property
    def client(self) -> Any:
        return self.saver._redis

    @property
    def shallow(self) -> bool:
        return "Shallow" in type(self.saver).__name__

    def walk(self) -> Flow[dict[str, set[Place]]]:
        keys = yield from self.scan(f"{self.saver._checkpoint_prefix}:*")
        fields = ("$.thread_id", "$.checkpoint_ns", "$.checkpoint_id")
        replies = yield from self.documents(*(("JSON.GET", key, *fields) for key in keys))
        found: dict[str, set[Place]] = {}
        for key, reply in zip(keys, replies, strict=True):
            if reply is None:
                continue  # expired since
            found_at = parsed(reply)  # in an order of its own
            thread, ns, checkpoint = (found_at[name][0] if found_at[name] else "" for name in fields)
            place = Place(checkpoint, "" if ns == _EMPTY else ns)
            if key == self._key(thread, place):  # not one of the other kind of saver
                found.setdefault(thread, set()).add(place)
        return found

    def _key(self, thread: str, place: Place) -> str:
        if self.shallow:
            return str(self.saver._make_shallow_redis_checkpoint_key_cached(thread, place.ns))
        return str(self.saver._make_redis_checkpoint_key(thread, place.ns, place.checkpoint))

    def read(self, thread: str, place: Place) -> Flow[Found | None]:
        tup = yield self.verb("get_tuple", {"configurable": {"thread_id": thread, **_named(place)}})
        if tup is None or tup.checkpoint["id"] != place.checkpoint:
            return None  # a shallow saver has the next one by now
        checkpoint = dict(tup.checkpoint)
        if checkpoint.get("v", 0) >= 4:  # what this saver adds to LangGraph's fields
            for name in ("type", "pending_sends"):
                checkpoint.pop(name, None)
        parent = (tup.parent_config or {}).get("configurable", {}).get("checkpoint_id") or None
        writes = yield from self._writes(thread, place)
        return Found(place, None if parent == place.checkpoint else parent, checkpoint, dict(tup.metadata), writes)

    def _writes(self, thread: str, place: Place) -> Flow[list[Write]]:
        if self.shallow:
            registry = f"write_registry:{thread}:{place.ns or _EMPTY}:shallow"
        else:
            registry = self.saver._key_registry.make_write_keys_zset_key(thread, place.ns, place.checkpoint)
        keys = yield partial(self.client.zrange, registry, 0, -1)
        replies = yield from self.documents(*(("JSON.GET", text(key)) for key in keys))
        found = [
            Write(
                each["task_id"],
                each.get("task_path", ""),
                int(each["idx"]),
                each["channel"],
                self.saver.serde.loads_typed((each["type"], base64.b64decode(each["blob"]))),
            )
            for each in (parsed(reply) for reply in replies if reply is not None)
            if each["checkpoint_id"] == place.checkpoint
        ]
        return sorted(found, key=lambda write: (write.path, write.task, write.index))


class ValkeySource(WalkedSource):
    """ValkeySaver and AsyncValkeySaver of langgraph-checkpoint-aws. `list` gives one namespace only."""

    notes = (_NO_PATHS, "ValkeySaver stores metadata as JSON: tuples became lists")

    def walk(self) -> Flow[dict[str, set[Place]]]:
        keys = yield from self.scan("thread:{*}:*")
        lists = yield from self.documents(*(("LRANGE", key, 0, -1) for key in keys))
        found: dict[str, set[Place]] = {}
        for key, ids in zip(keys, lists, strict=True):
            thread, ns = key.removeprefix("thread:{").split("}:", 1)
            found.setdefault(thread, set()).update(Place(text(checkpoint), ns) for checkpoint in ids)
        return found

    def rows(self, thread: str, place: Place) -> Flow[list[Row] | None]:
        reply = yield partial(self.client.get, self.saver._make_writes_key(thread, place.ns, place.checkpoint))
        stored = json.loads(reply) if reply else []
        return [Row(each["task_id"], None, each["idx"], each["channel"]) for each in stored]


class PlainRedisSource(WalkedSource):
    """RedisSaver and AsyncRedisSaver of langgraph-checkpoint-plainredis."""

    notes = (_NO_PATHS,)

    def walk(self) -> Flow[dict[str, set[Place]]]:
        registered = yield partial(self.client.hgetall, f"{self.saver.prefix}:threads")
        named = [json.loads(value) for value in registered.values()]
        lines = yield from self.documents(*(("ZRANGE", text(index), 0, -1) for index in registered))
        found: dict[str, set[Place]] = {}
        for name, ids in zip(named, lines, strict=True):
            found.setdefault(name["thread"], set()).update(Place(text(checkpoint), name["ns"]) for checkpoint in ids)
        return found

    def rows(self, thread: str, place: Place) -> Flow[list[Row] | None]:
        stored = yield partial(self.client.hgetall, self.saver._key_writes(thread, place.ns, place.checkpoint))
        return list(self._rows(stored))

    def _rows(self, stored: dict[Any, Any]) -> Iterator[Row]:
        for field, value in stored.items():
            task, _, index = text(field).rpartition(":")
            packed = json.loads(value)
            _, channel, _ = self.saver.serde.loads_typed((packed["t"], base64.b64decode(packed["d"])))
            yield Row(task, None, int(index), channel)


def _named(place: Place) -> dict[str, str]:
    return {"checkpoint_ns": place.ns, "checkpoint_id": place.checkpoint}
