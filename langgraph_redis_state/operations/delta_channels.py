"""get_delta_channel_history: the ancestors of a checkpoint, portion by portion, and what its DeltaChannels are rebuilt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import DeltaChannelHistory
from langgraph.checkpoint.serde.base import SerializerProtocol

from ..address import Address
from ..caching.parts import Parts
from ..effects import Operation, Read, compute
from ..errors import CheckpointCorruptError, CheckpointLostError
from ..scripts import commands
from ..serialization import deltas
from ..serialization.decode import StoredCheckpoint, Take, loaded
from ..serialization.deltas import Lineage
from ..storage.bodies import Value
from . import freshness
from .engine import Engine
from .reading import PAGE_BYTES, PAGE_CHECKPOINTS, check_absent, fetch, read_reference_pages, size_of, stored


def get_delta_channel_history(
    engine: Engine, serde: SerializerProtocol, config: RunnableConfig, channels: Sequence[str]
) -> Operation[Mapping[str, DeltaChannelHistory]]:
    """LangGraph's rule: from the target's parent up, collect each channel's writes until an ancestor holds a value.
    The writes stored at that ancestor came after its value, so they count; the target's own are pending and do not."""
    target = engine.target(config)
    about = target.about("get_delta_channel_history")
    channels = tuple(channels)
    yield from engine.check_layout(False)
    lineage = yield from read_lineage(engine, serde, target, about, channels, partial(loaded, serde))
    refuse_broken(engine, lineage, about)
    return histories(lineage, channels)


def histories(lineage: Lineage, channels: Sequence[str]) -> Mapping[str, DeltaChannelHistory]:
    """A lineage as LangGraph gets it: writes oldest first, and the seed if there is one."""
    result: dict[str, DeltaChannelHistory] = {}
    for channel in channels:
        writes = [(task, channel, value) for task, value in reversed(lineage.writes.get(channel, ()))]
        entry: DeltaChannelHistory = {"writes": writes}
        if channel in lineage.seeds:
            entry["seed"] = lineage.seeds[channel]
        result[channel] = entry
    return result


def refuse_broken(engine: Engine, lineage: Lineage, about: str) -> None:
    if lineage.lost:
        gone = sorted(set(lineage.lost.values()))
        raise CheckpointLostError(
            f"{about}: channels {sorted(lineage.lost)} are rebuilt from ancestors, but the chain ends at {gone}, which "
            "went away; go back to a checkpoint that is whole"
        )


def read_lineage(
    engine: Engine,
    serde: SerializerProtocol,
    target: Address,
    about: str,
    channels: Sequence[str] | None,
    take: Take | None,
) -> Operation[Lineage]:
    """What channels of a checkpoint are rebuilt from; None: those that need it. `take` makes of what is stored what the
    lineage holds; None: it stays in stored form, and the content of its chunks is not read."""
    yield from engine.unlock(target)
    lineage = Lineage(dict.fromkeys(channels or ()))
    cursor, walked = target.checkpoint, set[bytes]()
    first = True
    while lineage.remaining or (first and channels is None):
        walk = yield from commands.walk_ancestors(
            target.keys, about, target.ns, cursor, PAGE_CHECKPOINTS, PAGE_BYTES, take is not None, engine.settings.fresh
        )
        if walk is None:
            yield from check_absent(engine, target, cursor)
            if first:
                break
            raise CheckpointLostError(f"{about}: the ancestor {cursor.decode()!r} was deleted while the chain was read")
        newest = () if cursor else (target.ns,)
        freshness.check(engine, target, walk.statement, [walk.start, *walk.found], newest, freshness.nothing_more)
        found, parts = stored(target, walk.found), Parts(walk.pages, walk.chunks, by=target.seal)
        (last,) = stored(target, [walk.start])
        if first and channels is None:
            lineage.remaining = dict.fromkeys(_needed_channels(serde, last))
        first = False
        left: Sequence[StoredCheckpoint] = found
        while left and lineage.remaining:
            passed, held = yield from compute(
                partial(_gather, left, parts, lineage, walked, take or _as_stored), size_of(left, parts)
            )
            if held:
                yield from _take_seeds(engine, target, about, left[passed - 1], held, lineage, take)
            left = left[passed:]
        last = found[-1] if found else last
        if not lineage.remaining:
            break
        if walk.history is not None:
            yield from _continue_at_cut(engine, target, about, last, walk.history, parts, lineage, take)
            break
        if not walk.following:
            break
        if not walk.following_exists:
            if last.header.depth:
                lineage.broken(walk.following.decode(errors="replace"))
            break
        cursor = found[-1].checkpoint
    return lineage


def _needed_channels(serde: SerializerProtocol, checkpoint: StoredCheckpoint) -> Sequence[str]:
    if not checkpoint.header.depth:
        return ()
    rest, metadata = checkpoint.load(serde)
    return sorted(deltas.rebuilt(checkpoint, rest.get("channel_versions") or {}, metadata))


def _take_seeds(
    engine: Engine,
    target: Address,
    about: str,
    origin: StoredCheckpoint,
    held: Sequence[str],
    lineage: Lineage,
    take: Take | None,
) -> Operation[None]:
    """Takes the seeds of some channels from an ancestor that holds them."""
    if take is None:
        parts = yield from read_reference_pages(engine, target, origin.header.pages, about)
    else:
        whole, parts = yield from fetch(engine, target, [(target.ns, origin.checkpoint)])
        if not whole:
            raise CheckpointLostError(f"{about}: the ancestor {origin.checkpoint.decode()!r} went away while it was read")
        origin = whole[0]

    def seed() -> None:
        values = origin.values(parts)
        for channel in held:
            where = f"{origin.place}, channel {channel!r}"
            lineage.seeded(channel, (take or _as_stored)(values[channel], parts, where))

    yield from compute(seed, size_of([origin], parts))


def _continue_at_cut(
    engine: Engine,
    target: Address,
    about: str,
    last: StoredCheckpoint,
    raw: bytes,
    parts: Parts,
    lineage: Lineage,
    take: Take | None,
) -> Operation[None]:
    """Takes what remains from the delta history of the last checkpoint that is there."""
    history = deltas.History(raw, target.place(b"H", last.ns, last.checkpoint), target.seal)
    if take is None and (own := history.own(parts)):
        (chunks,) = yield Read([("HMGET", target.keys.hash, *(b"D" + name for name in own))], about)
        parts.chunks.update((name, chunk) for name, chunk in zip(own, chunks, strict=True) if chunk is not None)
    taken = take or _as_stored

    def go_on() -> None:
        lineage.cut(history, parts, taken)

    yield from compute(go_on, size_of((), parts))


def _gather(
    found: Sequence[StoredCheckpoint],
    parts: Parts,
    lineage: Lineage,
    walked: set[bytes],
    take: Take,
) -> tuple[int, list[str]]:
    """Adds the writes of the channels that remain, newest first, up to an ancestor that holds one of them: how many
    ancestors that took, and which it holds."""
    for passed, each in enumerate(found, 1):
        place, held_here = each.place, each.channels
        if each.checkpoint in walked:
            raise CheckpointCorruptError(f"{place}: the checkpoint is its own ancestor; its parent was set wrongly")
        walked.add(each.checkpoint)
        for task, channel, value in reversed(each.pending_writes(parts, lineage.remaining, take)):
            lineage.wrote(channel, task, value)
        held = [channel for channel in lineage.remaining if channel in held_here]
        if held:
            return passed, held
    return len(found), []


def _as_stored(value: Value, parts: Parts, where: object) -> Value:
    return value
