"""Reads a thread on both sides and names every difference. Values are compared as what the serializer makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.base import SerializerProtocol

from ..errors import CheckpointLostError
from .flow import Flow
from .report import Difference, Report
from .sources import Found, Place, Source, config_of
from .writes import batches, in_order

_NEVER_DELTA = ("branch:to:", "__")
"""How channels of LangGraph's own begin, which hold a value for one step."""


def compare_thread(source: Source, target: Source, thread: str, places: list[Place], report: Report) -> Flow[None]:
    """Compares these checkpoints, and what DeltaChannels of those without a child are rebuilt from."""
    serde = target.saver.serde
    parents: set[tuple[str, str | None]] = set()
    absent: dict[Place, list[str]] = {}

    def differs(place: Place, what: str) -> None:
        report.differences.append(Difference(thread, place.ns, place.checkpoint, what))

    for place in places:
        mine = yield from source.read(thread, place)
        if mine is None:
            continue  # gone from the source meanwhile, which the copy has counted
        tup: CheckpointTuple | None = yield target.verb("get_tuple", config_of(thread, place.ns, place.checkpoint))
        report.verified += 1
        parents.add((place.ns, mine.parent))
        values = mine.checkpoint.get("channel_values") or {}
        versions = mine.checkpoint.get("channel_versions") or {}
        absent[place] = sorted(name for name in versions if name not in values and not name.startswith(_NEVER_DELTA))
        if tup is None:
            differs(place, "missing")
            continue
        for what in differing(serde, mine, tup):
            differs(place, what)
    for place, channels in absent.items():
        if channels and (place.ns, place.checkpoint) not in parents:
            for what in (yield from _histories(source, target, thread, place, channels)):
                differs(place, what)


def differing(serde: SerializerProtocol, mine: Found, theirs: CheckpointTuple) -> Iterator[str]:
    """What is not the same in one checkpoint."""
    if mine.parent != ((theirs.parent_config or {}).get("configurable", {}).get("checkpoint_id") or None):
        yield "parent"
    if not same(serde, mine.metadata, dict(theirs.metadata)):
        yield "metadata"
    yield from _of(serde, "", _without_values(mine.checkpoint), _without_values(theirs.checkpoint))
    left, right = mine.checkpoint.get("channel_values") or {}, theirs.checkpoint.get("channel_values") or {}
    yield from _of(serde, "channel ", left, right)
    # one call of put_writes a task: the order within a task is that of the indexes
    expected = [(task, channel, value) for task, _, writes in batches(mine.writes) for channel, value in in_order(writes)]
    if not same(serde, expected, [tuple(write) for write in theirs.pending_writes or []]):
        yield "writes"


def _without_values(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in checkpoint.items() if name != "channel_values" and value is not None}


def _of(serde: SerializerProtocol, what: str, left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(left.keys() | right.keys()):
        if name not in left or name not in right or not same(serde, left[name], right[name]):
            yield f"{what}{name}"


def same(serde: SerializerProtocol, left: Any, right: Any) -> bool:
    """Whether the serializer makes the same bytes of both; sets and dictionaries may have another order."""
    if serde.dumps_typed(left) == serde.dumps_typed(right):
        return True
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(serde, left[name], right[name]) for name in left)
    if isinstance(left, set | frozenset) and isinstance(right, set | frozenset):
        return left == right
    return False


def _histories(source: Source, target: Source, thread: str, place: Place, channels: list[str]) -> Flow[list[str]]:
    """The channels whose value cannot be rebuilt in the same way from writes of ancestors."""
    config = config_of(thread, place.ns, place.checkpoint)
    mine: Mapping[str, Any] = yield source.history(config, channels)
    written = [name for name, history in mine.items() if "seed" in history or history["writes"]]
    if not written:
        return []
    try:
        theirs: Mapping[str, Any] = yield target.verb("get_delta_channel_history", config=config, channels=written)
    except CheckpointLostError:
        return [f"delta channel {name}" for name in written]
    serde = target.saver.serde
    found = []
    for name in written:
        if not same(serde, _plain(mine[name]), _plain(theirs[name])):
            only = same(serde, _by_task(mine[name]), _by_task(theirs[name]))
            found.append(f"{'order of tasks in delta channel' if only else 'delta channel'} {name}")
    return found


def _plain(history: Mapping[str, Any]) -> list[Any]:
    return [history.get("seed"), "seed" in history, [value for _, _, value in history["writes"]]]


def _by_task(history: Mapping[str, Any]) -> list[Any]:
    """The same, but for the order in which tasks wrote."""
    tasks: dict[str, list[Any]] = {}
    for task, _, value in history["writes"]:
        tasks.setdefault(task, []).append(value)
    return [history.get("seed"), "seed" in history, sorted(tasks.items(), key=lambda each: each[0])]
