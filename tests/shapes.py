"""Configs, checkpoints and metadata in the shape LangGraph gives them, and how what comes back is compared."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.messages import AIMessage
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.base.id import uuid6


class SyncSurface(BaseCheckpointSaver[Any]):
    """The sync methods of a saver under the names of the async ones: one test serves both."""

    def __init__(self, inner: BaseCheckpointSaver[Any]) -> None:
        super().__init__(serde=inner.serde)
        self.inner = inner

    async def aget_tuple(self, config: Any) -> Any:
        return self.inner.get_tuple(config)

    async def alist(self, config: Any, **options: Any) -> AsyncIterator[Any]:
        for found in self.inner.list(config, **options):
            yield found

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        return self.inner.put(config, checkpoint, metadata, new_versions)

    async def aput_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        self.inner.put_writes(config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        self.inner.delete_thread(thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        self.inner.delete_for_runs(run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self.inner.copy_thread(source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        self.inner.prune(thread_ids, strategy=strategy)

    async def aget_delta_channel_history(self, *, config: Any, channels: Sequence[str]) -> Mapping[str, Any]:
        return self.inner.get_delta_channel_history(config=config, channels=channels)

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self.inner.get_next_version(current, channel)

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> BaseCheckpointSaver[Any]:
        return SyncSurface(self.inner.with_allowlist(extra_allowlist))


def new_id() -> str:
    """A checkpoint id, greater than every one before."""
    return str(uuid6(clock_seq=0))


def at(thread: Any, ns: str | None = "", checkpoint_id: str | None = None, **more: Any) -> dict[str, Any]:
    """A config. `ns=None` leaves the namespace out, as somebody who lists a whole thread does."""
    configurable = {"thread_id": thread, **more}
    if ns is not None:
        configurable["checkpoint_ns"] = ns
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


def checkpoint(
    values: Mapping[str, Any] | None = None,
    versions: Mapping[str, Any] | None = None,
    *,
    id: str | None = None,
) -> dict[str, Any]:
    values = dict(values or {})
    return {
        "v": 4,
        "id": id or new_id(),
        "ts": "2025-05-05T05:05:05.000005+00:00",
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, 1) if versions is None else dict(versions),
        "versions_seen": {"__input__": {}},
        "updated_channels": None,
    }


@functools.lru_cache(maxsize=2_000)
def words(seed: object, count: int) -> str:
    """Text that hardly compresses."""
    chosen = random.Random(str(seed))
    return " ".join(f"{chosen.getrandbits(40):x}" for _ in range(count))


def metadata(**more: Any) -> dict[str, Any]:
    return {"source": "loop", "step": 0, "parents": {}, **more}


async def put(
    saver: BaseCheckpointSaver[Any],
    config: dict[str, Any],
    values: Mapping[str, Any] | None = None,
    *,
    id: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Put a checkpoint all of whose channels are new; `config` may name its parent."""
    made = checkpoint(values, id=id)
    return await saver.aput(config, made, metadata(**more), made["channel_versions"])


async def listed(saver: BaseCheckpointSaver[Any], config: Any, **options: Any) -> list[CheckpointTuple]:
    return [found async for found in saver.alist(config, **options)]


async def ids(saver: BaseCheckpointSaver[Any], config: Any, **options: Any) -> list[str]:
    return [id_of(found.config) for found in await listed(saver, config, **options)]


def id_of(config: Mapping[str, Any]) -> str:
    return config["configurable"]["checkpoint_id"]


EXPIRIES = """
local function ms() local time = redis.call('TIME') return time[1] * 1000 + math.floor(time[2] / 1000) end
local told = { ms() }
for k = 1, #KEYS do
  local left = redis.call('PTTL', KEYS[k])
  told[k + 1] = left < 0 and left or told[1] + left
end
told[#told + 1] = ms()
return told
"""


def expiries(client: Any, *keys: bytes) -> list[int]:
    """When each key of one slot expires, in ms of the server's clock; -1: never, -2: it is not there. And what that clock says.

    What is left is told by a clock that goes on within a script, so this asks until all was told in one millisecond.
    """
    while True:
        now, *moments, then = client.eval(EXPIRIES, len(keys), *keys)
        if now == then:
            return [*moments, now]


def state_calls(states: Any) -> list[Callable[[], Any]]:
    """Every call of a `RedisStatePersistence` that asks the server, about a state "s"."""
    return [
        lambda: states.save_with_metadata({"n": 2}, "s"),
        lambda: states.load_with_metadata("s"),
        lambda: states.list_states(),
        lambda: states.search_by_tags(["t"]),
        lambda: states.list_versions("s"),
        lambda: states.exists("s"),
        lambda: states.delete_version("s", 1),
        lambda: states.delete_state("s"),
        lambda: states.rollback("s", 1),
        lambda: states.touch("s", 5),
        lambda: states.get_stats(),
    ]


def plain(found: CheckpointTuple | None) -> Any:
    """A tuple as what two savers must agree on: of a config the three ids count, and of what is
    kept by name (channels, metadata) the order does not."""
    if found is None:
        return None

    def place(config: Any) -> Any:
        if config is None:
            return None
        told = config["configurable"]
        return (told["thread_id"], told.get("checkpoint_ns", ""), told["checkpoint_id"])

    made = dict(sorted(found.checkpoint.items()))
    for by_name in ("channel_values", "channel_versions", "versions_seen"):
        made[by_name] = dict(sorted(made[by_name].items()))
    return {
        "config": place(found.config),
        "parent": place(found.parent_config),
        "checkpoint": made,
        "metadata": dict(sorted(found.metadata.items())),
        "writes": [tuple(write) for write in found.pending_writes or []],
    }


ATOMS = (str, int, bytes, bool, type(None))


def difference(expected: Any, actual: Any) -> str | None:
    """Where two values differ in type or content, or None. NaN equals NaN; mappings are compared in order."""
    found = _difference(expected, actual)
    return found and f"{found[0] or '.'}: {found[1]}"


def _difference(expected: Any, actual: Any) -> tuple[str, str] | None:
    """The place within the values, which is put together only where they differ, and how they do."""
    if type(expected) is not type(actual):
        return "", f"{type(expected).__qualname__} became {type(actual).__qualname__}"
    if type(expected) in ATOMS:
        return None if expected == actual else ("", f"{expected!r:.300} became {actual!r:.300}")
    if isinstance(expected, float):
        if math.isnan(expected):
            same = math.isnan(actual)
        else:
            same = (math.copysign(1, expected), expected) == (math.copysign(1, actual), actual)
        return None if same else ("", f"{expected!r} became {actual!r}")
    if isinstance(expected, np.ndarray):
        if (expected.dtype, expected.shape) != (actual.dtype, actual.shape):
            return "", f"{expected.dtype}{expected.shape} became {actual.dtype}{actual.shape}"
        return None if expected.tobytes() == actual.tobytes() else ("", "the array's elements differ")
    if isinstance(expected, dict):
        if [(type(key), key) for key in expected] != [(type(key), key) for key in actual]:
            return "", f"keys {list(expected)!r:.300} became {list(actual)!r:.300}"
        return _first((key, value, actual[key]) for key, value in expected.items())
    if isinstance(expected, (list, tuple, deque)):
        if len(expected) != len(actual):
            return "", f"{len(expected)} elements became {len(actual)}"
        return _first(zip(range(len(expected)), expected, actual, strict=True))
    if isinstance(expected, (set, frozenset)):
        kinds = [sorted((type(x).__qualname__, repr(x)) for x in group) for group in (expected, actual)]
        return None if kinds[0] == kinds[1] else ("", f"{expected!r} became {actual!r}")
    if hasattr(expected, "model_dump") or dataclasses.is_dataclass(expected):
        return _difference(vars_of(expected), vars_of(actual))
    if isinstance(expected, BaseException):
        return _difference(expected.args, actual.args)
    return None if expected == actual else ("", f"{expected!r:.300} became {actual!r:.300}")


def _first(parts: Iterable[tuple[Any, Any, Any]]) -> tuple[str, str] | None:
    """The first difference among parts: their key or index, the expected, the actual."""
    for key, expected, actual in parts:
        if expected is not actual and (found := _difference(expected, actual)) is not None:
            return f"[{key!r}]{found[0]}", found[1]
    return None


def vars_of(thing: Any) -> dict[str, Any]:
    if hasattr(thing, "model_dump"):
        return {name: getattr(thing, name) for name in type(thing).model_fields} | dict(thing.model_extra or {})
    return {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}


def assert_same(expected: Any, actual: Any) -> None:
    found = difference(expected, actual)
    assert found is None, found


def spoil(value: Any) -> None:
    """Changes everything in it that can be changed."""
    if isinstance(value, dict):
        for each in value.values():
            spoil(each)
        for name in list(value):
            if not isinstance(value[name], dict | list):
                value[name] = "spoiled"
        value["spoiled"] = "spoiled"
    elif isinstance(value, list | tuple):
        for each in value:
            spoil(each)
        if isinstance(value, list):
            value[:] = ["spoiled"]
    elif isinstance(value, AIMessage):
        value.content = "spoiled"
